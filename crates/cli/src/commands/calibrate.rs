//! `fewbit calibrate`, and what `fewbit quantize --method static` does before it converts.

use crate::arguments::{
    BackendArgument, CalibrateArguments, CalibrationArguments, CalibrationTexts, GlobalArguments,
    ObserverArgument, QuantizeArguments,
};
use crate::failure::UsageError;
use crate::render::progress::{Progress, Unit};
use crate::{render, streams};
use anyhow::{Result, anyhow};
use fewbit::quantize::calibration::texts::CalibrationFile;
use fewbit::quantize::calibration::{
    LEAST_SQNR_DB, OUTPUT_TEXTS, Sensitivity, SiteSensitivity, static_recipe,
};
use fewbit::quantize::observers::{AveragingConstant, KeptPercentage};
use fewbit::quantize::{
    ActivationScales, Backend, CalibrationStatistics, Calibrator, ObserverKind, ObserverSettings,
};
use fewbit::{Checkpoint, Method, QuantizeError, Recipe};
use serde::Serialize;
use std::path::Path;

/// Texts that run through the model together: what is shown of the progress is as fine as this.
const BATCH: usize = 32;

/// What `--json` prints.
#[derive(Serialize)]
struct Summary<'a> {
    stats: &'a Path,
    samples: u64,
    tokens: u64,
    settings: ObserverSettings,
    sensitivity: &'a [SiteSensitivity],
}

pub(super) fn run(arguments: &CalibrateArguments, global: GlobalArguments) -> Result<()> {
    let source = super::resolve(&arguments.model)?;
    let out = &arguments.stats;
    if out.exists() {
        return Err(anyhow!(
            "{}: expected no file, found one\n  hint: name another, and give both to `fewbit quantize --stats`, or remove it",
            out.display()
        ));
    }
    let texts = texts(&arguments.calibration, &arguments.texts)?;
    let mut calibrator = Calibrator::prepare(&source, settings(&arguments.texts)?)?;
    observe(&texts, "calibrate", |batch| Ok(calibrator.observe(batch)?))?;
    let statistics = calibrator.finish()?;
    statistics.write(out)?;
    let sensitivity = Sensitivity::new(&statistics)?;
    if global.json {
        return streams::print_json(&Summary {
            stats: out,
            samples: statistics.samples(),
            tokens: statistics.tokens(),
            settings: statistics.settings(),
            sensitivity: sensitivity.sites(),
        });
    }
    streams::print(&format!(
        "{} texts, {} tokens observed; statistics in {}\n\n{}",
        statistics.samples(),
        statistics.tokens(),
        out.display(),
        render::sensitivity::table(sensitivity.sites(), LEAST_SQNR_DB)
    ))
}

/// Refuses calibration flags that would have no effect, and `static` without anything to calibrate with.
pub(super) fn check(arguments: &QuantizeArguments, recipe: &Recipe) -> Result<(), UsageError> {
    let calibration = &arguments.calibration;
    // Scales per tensor at run time have a backend, too, but nothing to observe.
    let of_run_time =
        recipe.activations == ActivationScales::PerTensor && arguments.recipe.is_none();
    let named = is_named(calibration, of_run_time)?;
    if named && arguments.recipe.is_some() {
        return Err(UsageError(
            "flags of calibration do not go with --recipe, which holds the scales that calibration chose\n  hint: give --method static instead of the recipe to calibrate again".to_owned(),
        ));
    }
    if named && recipe.method != Method::Static {
        return Err(UsageError(format!(
            "flags of calibration do not go with the method `{}`\n  hint: `static` is calibrated",
            recipe.method
        )));
    }
    if !is_given(calibration) && arguments.recipe.is_none() && recipe.method == Method::Static {
        return Err(UsageError(format!("--method static: {EXPECTED_TEXTS}")));
    }
    Ok(())
}

/// What `static` needs.
pub(super) const EXPECTED_TEXTS: &str = "expected --calibration FILE or --stats FILE\n  hint: a few hundred texts like those that the model will see, one a line; `dynamic` needs none";

/// Whether there is anything to calibrate with.
pub(super) fn is_given(arguments: &CalibrationArguments) -> bool {
    arguments.calibration.is_some() || !arguments.stats.is_empty()
}

/// Whether any flag of calibration was typed; where a backend alone does not mean one, `backend_apart`.
pub(super) fn is_named(
    arguments: &CalibrationArguments,
    backend_apart: bool,
) -> Result<bool, UsageError> {
    if arguments.min_sqnr.is_some_and(f64::is_nan) {
        return Err(UsageError(
            "--min-sqnr: expected a number of decibels, found NaN\n  hint: 30 is the default"
                .to_owned(),
        ));
    }
    let texts = &arguments.texts;
    Ok(is_given(arguments)
        || arguments.min_sqnr.is_some()
        || texts.observer.is_some()
        || !(backend_apart || texts.is_default()))
}

/// What calibration found out about a model.
pub(super) struct Calibrated {
    calibrator: Calibrator,
    /// None where statistics took their place.
    texts: Vec<String>,
    /// With the scale of every input that tolerates one.
    recipe: Recipe,
    /// What one range costs, input by input.
    pub(super) sites: Vec<SiteSensitivity>,
}

