//! Calibration: its options as Python gives them, and the observation of a model.

use crate::error::to_json;
use crate::run::{Progress, run};
use fewbit::calibration::{CalibrationOptions, CalibrationStep, CalibrationTexts, DEFAULT_BATCH};
use fewbit::quantize::calibration::texts::{DEFAULT_SEED, SampleSize};
use fewbit::quantize::calibration::{
    CalibrationRun, CalibrationSamples, NoisyStaticSites, Sensitivity, SiteSensitivity,
    StaticCalibration, StatisticsFile,
};
use fewbit::quantize::observers::{AveragingConstant, KeptPercentage};
use fewbit::quantize::{
    Backend, CalibrationStatistics, Calibrator, IntegerRecipe, ObserverKind, ObserverSettings,
    Recipe,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The options of calibration, under the names of the command line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Calibration {
    /// Texts in memory; or a file of them.
    texts: Option<Vec<String>>,
    file: Option<PathBuf>,
    stats: Vec<PathBuf>,
    /// A number as text: JSON has no infinite ones.
    min_sqnr: Option<String>,
    samples: Option<usize>,
    batches: Option<usize>,
    batch_size: Option<usize>,
    seed: Option<u64>,
    field: Vec<String>,
    input_ids_column: Option<String>,
    attention_mask_column: Option<String>,
    observer: Option<String>,
    backend: Option<String>,
}

impl Calibration {
    pub(crate) fn options(self) -> PyResult<CalibrationOptions> {
        let batch_size = self.batch_size.unwrap_or(DEFAULT_BATCH).max(1);
        let defaults = CalibrationOptions::default();
        Ok(CalibrationOptions {
            texts: match (self.texts, self.file) {
                (Some(texts), _) => Some(CalibrationTexts::Given(texts)),
                (None, file) => file.map(CalibrationTexts::File),
            },
            statistics: self.stats,
            min_sqnr: self.min_sqnr.as_deref().map(decibels).transpose()?,
            size: match (self.batches, self.samples) {
                (Some(batches), _) => SampleSize::Exactly(batches.saturating_mul(batch_size)),
                (None, Some(samples)) => SampleSize::Exactly(samples),
                (None, None) => defaults.size,
            },
            batch_size,
            seed: self.seed.unwrap_or(DEFAULT_SEED),
            fields: self.field,
            input_ids_column: self.input_ids_column,
            attention_mask_column: self.attention_mask_column,
            observer: self.observer.as_deref().map(observer).transpose()?,
            backend: self.backend.as_deref().map(backend).transpose()?,
        })
    }
}

fn decibels(text: &str) -> PyResult<f64> {
    let number = text.parse().ok().filter(|number: &f64| !number.is_nan());
    number.ok_or_else(|| {
        PyValueError::new_err(format!(
            "min_sqnr: expected a number of decibels, found {text}\n  hint: 30 is the default"
        ))
    })
}

/// The backend of that name.
pub(crate) fn backend(name: &str) -> PyResult<Backend> {
    name.parse()
        .map_err(|error| PyValueError::new_err(format!("backend: {error}")))
}

/// The observer of that name, with its default settings.
fn observer(name: &str) -> PyResult<ObserverKind> {
    Ok(match name {
        "min-max" => ObserverKind::MinMax,
        "moving-average" => ObserverKind::MovingAverageMinMax {
            averaging_constant: AveragingConstant::default(),
        },
        "histogram" => ObserverKind::Histogram,
        "percentile" => ObserverKind::Percentile {
            percentile: KeptPercentage::default(),
        },
        "mse" => ObserverKind::Mse,
        "entropy" => ObserverKind::Entropy,
        _ => {
            return Err(PyValueError::new_err(format!(
                "observer: expected one of min-max, moving-average, histogram, percentile, mse, entropy, found {name:?}"
            )));
        }
    })
}

/// Tells the bar of a model that samples run through.
pub(crate) fn tell_samples(progress: &Progress) -> impl FnMut(CalibrationStep<'_>) {
    |step| {
        if let CalibrationStep::Observed(done, samples) = step {
            progress.tell(done, samples.len(), "calibrate");
        }
    }
}

/// What calibration found, and what it decided.
#[derive(Serialize)]
pub(crate) struct Found {
    sites: Vec<SiteSensitivity>,
    least_sqnr_db: Option<f64>,
    backend: String,
    noisy: Option<NoisyStaticSites>,
}

impl Found {
    pub(crate) fn of(calibration: &StaticCalibration) -> Self {
        Self {
            sites: calibration.sites().to_vec(),
            least_sqnr_db: finite(calibration.least_sqnr_db()),
            backend: calibration.backend().to_string(),
            noisy: calibration.noisy_sites(),
        }
    }
}

fn finite(number: f64) -> Option<f64> {
    number.is_finite().then_some(number)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    calibration: Calibration,
    /// The file of statistics to write.
    out: Option<PathBuf>,
    resume: bool,
}

#[derive(Serialize)]
struct Report {
    stats: Option<PathBuf>,
    samples: u64,
    tokens: u64,
    resumed_after: u64,
    settings: ObserverSettings,
    sites: Vec<SiteSensitivity>,
    least_sqnr_db: Option<f64>,
}

/// Observes a float model and writes the statistics. `request` and the answer are JSON.
#[pyfunction]
#[pyo3(signature = (directory, request, *, progress=None))]
pub(crate) fn calibrate(
    py: Python<'_>,
    directory: PathBuf,
    request: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let Request {
        calibration,
        out,
        resume,
    } = crate::error::from_json(request)?;
    let options = calibration.options()?;
    let progress = Progress::new(progress);
    run(py, || {
        let calibrator = Calibrator::prepare(&directory, options.observer_settings()?)?;
        let (statistics, resumed_after) = match (&options.texts, &out) {
            (Some(CalibrationTexts::File(path)), Some(out)) => {
                let file = StatisticsFile::new(out, resume)?;
                let input = options.input(path, &mut |_| {})?;
                let spec = calibrator.encoder().network().spec();
                let samples = options.draw(&input, spec, &mut |_| {})?;
                let run = CalibrationRun::new(&input, &samples, options.seed, options.batch_size)?;
                let done = file.calibrate(calibrator, &run, &samples, &mut |seen| {
                    progress.tell(seen, samples.len(), "calibrate");
                })?;
                (done.statistics, done.resumed_after)
            }
            _ => (observe(calibrator, &options, out.as_deref(), &progress)?, 0),
        };
        Ok::<_, fewbit::Error>(to_json(&Report {
            stats: out,
            samples: statistics.samples(),
            tokens: statistics.tokens(),
            resumed_after,
            settings: statistics.settings(),
            sites: Sensitivity::new(&statistics)?.sites().to_vec(),
            least_sqnr_db: finite(options.least_sqnr_db()),
        }))
    })
}

/// Observes samples of which nothing is kept on the way.
fn observe(
    mut calibrator: Calibrator,
    options: &CalibrationOptions,
    out: Option<&std::path::Path>,
    progress: &Progress,
) -> Result<CalibrationStatistics, fewbit::Error> {
    let samples = options.samples(calibrator.encoder().network().spec(), &mut |_| {})?;
    calibrator.observe_samples(&samples, 0, options.batch_size, |_, done| {
        progress.tell(done, samples.len(), "calibrate");
        Ok(())
    })?;
    let statistics = calibrator.finish()?;
    if let Some(out) = out {
        statistics.write(out)?;
    }
    Ok(statistics)
}

/// What `calibration` decides for the method `static` without other options: the recipe with its scales. JSON in and out.
#[pyfunction]
#[pyo3(signature = (directory, calibration, *, progress=None))]
pub(crate) fn static_recipe(
    py: Python<'_>,
    directory: PathBuf,
    calibration: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    #[derive(Serialize)]
    struct Answer {
        recipe: Recipe,
        calibration: Found,
    }
    let calibration: Calibration = crate::error::from_json(calibration)?;
    let options = calibration.options()?;
    let progress = Progress::new(progress);
    run(py, || {
        let calibration = options.calibrate(&directory, &mut tell_samples(&progress))?;
        Ok::<_, fewbit::Error>(to_json(&Answer {
            recipe: calibration.recipe(&IntegerRecipe::dynamic())?,
            calibration: Found::of(&calibration),
        }))
    })
}

/// The samples that GPTQ goes on with.
pub(crate) fn samples(
    calibration: Option<StaticCalibration>,
    options: &CalibrationOptions,
    directory: &std::path::Path,
) -> Result<CalibrationSamples, fewbit::Error> {
    match calibration {
        Some(calibration) => Ok(calibration.into_samples()),
        None => options.samples_for(directory, &mut |_| {}),
    }
}
