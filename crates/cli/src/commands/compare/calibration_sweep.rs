//! `fewbit compare --calibration-sweep`

use super::compare_texts;
use crate::arguments::{CompareArguments, GlobalArguments};
use crate::commands::calibrate;
use crate::failure::UsageError;
use crate::render::progress::Steps;
use crate::{render, streams};
use anyhow::Result;
use fewbit::compare::calibration_sweep::{
    CalibrationSweepOptions, SEEDS, SweepStep, calibration_sweep,
};
use fewbit::repetition::first_repeated;
use fewbit::threads;
use std::path::Path;

/// `calibration` is the file that --calibration names.
pub(super) fn run(
    arguments: &CompareArguments,
    calibration: &Path,
    global: GlobalArguments,
) -> Result<()> {
    let flags = &arguments.calibration;
    calibrate::is_named(flags, false)?;
    let samples = &arguments.calibration_sweep;
    if let Some(number) = first_repeated(samples) {
        return Err(UsageError(format!(
            "--calibration-sweep: expected each number once, found {number} twice\n  hint: each is drawn with {SEEDS} seeds"
        ))
        .into());
    }
    let calibrated = calibrate::options(flags);
    let input = calibrated.input(calibration, &mut |step| {
        calibrate::note(&step, calibrated.size);
    })?;
    let options = CalibrationSweepOptions {
        samples: samples.clone(),
        seed: calibrated.seed,
        backend: calibrated.backend(),
        observer: calibrate::settings(&calibrated)?,
        least_sqnr_db: calibrated.least_sqnr_db(),
        calibration_batch: calibrated.batch_size,
        texts: compare_texts(arguments)?,
        threads: threads::resolve(arguments.threads.threads)?.count,
        ..CalibrationSweepOptions::new(input)
    };
    let source = crate::commands::resolve(&arguments.model)?;
    let mut steps = Steps::start(options.steps(), global.verbose > 0);
    let sweep = calibration_sweep(source, &options, &mut |step| steps.next(&what(step)));
    steps.finish();
    let sweep = sweep?;
    if global.json {
        streams::print_json(&sweep)
    } else {
        streams::print(&render::calibration_sweep::text(&sweep))
    }
}

fn what(step: SweepStep) -> String {
    match step {
        SweepStep::Original => "encoding all texts: original".to_owned(),
        SweepStep::Dynamic => "dynamic".to_owned(),
        SweepStep::Static { samples, seed } => {
            format!("static, calibration texts: {samples}, seed {seed}")
        }
    }
}
