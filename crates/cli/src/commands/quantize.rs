//! `fewbit quantize`

mod backend;
pub(super) mod floats;
pub(super) mod training;

use super::calibrate;
use crate::arguments::{GlobalArguments, MethodArgument, QuantizeArguments, SensitivityArgument};
use crate::failure::UsageError;
use crate::render::progress::{Progress, Unit};
use crate::{render, streams};
use anyhow::Result;
use fewbit::quantize::calibration::SiteSensitivity;
use fewbit::quantize::weight_codecs;
use fewbit::quantize::{
    ActivationsField, GptqCalibration, OutputOptions, PlanRow, PlannedConversion, WeightScales,
};
use fewbit::train::TrainingReport;
use fewbit::{
    Catalogue, Method, QuantizeError, QuantizePlan, QuantizeReport, Recipe, RecipeFields,
    TensorAction, WeightsField, threads,
};
use serde::Serialize;

/// What `--dry-run --json` prints.
#[derive(Serialize)]
struct DryRun<'a> {
    dry_run: bool,
    #[serde(flatten)]
    plan: &'a QuantizePlan,
    /// Number of files of weights.
    files: usize,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    sensitivity: &'a [SiteSensitivity],
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    report: &'a QuantizeReport,
    /// What one range costs at each input; of a calibrated model.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    sensitivity: &'a [SiteSensitivity],
}

/// What `--json` prints of a model that was trained.
#[derive(Serialize)]
struct Trained<'a> {
    #[serde(flatten)]
    report: &'a TrainingReport,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    sensitivity: &'a [SiteSensitivity],
}

pub(super) fn run(arguments: &QuantizeArguments, global: GlobalArguments) -> Result<()> {
    let threads = threads::resolve(arguments.threads)?;
    weight_codecs::set_threads(threads.count);
    let mut recipe = recipe(arguments)?;
    let source = super::resolve(&arguments.model)?;
    let mut sensitivity = Vec::new();
    let mut costs = String::new();
    let mut samples = None;
    if let Recipe::Integer(options) = &recipe
        && recipe.method().needs_calibration()
        && arguments.recipe.is_none()
    {
        let mut calibrated = calibrate::calibrate(&source, &arguments.calibration)?;
        let with_scales = calibrated
            .recipe(options)
            .map_err(|error| in_words_of_flags(error, arguments))?;
        if arguments.sensitivity == Some(SensitivityArgument::Output) {
            calibrate::measure_output_effect(&mut calibrated, options)?;
        }
        let are_floats = options.weights.floats().is_some();
        recipe = with_scales;
        // What one range costs codes of integers says nothing of floats.
        if !are_floats {
            calibrate::warn_of_noise(&calibrated, &arguments.calibration);
            sensitivity = calibrated.sites().to_vec();
            costs = render::sensitivity::table(&sensitivity, calibrated.least_sqnr_db()) + "\n";
        }
        samples = Some(calibrated.into_samples());
    }
    let gptq = if recipe.needs_samples() && !recipe.is_trained() {
        let samples = match samples {
            Some(samples) => samples,
            None => calibrate::samples(&source, &arguments.calibration)?,
        };
        Some(gptq_calibration(
            GptqCalibration::new(samples, threads.count),
            arguments,
        )?)
    } else {
        None
    };
    if arguments.method == Some(MethodArgument::Int4) {
        streams::note("int4 is nf4: 4-bit NormalFloat codes\n");
    }
    let conversion = PlannedConversion::new(&source, &recipe)
        .map_err(|error| in_words_of_flags(error, arguments))?;
    say_what_is_planned(&conversion)?;
    let plan = conversion.plan();
    let options = OutputOptions {
        force: arguments.force,
        max_shard_size: arguments.max_shard_size,
        resume: arguments.resume,
    };
    let output = match &arguments.output {
        Some(output) if !arguments.dry_run => output,
        output => {
            if let Some(output) = output {
                conversion.check_output(output, arguments.force)?;
            }
            let files = conversion.file_bytes(&options)?;
            return if global.json {
                streams::print_json(&DryRun {
                    dry_run: true,
                    plan,
                    files: files.len(),
                    sensitivity: &sensitivity,
                })
            } else {
                streams::print(&(costs + &render::quantization::plan(plan, &files)))
            };
        }
    };
    if recipe.is_trained() {
        let trained = training::run(&source, &recipe, output, &options, threads.count, arguments)?;
        return if global.json {
            streams::print_json(&Trained {
                report: &trained,
                sensitivity: &sensitivity,
            })
        } else {
            let training = render::training::report(&trained);
            let written = render::quantization::report(&trained.quantization, output);
            streams::print(&(costs + &training + &written))
        };
    }
    if arguments.resume {
        super::say_if_nothing_is_to_resume(output);
    }
    let mut progress = Progress::start(&recipe.label(), 0, Unit::Bytes);
    let mut show = |done, total, module: &str| {
        progress.set(done as u64, total as u64, module);
    };
    let report = conversion.write(gptq.as_ref(), output, &options, &mut show);
    progress.finish();
    let report = report?;
    tracing::info!(output = %report.output.display(), seconds = report.elapsed_seconds, "written");
    if global.json {
        streams::print_json(&Report {
            report: &report,
            sensitivity: &sensitivity,
        })
    } else {
        streams::print(&(costs + &render::quantization::report(&report, output)))
    }
}