impl Calibrated {
    /// `recipe` with the scales of the layers in `source` that it quantizes.
    pub(super) fn recipe(&self, source: &Path, recipe: &Recipe) -> Result<Recipe, QuantizeError> {
        static_recipe(&Checkpoint::open(source)?, recipe, &self.recipe)
    }

    /// Measures on some of the texts what the ranges do to the embeddings of the model that `recipe` makes.
    pub(super) fn measure_output_effect(&mut self, recipe: &Recipe) -> Result<()> {
        let count = self.texts.len().min(OUTPUT_TEXTS);
        // Evenly spread: files are often sorted.
        let texts: Vec<&String> = (0..count)
            .map(|index| &self.texts[index * self.texts.len() / count])
            .collect();
        let mut progress = Progress::start("sensitivity", 0, Unit::Passes);
        let mut show = |done, total| progress.set(done as u64, total as u64, "");
        let calibrator = &self.calibrator;
        let result = calibrator.measure_output_effect(&mut self.sites, recipe, &texts, &mut show);
        progress.finish();
        Ok(result?)
    }
}

/// Calibrates the model in `source` as the flags say.
pub(super) fn calibrate(source: &Path, arguments: &CalibrationArguments) -> Result<Calibrated> {
    let texts = match &arguments.calibration {
        Some(file) => texts(file, &arguments.texts)?,
        None => Vec::new(),
    };
    let saved = arguments.stats.iter().map(CalibrationStatistics::read);
    let saved = saved.collect::<Result<Vec<_>, _>>()?;
    // Saved statistics say themselves how they were observed.
    let settings = match saved.first() {
        Some(statistics) if arguments.texts.is_default() => statistics.settings(),
        _ => settings(&arguments.texts)?,
    };
    let mut calibrator = Calibrator::prepare(source, settings)?;
    for statistics in &saved {
        calibrator.merge(statistics)?;
    }
    observe(&texts, "calibrate", |batch| Ok(calibrator.observe(batch)?))?;
    let sensitivity = Sensitivity::new(calibrator.statistics())?;
    for site in sensitivity.sites() {
        let SiteSensitivity {
            site: name,
            static_sqnr_db,
            dynamic_sqnr_db,
            ..
        } = site;
        tracing::info!(site = name, static_sqnr_db, dynamic_sqnr_db, "sensitivity");
    }
    Ok(Calibrated {
        recipe: sensitivity.recipe(calibrator.statistics(), least_sqnr_db(arguments))?,
        sites: sensitivity.sites().to_vec(),
        calibrator,
        texts,
    })
}

/// The signal to noise ratio below which an input becomes dynamic.
pub(super) fn least_sqnr_db(arguments: &CalibrationArguments) -> f64 {
    arguments.min_sqnr.unwrap_or(LEAST_SQNR_DB)
}

fn texts(file: &Path, arguments: &CalibrationTexts) -> Result<Vec<String>> {
    let file = CalibrationFile::new(file, &arguments.field);
    Ok(file.sample(arguments.samples, arguments.seed)?)
}

fn observe(
    texts: &[String],
    title: &str,
    mut batch: impl FnMut(&[String]) -> Result<()>,
) -> Result<()> {
    if texts.is_empty() {
        return Ok(());
    }
    let total = texts.len() as u64;
    let mut progress = Progress::start(title, total, Unit::Texts);
    let mut done = 0;
    let result = texts.chunks(BATCH).try_for_each(|texts| {
        batch(texts)?;
        done += texts.len() as u64;
        progress.set(done, total, "");
        Ok(())
    });
    progress.finish();
    result
}

pub(super) fn backend(argument: BackendArgument) -> Backend {
    match argument {
        BackendArgument::Native => Backend::Native,
        BackendArgument::Fbgemm => Backend::Fbgemm,
        BackendArgument::X86 => Backend::X86,
        BackendArgument::Qnnpack => Backend::Qnnpack,
        BackendArgument::Onednn => Backend::Onednn,
    }
}

/// The observer of activations that the flags name.
pub(super) fn settings(arguments: &CalibrationTexts) -> Result<ObserverSettings> {
    let defaults = backend(arguments.backend).qconfig().activation();
    let kind = match arguments.observer {
        None => return Ok(defaults),
        Some(ObserverArgument::MinMax) => ObserverKind::MinMax,
        Some(ObserverArgument::MovingAverage) => ObserverKind::MovingAverageMinMax {
            averaging_constant: AveragingConstant::default(),
        },
        Some(ObserverArgument::Histogram) => ObserverKind::Histogram,
        Some(ObserverArgument::Percentile) => ObserverKind::Percentile {
            percentile: KeptPercentage::default(),
        },
        Some(ObserverArgument::Mse) => ObserverKind::Mse,
        Some(ObserverArgument::Entropy) => ObserverKind::Entropy,
    };
    let settings = ObserverSettings::new(kind, defaults.rule());
    settings.map_err(|error| UsageError(format!("--observer: {error}")).into())
}
