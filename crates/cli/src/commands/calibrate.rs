//! `fewbit calibrate`, and what `fewbit quantize --method static` does before it converts.

use crate::arguments::{
    BackendArgument, CalibrateArguments, CalibrationArguments, CalibrationTexts, GlobalArguments,
    ObserverArgument, QuantizeArguments,
};
use crate::failure::UsageError;
use crate::render::progress::{Progress, Unit};
use crate::streams;
use anyhow::{Result, anyhow};
use fewbit::quantize::calibration::texts::CalibrationFile;
use fewbit::quantize::calibration::{LEAST_SQNR_DB, Sensitivity, SiteSensitivity, static_recipe};
use fewbit::quantize::observers::{AveragingConstant, KeptPercentage};
use fewbit::quantize::{
    ActivationScales, Backend, CalibrationStatistics, Calibrator, ObserverKind, ObserverSettings,
};
use fewbit::{Checkpoint, Method, Recipe};
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
    if global.json {
        return streams::print_json(&Summary {
            stats: out,
            samples: statistics.samples(),
            tokens: statistics.tokens(),
            settings: statistics.settings(),
        });
    }
    streams::print(&format!(
        "{} texts, {} tokens observed; statistics in {}\n",
        statistics.samples(),
        statistics.tokens(),
        out.display()
    ))
}

/// Refuses calibration flags that would have no effect, and `static` without anything to calibrate with.
pub(super) fn check(arguments: &QuantizeArguments, recipe: &Recipe) -> Result<(), UsageError> {
    let CalibrationArguments {
        calibration, stats, ..
    } = &arguments.calibration;
    if arguments.calibration.min_sqnr.is_some_and(f64::is_nan) {
        return Err(UsageError(
            "--min-sqnr: expected a number of decibels, found NaN\n  hint: 30 is the default"
                .to_owned(),
        ));
    }
    let given = calibration.is_some() || !stats.is_empty();
    // Scales per tensor at run time have a backend, too, but nothing to observe.
    let of_run_time =
        recipe.activations == ActivationScales::PerTensor && arguments.recipe.is_none();
    let named = given
        || arguments.calibration.texts.observer.is_some()
        || !(of_run_time || arguments.calibration.texts.is_default());
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
    if !given && arguments.recipe.is_none() && recipe.method == Method::Static {
        return Err(UsageError(
            "--method static: expected --calibration FILE or --stats FILE\n  hint: a few hundred texts like those that the model will see, one a line; `dynamic` needs none".to_owned(),
        ));
    }
    Ok(())
}

/// `recipe` with the scales that calibration chooses for the model in `source`.
pub(super) fn calibrated(
    source: &Path,
    recipe: &Recipe,
    arguments: &CalibrationArguments,
) -> Result<Recipe> {
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
    let mut sensitivity = Sensitivity::new(calibrator.statistics())?;
    observe(&texts, "sensitivity", |batch| {
        Ok(sensitivity.observe(calibrator.encoder(), batch)?)
    })?;
    let calibrated = if texts.is_empty() {
        streams::note(
            "without --calibration FILE nothing tells which inputs tolerate one range: all of them are static\n",
        );
        calibrator.finish()?.recipe()?
    } else {
        let least = arguments.min_sqnr.unwrap_or(LEAST_SQNR_DB);
        tell(&sensitivity.sites(), least);
        sensitivity.recipe(calibrator.statistics(), least)?
    };
    Ok(static_recipe(
        &Checkpoint::open(source)?,
        recipe,
        &calibrated,
    )?)
}

/// Says which sites are not static, and why.
fn tell(sites: &[SiteSensitivity], least: f64) {
    for site in sites {
        let SiteSensitivity {
            site: name,
            static_sqnr_db,
            dynamic_sqnr_db,
            ..
        } = site;
        tracing::info!(site = name, static_sqnr_db, dynamic_sqnr_db, "sensitivity");
    }
    let dynamic: Vec<&SiteSensitivity> =
        sites.iter().filter(|site| site.is_dynamic(least)).collect();
    if dynamic.is_empty() {
        return;
    }
    let mut text = format!(
        "dynamic per token, as one range would cost too much there ({} of {} inputs):\n",
        dynamic.len(),
        sites.len()
    );
    for site in dynamic {
        text.push_str(&format!(
            "  {}: SQNR {:.1} dB static, {:.1} dB per token\n",
            site.site, site.static_sqnr_db, site.dynamic_sqnr_db
        ));
    }
    streams::note(&text);
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
fn settings(arguments: &CalibrationTexts) -> Result<ObserverSettings> {
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