/// `calibration` with a place for finished layers, if anything is to be written.
fn gptq_calibration(
    calibration: GptqCalibration,
    arguments: &QuantizeArguments,
) -> Result<GptqCalibration> {
    let Some(out) = arguments.output.as_deref().filter(|_| !arguments.dry_run) else {
        return Ok(calibration);
    };
    Ok(calibration.kept_beside(out, arguments.resume)?)
}

/// Says what is worth knowing before it happens.
fn say_what_is_planned(conversion: &PlannedConversion) -> Result<()> {
    let (checkpoint, plan) = (conversion.checkpoint(), conversion.plan());
    let rows = plan.rows();
    let is_kept = |row: &&PlanRow| row.action == TensorAction::Keep;
    let kept = rows.iter().filter(is_kept).count();
    tracing::info!(
        changed = rows.len() - kept,
        as_they_are = kept,
        source_bytes = plan.source_bytes(),
        output_bytes = plan.output_bytes(),
        "tensors planned"
    );
    let catalogue = Catalogue::of_checkpoint(checkpoint)?;
    super::warn_of_unused_layers(catalogue.layers(), catalogue.stored_layers(checkpoint));
    if kept == rows.len() {
        let method = plan.recipe().method();
        streams::note(&format!(
            "already {method}: every tensor is written as it is\n"
        ));
    }
    Ok(())
}

/// An error of a recipe, told by the flag or the file that it comes from.
fn in_words_of_flags(error: QuantizeError, arguments: &QuantizeArguments) -> anyhow::Error {
    let (field, what, hint) = match &error {
        QuantizeError::RecipeKey {
            field,
            method,
            hint,
            ..
        } => (
            *field,
            format!("does not go with the method `{method}`"),
            *hint,
        ),
        QuantizeError::Recipe {
            field: field @ "saturation_proof",
            hint,
            ..
        } => (
            *field,
            "expected --gptq beside it".to_owned(),
            hint.as_str(),
        ),
        QuantizeError::Recipe {
            field,
            expected,
            found,
            hint,
            ..
        } => (
            *field,
            format!("expected {expected}, found {found}"),
            hint.as_str(),
        ),
        QuantizeError::Pattern {
            field,
            pattern,
            problem,
            hint,
            ..
        } => (
            *field,
            format!("pattern `{pattern}` {problem}"),
            hint.as_str(),
        ),
        _ => return error.into(),
    };
    match (flag(field, arguments), &arguments.recipe) {
        (Some(flag), _) if is_typed(field, &error, arguments) => {
            UsageError(format!("{flag}: {what}\n  hint: {hint}")).into()
        }
        (_, Some(file)) => error.in_recipe(&file.display().to_string()).into(),
        (Some(flag), None) => UsageError(format!("{flag}: {what}\n  hint: {hint}")).into(),
        (None, None) => error.into(),
    }
}

