//! `fewbit sensitivity`

use super::calibrate;
use super::quantize::floats;
use crate::arguments::{GlobalArguments, SensitivityArguments, SensitivityMethod};
use crate::failure::UsageError;
use crate::render::progress::{Progress, Unit};
use crate::{render, streams};
use anyhow::Result;
use fewbit::calibration::{CalibrationOptions, CalibrationTexts, DEFAULT_SAMPLES};
use fewbit::checkpoint::output_file::OutputFile;
use fewbit::quantize::calibration::texts::SampleSize;
use fewbit::quantize::{Rounding, StaticInputs, weight_codecs};
use fewbit::sensitivity::{
    SensitivityGoal, SensitivityOptions, SensitivityStep, WeightChoice, sensitivity,
};
use fewbit::{GroupSize, IntegerRecipe, Recipe, WeightCodes, threads};
use std::path::Path;

pub(super) fn run(arguments: &SensitivityArguments, global: GlobalArguments) -> Result<()> {
    let goal = match (arguments.max_bytes, arguments.min_cosine) {
        (Some(size), _) => SensitivityGoal::MaxBytes(size.bytes()),
        (None, Some(cosine)) => SensitivityGoal::MinCosine(cosine),
        (None, None) => {
            return Err(UsageError("expected --max-bytes or --min-cosine".to_owned()).into());
        }
    };
    if let Some(output) = &arguments.output {
        OutputFile::check(output, arguments.force)?;
    }
    let threads = threads::resolve(arguments.threads)?.count;
    weight_codecs::set_threads(threads);
    let options = SensitivityOptions {
        base: base(arguments),
        choices: choices(arguments)?,
        threads,
    };
    let calibration = CalibrationOptions {
        texts: Some(CalibrationTexts::File(arguments.calibration.clone())),
        size: match arguments.samples {
            Some(samples) => SampleSize::Exactly(samples),
            None => SampleSize::UpTo(DEFAULT_SAMPLES),
        },
        seed: arguments.seed,
        fields: arguments.field.clone(),
        ..CalibrationOptions::default()
    };
    let source = super::resolve(&arguments.model)?;
    let mut progress = Progress::start("sensitivity", 0, Unit::Passes);
    let report = sensitivity(
        &source,
        &options,
        &calibration,
        goal,
        &mut |step| match step {
            SensitivityStep::Samples(step) => calibrate::note(&step, calibration.size),
            SensitivityStep::Pass(done, total, what) => {
                progress.set(done as u64, total as u64, what);
            }
        },
    );
    progress.finish();
    let report = report?;
    if let Some(output) = &arguments.output {
        write(output, &report.recipe, arguments.force)?;
    }
    if global.json {
        return streams::print_json(&report);
    }
    streams::print(&render::weight_sensitivity::text(
        &report,
        arguments.output.as_deref(),
    ))
}

/// The recipe but for its weights.
fn base(arguments: &SensitivityArguments) -> IntegerRecipe {
    let base = match arguments.method {
        SensitivityMethod::Dynamic => IntegerRecipe::dynamic(),
        SensitivityMethod::WeightOnly => IntegerRecipe::weight_only(),
        SensitivityMethod::Static => StaticInputs::default().into(),
    };
    let rounding = match arguments.gptq {
        false => Rounding::Nearest,
        true => Rounding::Gptq {
            saturation_proof: false,
        },
    };
    let mut base = base
        .with_rounding(rounding)
        .with_skip(arguments.skip.iter().cloned());
    if let Some(form) = arguments.embeddings {
        base = base.with_embeddings(floats::embedding_storage(form));
    }
    base.float_dtype = arguments.float_dtype.map(floats::dtype);
    base
}

/// The list of weights, with the group size where it has none.
fn choices(arguments: &SensitivityArguments) -> Result<Vec<WeightChoice>, UsageError> {
    let Some(group_size) = arguments.group_size else {
        return Ok(arguments.weights.clone());
    };
    let mut is_used = false;
    let with_size = |choice: &WeightChoice| match *choice {
        WeightChoice::Codes(WeightCodes::Int4(mut options))
            if options.group_size == GroupSize::default() =>
        {
            options.group_size = group_size;
            is_used = true;
            WeightCodes::Int4(options).into()
        }
        other => other,
    };
    let choices = arguments.weights.iter().map(with_size).collect();
    match is_used {
        true => Ok(choices),
        false => Err(UsageError(
            "--group-size: expected int4 without a group size among --weights, found none\n  hint: leave the flag out".to_owned(),
        )),
    }
}

fn write(output: &Path, recipe: &Recipe, force: bool) -> Result<()> {
    let is_json = output.extension().is_some_and(|name| name == "json");
    let text = match is_json {
        true => recipe.to_json() + "\n",
        false => recipe.to_toml(),
    };
    let mut file = OutputFile::create(output, force)?;
    file.append(text.as_bytes())?;
    Ok(file.commit()?)
}
