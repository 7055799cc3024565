//! `--method qat`: which method is trained, and the training.

use crate::arguments::{ActivationsArgument, MethodArgument, QuantizeArguments, WeightsArgument};
use crate::commands::calibrate;
use crate::failure::UsageError;
use crate::render::progress::{Progress, Unit};
use crate::{render, streams};
use anyhow::Result;
use fewbit::quantize::OutputOptions;
use fewbit::quantize::calibration::CalibrationSamples;
use fewbit::quantize::calibration::texts::SampleSize;
use fewbit::train::{TrainingOptions, TrainingReport, train_model};
use fewbit::{Method, Recipe};
use std::path::Path;

/// The method that is trained: what the codes of weights and of inputs make it.
pub(super) fn method_to_train(arguments: &QuantizeArguments) -> Result<Method, UsageError> {
    let inputs = match (arguments.activations, arguments.weights) {
        (Some(ActivationsArgument::PerTensor), _) => {
            return Err(UsageError(
                "--activations per-tensor does not go with the method `qat`\n  hint: train with `dynamic` (a scale a token), `static` or `none`".to_owned(),
            ));
        }
        (Some(activations), _) => activations,
        (None, None | Some(WeightsArgument::Int8)) => ActivationsArgument::Dynamic,
        (None, Some(_)) => ActivationsArgument::None,
    };
    match (arguments.weights, inputs) {
        (Some(WeightsArgument::Nf4), ActivationsArgument::None) => Ok(Method::Nf4),
        (Some(WeightsArgument::Nf4), _) => Err(UsageError(
            "--weights nf4: expected --activations none: products of NF4 weights have float inputs\n  hint: --weights int4 has inputs of 8 bits".to_owned(),
        )),
        (None | Some(WeightsArgument::Int8 | WeightsArgument::Int4), inputs) => Ok(match inputs {
            ActivationsArgument::Static => Method::Static,
            ActivationsArgument::None => Method::WeightOnly,
            _ => Method::Dynamic,
        }),
        (Some(WeightsArgument::Fp8 | WeightsArgument::Nvfp4 | WeightsArgument::Mxfp4), _) => {
            Err(UsageError(
                "--weights: expected int8, int4 or nf4 with the method `qat`\n  hint: small floats are not trained".to_owned(),
            ))
        }
    }
}

/// Refuses values that are those of `qat` alone beside another method, and flags of training where nothing is trained.
pub(super) fn refuse_without_training(arguments: &QuantizeArguments) -> Result<(), UsageError> {
    if arguments.method == Some(MethodArgument::Qat) {
        return Ok(());
    }
    if arguments.weights == Some(WeightsArgument::Nf4) {
        return Err(UsageError(
            "--weights nf4: expected the method `qat` beside it\n  hint: --method nf4 has these weights".to_owned(),
        ));
    }
    let method = match arguments.activations {
        Some(ActivationsArgument::Dynamic) => "dynamic",
        Some(ActivationsArgument::Static) => "static",
        Some(ActivationsArgument::None) => "weight-only",
        None | Some(ActivationsArgument::PerToken | ActivationsArgument::PerTensor) => {
            return Ok(());
        }
    };
    Err(UsageError(format!(
        "--activations: expected per-token or per-tensor, or the method `qat` beside it\n  hint: --method {method} has such inputs"
    )))
}

/// Refuses training without texts, and flags of training without training.
pub(in crate::commands) fn check(
    arguments: &QuantizeArguments,
    recipe: &Recipe,
) -> Result<(), UsageError> {
    match (recipe.is_trained(), arguments.training.typed()) {
        (false, Some(flag)) => Err(UsageError(format!(
            "{flag} goes with the method `qat` alone, found `{}`\n  hint: leave it out, or give --method qat",
            recipe.method()
        ))),
        (true, _) if arguments.calibration.calibration.is_none() => {
            let who = match &arguments.recipe {
                Some(file) => format!("{}: `qat`", file.display()),
                None => "--method qat".to_owned(),
            };
            Err(UsageError(format!(
                "{who}: expected --data FILE\n  hint: a few thousand texts like those that the model will see, one a line; they need no labels"
            )))
        }
        _ => Ok(()),
    }
}

/// Trains, and writes what came of it.
pub(super) fn run(
    source: &Path,
    recipe: &Recipe,
    output: &Path,
    output_options: &OutputOptions,
    threads: usize,
    arguments: &QuantizeArguments,
) -> Result<TrainingReport> {
    let samples = samples(source, arguments)?;
    let defaults = TrainingOptions::default();
    let (flags, texts) = (&arguments.training, &arguments.calibration.texts);
    let options = TrainingOptions {
        steps: flags.steps.unwrap_or(defaults.steps),
        batch_size: texts.batch_size.unwrap_or(defaults.batch_size),
        learning_rate: flags.learning_rate,
        seed: texts.seed,
        evaluation_interval: flags
            .evaluation_interval
            .unwrap_or(defaults.evaluation_interval),
        patience: flags.patience.unwrap_or(defaults.patience),
        threads,
    };
    let mut progress = Progress::start(&recipe.label(), options.steps as u64, Unit::Steps);
    let mut begun = false;
    let report = train_model(
        source,
        recipe,
        &samples,
        &options,
        output,
        output_options,
        &mut |state| {
            // What the model to begin with takes says nothing of the time left.
            if !begun && state.cosine.is_some() {
                progress.begin_after(state.step as u64);
                begun = true;
            }
            let what = render::training::state(&state);
            progress.set(state.step as u64, state.steps as u64, &what);
        },
    );
    progress.finish();
    let report = report?;
    if let Some(warning) = render::training::warning(&report) {
        streams::warn(&warning);
    }
    Ok(report)
}

/// The texts to train on.
fn samples(source: &Path, arguments: &QuantizeArguments) -> Result<CalibrationSamples> {
    let options = calibrate::options(&arguments.calibration).to_train_on();
    // A file of fewer than the most is the rule.
    let samples = options.samples_for(source, &mut |step| {
        calibrate::note(&step, SampleSize::UpTo(0));
    });
    Ok(samples?)
}