/// Whether the command line, and not the recipe file, says what `error` finds wrong with a key.
fn is_typed(field: &str, error: &QuantizeError, arguments: &QuantizeArguments) -> bool {
    let patterns = match field {
        "weights" => return arguments.weights.is_some(),
        "group_size" => return arguments.group_size.is_some(),
        "asymmetric" => return arguments.asymmetric,
        "layout" => return arguments.layout.is_some(),
        "weight_scales" => return arguments.weight_scales.is_some(),
        "block_size" => return arguments.block_size.is_some(),
        "double_quant" => return arguments.double_quant,
        "scales" => return arguments.scales.is_some(),
        "quantize_embeddings" => return arguments.quantize_embeddings,
        "embeddings" => return floats::embeddings_beside_a_file(arguments).is_some(),
        "float_dtype" => return arguments.float_dtype.is_some(),
        "gptq" => return arguments.gptq,
        "saturation_proof" => return arguments.saturation_proof,
        "weight_only" => &arguments.weight_only,
        _ => &arguments.skip,
    };
    match error {
        // A long pattern is shown by its start.
        QuantizeError::Pattern { pattern, .. } => patterns
            .iter()
            .any(|typed| typed.starts_with(pattern.trim_end_matches('…'))),
        _ => !patterns.is_empty(),
    }
}

/// The flag that sets a key of a recipe, if there is one.
fn flag(field: &str, arguments: &QuantizeArguments) -> Option<&'static str> {
    Some(match field {
        "weights" => "--weights",
        "group_size" => "--group-size",
        "asymmetric" => "--asymmetric",
        "layout" => "--layout",
        "weight_scales" if arguments.weight_scales.is_some() => "--weight-scales",
        "block_size" => "--block-size",
        "double_quant" => "--double-quant",
        "scales" => "--scales",
        "quantize_embeddings" => "--quantize-embeddings",
        "embeddings" => floats::flag_of_embeddings(arguments),
        "float_dtype" => "--float-dtype",
        "skip" => "--skip",
        "weight_only" => "--weight-only",
        "gptq" => "--gptq",
        "saturation_proof" => "--saturation-proof",
        _ => return None,
    })
}

/// The recipe that the flags and the recipe file, if any, amount to. One of `static` by flags has no scales yet.
fn recipe(arguments: &QuantizeArguments) -> Result<Recipe> {
    training::refuse_without_training(arguments)?;
    let trained = arguments.method == Some(MethodArgument::Qat);
    let mut fields = match (&arguments.recipe, arguments.method) {
        (Some(path), typed) => {
            // What a file holds is an error of the file, whatever flags stand beside it.
            let fields = RecipeFields::from(Recipe::read(path)?);
            // Any method of a recipe can be trained.
            let typed = typed.filter(|_| !trained);
            let method = typed.map(|typed| method(typed, arguments)).transpose()?;
            contradictions(arguments, method, &fields)?;
            fields
        }
        (None, Some(typed)) => {
            let defaults = RecipeFields::new(method(typed, arguments)?);
            let fields = RecipeFields {
                weights: floats::weights(arguments).unwrap_or_default(),
                group_size: arguments.group_size,
                asymmetric: arguments.asymmetric,
                layout: floats::layout(arguments).unwrap_or_default(),
                weight_scales: floats::weight_scales(arguments).unwrap_or_default(),
                block_size: arguments.block_size,
                double_quantization: arguments.double_quant,
                scales: floats::block_scales(arguments),
                embeddings: floats::embeddings(arguments).unwrap_or(defaults.embeddings),
                quantize_embeddings: arguments.quantize_embeddings.then_some(true),
                float_dtype: floats::float_dtype(arguments),
                gptq: arguments.gptq,
                saturation_proof: arguments.saturation_proof,
                ..defaults
            };
            backend::apply(fields, arguments)?
        }
        (None, None) => return Err(UsageError("expected --method or --recipe".to_owned()).into()),
    };
    fields.trained |= trained;
    let add = |typed: &[String], known: &mut Vec<String>| {
        for pattern in typed {
            if !known.contains(pattern) {
                known.push(pattern.clone());
            }
        }
    };
    add(&arguments.skip, &mut fields.skip);
    add(&arguments.weight_only, &mut fields.weight_only);
    let recipe = Recipe::try_from(fields).and_then(|recipe| {
        if recipe.method() != Method::Static || arguments.recipe.is_some() {
            recipe.validate()?;
        }
        Ok(recipe)
    });
    let recipe = recipe.map_err(|error| in_words_of_flags(error, arguments))?;
    calibrate::check(arguments, &recipe)?;
    Ok(recipe)
}

