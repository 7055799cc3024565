//! `fewbit quantize`

mod backend;

use super::calibrate;
use crate::arguments::{GlobalArguments, MethodArgument, QuantizeArguments, SensitivityArgument};
use crate::failure::UsageError;
use crate::render::progress::{Progress, Unit};
use crate::{render, streams};
use anyhow::Result;
use fewbit::checkpoint::CheckpointWriter;
use fewbit::quantize::calibration::SiteSensitivity;
use fewbit::quantize::overlap::refuse_overlap;
use fewbit::quantize::{ActivationsField, GptqCalibration};
use fewbit::{
    Catalogue, Checkpoint, Method, QuantizeError, QuantizePlan, QuantizeReport, Recipe,
    RecipeFields, TensorAction, quantize_model, quantize_model_with_gptq, threads,
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What `--dry-run --json` prints.
#[derive(Serialize)]
struct DryRun<'a> {
    dry_run: bool,
    #[serde(flatten)]
    plan: &'a QuantizePlan,
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

pub(super) fn run(arguments: &QuantizeArguments, global: GlobalArguments) -> Result<()> {
    let mut recipe = recipe(arguments)?;
    let source = super::resolve(&arguments.model)?;
    let mut sensitivity = Vec::new();
    let mut costs = String::new();
    let mut samples = None;
    if let Recipe::Int8(options) = &recipe
        && recipe.method().needs_calibration()
        && arguments.recipe.is_none()
    {
        let mut calibrated = calibrate::calibrate(&source, &arguments.calibration)?;
        let with_scales = calibrated
            .recipe(&source, options)
            .map_err(|error| in_words_of_flags(error, arguments))?;
        if arguments.sensitivity == Some(SensitivityArgument::Output) {
            calibrated.measure_output_effect(options)?;
        }
        recipe = with_scales;
        calibrated.warn_of_noise(&arguments.calibration);
        sensitivity = calibrated.sites;
        costs = render::sensitivity::table(&sensitivity, calibrated.least_sqnr_db) + "\n";
        samples = Some(calibrated.samples);
    }
    let gptq = if recipe.needs_gptq() {
        let samples = match samples {
            Some(samples) => samples,
            None => calibrate::samples(&source, &arguments.calibration)?,
        };
        let threads = threads::resolve(arguments.threads)?.count;
        Some(GptqCalibration {
            finished_layers: finished_layers(arguments)?,
            ..GptqCalibration::new(samples, threads)
        })
    } else {
        None
    };
    if arguments.method == Some(MethodArgument::Int4) {
        streams::note("int4 is nf4: 4-bit NormalFloat codes\n");
    }
    let plan = plan(&source, &recipe).map_err(|error| match error.downcast() {
        Ok(error) => in_words_of_flags(error, arguments),
        Err(error) => error,
    })?;
    let output = match &arguments.output {
        Some(output) if !arguments.dry_run => output,
        output => {
            if let Some(output) = output {
                check_output(&source, output, arguments.force)?;
            }
            return if global.json {
                streams::print_json(&DryRun {
                    dry_run: true,
                    plan: &plan,
                    sensitivity: &sensitivity,
                })
            } else {
                streams::print(&(costs + &render::quantization::plan(&plan)))
            };
        }
    };
    let mut progress = Progress::start(&recipe.label(), 0, Unit::Bytes);
    let mut show = |done, total, module: &str| {
        progress.set(done as u64, total as u64, module);
    };
    let force = arguments.force;
    let report = match &gptq {
        Some(gptq) => quantize_model_with_gptq(&source, &recipe, gptq, output, force, &mut show),
        None => quantize_model(&source, &recipe, output, force, &mut show),
    };
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

/// Where finished layers are kept, if anything is to be written. Those of an interrupted run are not passed over.
fn finished_layers(arguments: &QuantizeArguments) -> Result<Option<PathBuf>> {
    let Some(out) = arguments.output.as_deref().filter(|_| !arguments.dry_run) else {
        return Ok(None);
    };
    let directory = GptqCalibration::path_beside(out);
    let path = directory.display();
    match (directory.exists(), arguments.resume) {
        (true, false) => Err(anyhow::anyhow!(
            "{path}: expected nothing, found the finished layers of a run that was interrupted\n  hint: go on with --resume, or remove the directory to start again"
        )),
        (false, true) => {
            streams::note(&format!(
                "{path} is not there: nothing to resume, starting anew\n"
            ));
            Ok(Some(directory))
        }
        _ => Ok(Some(directory)),
    }
}

/// What will become of every tensor; says what is worth knowing before it happens.
fn plan(source: &Path, recipe: &Recipe) -> Result<QuantizePlan> {
    let checkpoint = Checkpoint::open(source)?;
    let plan = QuantizePlan::new(&checkpoint, recipe)?;
    let kept = plan
        .rows()
        .iter()
        .filter(|row| row.action == TensorAction::Keep)
        .count();
    tracing::info!(
        changed = plan.rows().len() - kept,
        as_they_are = kept,
        source_bytes = plan.source_bytes(),
        output_bytes = plan.output_bytes(),
        "tensors planned"
    );
    let catalogue = Catalogue::of_checkpoint(&checkpoint)?;
    super::warn_of_unused_layers(catalogue.layers(), catalogue.stored_layers(&checkpoint));
    if kept == plan.rows().len() {
        let method = recipe.method();
        streams::note(&format!(
            "already {method}: every tensor is written as it is\n"
        ));
    }
    Ok(plan)
}

/// Errors where a conversion into `output` would. A hidden directory beside it comes and goes meanwhile: only that shows
/// whether one can be written.
fn check_output(source: &Path, output: &Path, force: bool) -> Result<()> {
    refuse_overlap(source, output)?;
    CheckpointWriter::create(output, force)?;
    Ok(())
}

/// An error of a recipe, told by the flag or the file that it comes from.
fn in_words_of_flags(error: QuantizeError, arguments: &QuantizeArguments) -> anyhow::Error {
    match &error {
        // A recipe file was valid when it was read, so that what is wrong now is a flag.
        QuantizeError::Recipe {
            field,
            expected,
            found,
            hint,
            ..
        } => {
            let flag = match *field {
                "block_size" => "--block-size",
                "double_quant" => "--double-quant",
                "quantize_embeddings" => "--quantize-embeddings",
                "skip" => "--skip",
                "weight_only" => "--weight-only",
                "gptq" => "--gptq",
                "saturation_proof" => "--saturation-proof",
                _ => return error.into(),
            };
            let what = match expected.strip_prefix("false with ") {
                Some(method) => format!("does not go with {method}"),
                None if *field == "saturation_proof" => "expected --gptq beside it".to_owned(),
                None => format!("expected {expected}, found {found}"),
            };
            UsageError(format!("{flag}: {what}\n  hint: {hint}")).into()
        }
        QuantizeError::Pattern { field, pattern, .. } => {
            // A long pattern is shown by its start.
            let start = pattern.trim_end_matches('…');
            let patterns = match *field {
                "weight_only" => &arguments.weight_only,
                _ => &arguments.skip,
            };
            let typed = patterns.iter().any(|known| known.starts_with(start));
            pattern_error(&error, field, typed, arguments.recipe.as_deref())
        }
        QuantizeError::NothingToQuantize { .. } => pattern_error(
            &error,
            "skip",
            !arguments.skip.is_empty(),
            arguments.recipe.as_deref(),
        ),
        _ => error.into(),
    }
}

/// An error about the globs of `field`, which the command line gave if they were `typed`.
fn pattern_error(
    error: &QuantizeError,
    field: &str,
    typed: bool,
    file: Option<&Path>,
) -> anyhow::Error {
    let text = error.to_string();
    let what = text
        .strip_prefix(&format!("recipe: `{field}`: "))
        .unwrap_or(&text);
    match file {
        Some(file) if !typed => anyhow::anyhow!("{}: `{field}`: {what}", file.display()),
        _ => UsageError(format!("--{}: {what}", field.replace('_', "-"))).into(),
    }
}

/// The recipe that the flags and the recipe file, if any, amount to. One of `static` by flags has no scales yet.
fn recipe(arguments: &QuantizeArguments) -> Result<Recipe> {
    let method = arguments.method.map(method);
    let mut fields = match (&arguments.recipe, method) {
        (Some(path), _) => {
            // What a file holds is an error of the file, whatever flags stand beside it.
            let fields = RecipeFields::from(Recipe::read(path)?);
            contradictions(arguments, method, &fields)?;
            fields
        }
        (None, Some(method)) => {
            let fields = RecipeFields {
                block_size: arguments.block_size,
                double_quantization: arguments.double_quant,
                quantize_embeddings: arguments.quantize_embeddings,
                gptq: arguments.gptq,
                saturation_proof: arguments.saturation_proof,
                ..RecipeFields::new(method)
            };
            backend::apply(fields, arguments)?
        }
        (None, None) => return Err(UsageError("expected --method or --recipe".to_owned()).into()),
    };
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
    for (flag, typed, known) in [
        (
            "--double-quant",
            arguments.double_quant,
            file.double_quantization,
        ),
        (
            "--quantize-embeddings",
            arguments.quantize_embeddings,
            file.quantize_embeddings,
        ),
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

fn method(argument: MethodArgument) -> Method {
    match argument {
        MethodArgument::Dynamic => Method::Dynamic,
        MethodArgument::Static => Method::Static,
        MethodArgument::WeightOnly => Method::WeightOnly,
        MethodArgument::Fp16 => Method::Fp16,
        MethodArgument::Bf16 => Method::Bf16,
        MethodArgument::Nf4 | MethodArgument::Int4 => Method::Nf4,
        MethodArgument::Fp4 => Method::Fp4,
    }
}
