//! `fewbit calibrate`, and what `fewbit quantize --method static` does before it converts.

use crate::arguments::{
    BackendArgument, CalibrateArguments, CalibrationArguments, CalibrationTexts, GlobalArguments,
    ObserverArgument, QuantizeArguments,
};
use crate::failure::UsageError;
use crate::render::progress::{Progress, Unit};
use crate::streams;
use anyhow::{Result, anyhow};
use fewbit::data::TokenColumns;
use fewbit::data::tokens::INPUT_IDS;
use fewbit::quantize::calibration::texts::CalibrationFile;
use fewbit::quantize::calibration::tokens::TokenizedFile;
use fewbit::quantize::calibration::{
    CalibrationInput, CalibrationRun, CalibrationSamples, LEAST_SQNR_DB, PartialCalibration,
    Sensitivity, SiteSensitivity, static_recipe,
};
use fewbit::quantize::observers::{AveragingConstant, KeptPercentage};
use fewbit::quantize::{
    Backend, CalibrationStatistics, Calibrator, ObserverKind, ObserverSettings,
};
use fewbit::{Checkpoint, Method, Recipe};
use serde::Serialize;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

/// An interruption costs no more work than this and one batch.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// What `--json` prints.
#[derive(Serialize)]
struct Summary<'a> {
    stats: &'a Path,
    samples: u64,
    tokens: u64,
    /// Samples that the interrupted run had observed.
    resumed_after: u64,
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
    let partial = PartialCalibration::path_beside(out);
    let interrupted = match (partial.exists(), arguments.resume) {
        (true, true) => Some(PartialCalibration::read(&partial)?),
        (true, false) => {
            return Err(anyhow!(
                "{}: expected no file, found the statistics of a calibration that was interrupted\n  hint: go on with --resume, or remove the file to start again",
                partial.display()
            ));
        }
        (false, true) => {
            streams::note(&format!(
                "{} is not there: nothing to resume, calibrating from the start\n",
                partial.display()
            ));
            None
        }
        (false, false) => None,
    };
    let flags = &arguments.texts;
    let mut calibrator = Calibrator::prepare(&source, settings(flags)?)?;
    let input = input(&arguments.calibration, flags)?;
    let samples = sample(&input, flags, &calibrator)?;
    let run = CalibrationRun::new(&input, &samples, flags.seed, flags.batch_size)?;
    if let Some(interrupted) = interrupted {
        calibrator.resume(interrupted.statistics_of(&partial, &run)?)?;
    }
    let resumed_after = calibrator.statistics().samples();
    let first = usize::try_from(resumed_after)?;
    // The first batch is saved at once: that the folder cannot be written to should not come out at the end.
    let mut saved: Option<Instant> = None;
    each_batch(&samples, first, flags.batch_size, "calibrate", |range| {
        let end = range.end;
        calibrator.observe_batch(&samples.batch(calibrator.encoder(), range)?)?;
        if end < samples.len() && saved.is_none_or(|time| time.elapsed() >= SAVE_EVERY) {
            PartialCalibration::write(&partial, &run, calibrator.statistics())?;
            tracing::info!(samples = end, file = %partial.display(), "saved");
            saved = Some(Instant::now());
        }
        Ok(())
    })?;
    let statistics = calibrator.finish()?;
    statistics.write(out)?;
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            streams::warn(&format!(
                "{}: cannot be removed: {error}",
                partial.display()
            ));
        }
        _ => {}
    }
    if global.json {
        return streams::print_json(&Summary {
            stats: out,
            samples: statistics.samples(),
            tokens: statistics.tokens(),
            resumed_after,
            settings: statistics.settings(),
        });
    }
    streams::print(&format!(
        "{} {}, {} tokens observed; statistics in {}\n",
        statistics.samples(),
        match samples {
            CalibrationSamples::Texts(_) => "texts",
            CalibrationSamples::Tokens(_) => "rows",
        },
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
    let named = given || !arguments.calibration.texts.is_default();
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
    let flags = &arguments.texts;
    let saved = arguments.stats.iter().map(CalibrationStatistics::read);
    let saved = saved.collect::<Result<Vec<_>, _>>()?;
    // Saved statistics say themselves how they were observed.
    let settings = match saved.first() {
        Some(statistics) if flags.is_default() => statistics.settings(),
        _ => settings(flags)?,
    };
    let mut calibrator = Calibrator::prepare(source, settings)?;
    for statistics in &saved {
        calibrator.merge(statistics)?;
    }
    let samples = match &arguments.calibration {
        Some(file) => sample(&input(file, flags)?, flags, &calibrator)?,
        None => CalibrationSamples::Texts(Vec::new()),
    };
    each_batch(&samples, 0, flags.batch_size, "calibrate", |range| {
        let batch = samples.batch(calibrator.encoder(), range)?;
        Ok(calibrator.observe_batch(&batch)?)
    })?;
    let mut sensitivity = Sensitivity::new(calibrator.statistics())?;
    each_batch(&samples, 0, flags.batch_size, "sensitivity", |range| {
        let encoder = calibrator.encoder();
        let batch = samples.batch(encoder, range)?;
        encoder
            .network()
            .hidden_states_tapped(&batch, &mut sensitivity)?;
        Ok(())
    })?;
    let calibrated = if samples.is_empty() {
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

/// The file to calibrate with, and which of its columns the flags name.
fn input(file: &Path, flags: &CalibrationTexts) -> Result<CalibrationInput> {
    let (ids, mask) = (&flags.input_ids_column, &flags.attention_mask_column);
    if ids.is_some() || mask.is_some() {
        let columns = TokenColumns::new(ids.as_deref().unwrap_or(INPUT_IDS), mask.clone());
        return Ok(CalibrationInput::Tokens(TokenizedFile::new(file, columns)));
    }
    if !flags.field.is_empty() {
        return Ok(CalibrationInput::Texts(CalibrationFile::new(
            file,
            &flags.field,
        )));
    }
    let input = CalibrationInput::detect(file)?;
    if matches!(input, CalibrationInput::Tokens(_)) {
        streams::note(&format!(
            "{}: no column `text`: calibrating with the token ids of `{INPUT_IDS}`\n",
            file.display()
        ));
    }
    Ok(input)
}

fn sample(
    input: &CalibrationInput,
    flags: &CalibrationTexts,
    calibrator: &Calibrator,
) -> Result<CalibrationSamples> {
    let spec = calibrator.encoder().network().spec();
    Ok(input.sample(flags.number_of_samples(), flags.seed, spec)?)
}

/// Calls `work` with the numbers of the samples of each batch from the sample `first` on.
fn each_batch(
    samples: &CalibrationSamples,
    first: usize,
    batch_size: usize,
    title: &str,
    mut work: impl FnMut(Range<usize>) -> Result<()>,
) -> Result<()> {
    if samples.is_empty() {
        return Ok(());
    }
    let unit = match samples {
        CalibrationSamples::Texts(_) => Unit::Texts,
        CalibrationSamples::Tokens(_) => Unit::Rows,
    };
    let total = samples.len();
    let mut progress = Progress::start(title, total as u64, unit);
    progress.begin_after(first as u64);
    let result = (first..total).step_by(batch_size).try_for_each(|start| {
        let end = total.min(start + batch_size);
        work(start..end)?;
        progress.set(end as u64, total as u64, "");
        Ok(())
    });
    progress.finish();
    result
}

/// The observer of activations that the flags name.
fn settings(arguments: &CalibrationTexts) -> Result<ObserverSettings> {
    let backend = match arguments.backend {
        BackendArgument::Native => Backend::Native,
        BackendArgument::Fbgemm => Backend::Fbgemm,
        BackendArgument::X86 => Backend::X86,
        BackendArgument::Qnnpack => Backend::Qnnpack,
        BackendArgument::Onednn => Backend::Onednn,
    };
    let defaults = backend.qconfig().activation();
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