/// A flag beside a recipe file may repeat what the file says, and `--skip` and `--weight-only` may add to it; it may not say otherwise.
fn contradictions(
    arguments: &QuantizeArguments,
    method: Option<Method>,
    file: &RecipeFields,
) -> Result<(), UsageError> {
    let refuse = |flag: &str, typed: String, file: String| {
        Err(UsageError(format!(
            "{flag} contradicts the recipe file: the flag says {typed}, the file {file}\n  hint: leave out the flag, or change the file"
        )))
    };
    if let Some(method) = method
        && method != file.method
    {
        return refuse("--method", method.to_string(), file.method.to_string());
    }
    if let Some(activations) = arguments.activations {
        let typed = backend::activations_field(activations);
        if typed != file.activations {
            let name = |field| match field {
                ActivationsField::PerToken => "per-token".to_owned(),
                ActivationsField::PerTensor => "per-tensor".to_owned(),
            };
            return refuse("--activations", name(typed), name(file.activations));
        }
    }
    if let Some(block_size) = arguments.block_size
        && Some(block_size) != file.block_size
    {
        let known = file
            .block_size
            .map_or("none".to_owned(), |size| size.to_string());
        return refuse("--block-size", block_size.to_string(), known);
    }
    let weights = |weights: WeightsField| weights.name().to_owned();
    if let Some(typed) = floats::weights(arguments)
        && typed != file.weights
    {
        return refuse("--weights", weights(typed), weights(file.weights));
    }
    if let Some(group_size) = arguments.group_size
        && Some(group_size) != file.group_size
    {
        let known = file
            .group_size
            .map_or("none".to_owned(), |size| size.to_string());
        return refuse("--group-size", group_size.to_string(), known);
    }
    if let Some(layout) = floats::layout(arguments)
        && layout != file.layout
    {
        return refuse("--layout", layout.to_string(), file.layout.to_string());
    }
    if let Some(typed) = floats::weight_scales(arguments)
        && typed != file.weight_scales
    {
        let name = |scales| match scales {
            WeightScales::PerChannel => "per-channel".to_owned(),
            WeightScales::PerTensor => "per-tensor".to_owned(),
        };
        return refuse("--weight-scales", name(typed), name(file.weight_scales));
    }
    if let Some(scales) = floats::block_scales(arguments)
        && scales != file.scales.unwrap_or_default()
    {
        let known = file.scales.unwrap_or_default();
        return refuse("--scales", scales.to_string(), known.to_string());
    }
    if let Some(embeddings) = floats::embeddings_beside_a_file(arguments)
        && embeddings != file.embeddings
    {
        let flag = floats::flag_of_embeddings(arguments);
        return refuse(flag, embeddings.to_string(), file.embeddings.to_string());
    }
    if let Some(dtype) = floats::float_dtype(arguments)
        && Some(dtype) != file.float_dtype
    {
        let known = file
            .float_dtype
            .map_or("that of the source".to_owned(), |dtype| dtype.to_string());
        return refuse("--float-dtype", dtype.to_string(), known);
    }
    for (flag, typed, known) in [
        (
            "--double-quant",
            arguments.double_quant,
            file.double_quantization,
        ),
        ("--asymmetric", arguments.asymmetric, file.asymmetric),
        ("--gptq", arguments.gptq, file.gptq),
        (
            "--saturation-proof",
            arguments.saturation_proof,
            file.saturation_proof,
        ),
    ] {
        if typed && !known {
            return refuse(flag, "true".to_owned(), "false".to_owned());
        }
    }
    Ok(())
}

fn method(argument: MethodArgument, arguments: &QuantizeArguments) -> Result<Method, UsageError> {
    Ok(match argument {
        MethodArgument::Qat => return training::method_to_train(arguments),
        MethodArgument::Dynamic => Method::Dynamic,
        MethodArgument::Static => Method::Static,
        MethodArgument::WeightOnly => Method::WeightOnly,
        MethodArgument::Fp16 => Method::Fp16,
        MethodArgument::Bf16 => Method::Bf16,
        MethodArgument::Nf4 | MethodArgument::Int4 => Method::Nf4,
        MethodArgument::Fp4 => Method::Fp4,
    })
}
