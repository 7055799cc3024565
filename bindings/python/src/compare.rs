//! Models measured side by side: methods on one model, a sweep of calibration texts, speeds.

use crate::calibration::{Calibration, samples, tell_samples};
use crate::error::{from_json, to_json};
use crate::run::{Progress, run};
use fewbit::bench::{BenchModel, BenchOptions, BenchReport, BenchStep};
use fewbit::calibration::{CalibratedRecipes, CalibrationOptions, CalibrationTexts};
use fewbit::checkpoint::leftovers;
use fewbit::compare::calibration_sweep::{
    CalibrationSweepOptions, SweepStep, calibration_sweep as sweep,
};
use fewbit::compare::{
    CompareOptions, CompareStep, CompareTexts, FailedMethod, GateMiss, default_recipes,
    parse_methods, without_other_names_of_defaults,
};
use fewbit::evaluate::{
    ClassColumns, ClassTexts, PairColumns, SentencePair, read_class_texts, read_sentence_pairs,
    read_texts,
};
use fewbit::measure::{InProcess, MeasuringProcesses, ModelHost, answer_requests};
use fewbit::model::WeightOnlyArithmetic;
use fewbit::quantize::GptqCalibration;
use fewbit::{Comparison, Error, Method, Recipe};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What the models of a comparison are run on.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Texts {
    BuiltIn,
    Given(Vec<String>),
    File {
        path: PathBuf,
        field: Vec<String>,
    },
    Pairs(Vec<(String, String, f64)>),
    PairsFile {
        path: PathBuf,
        columns: Vec<String>,
    },
    Labelled {
        texts: Vec<String>,
        pairs: Vec<String>,
        labels: Vec<String>,
    },
    LabelledFile {
        path: PathBuf,
        text: String,
        pair: Option<String>,
        label: Option<String>,
    },
}

impl Texts {
    fn read(self) -> Result<CompareTexts, Error> {
        Ok(match self {
            Self::BuiltIn => CompareTexts::BuiltIn,
            Self::Given(texts) => CompareTexts::Texts(texts),
            Self::File { path, field } => CompareTexts::Texts(read_texts(path, &field)?),
            Self::Pairs(pairs) => {
                let pair = |(sentence1, sentence2, score)| SentencePair {
                    sentence1,
                    sentence2,
                    score,
                };
                CompareTexts::Pairs(pairs.into_iter().map(pair).collect())
            }
            Self::PairsFile { path, columns } => {
                let mut found = PairColumns::default();
                if let [sentence1, sentence2, score] = columns.as_slice() {
                    found = PairColumns {
                        sentence1: sentence1.clone(),
                        sentence2: sentence2.clone(),
                        score: score.clone(),
                    };
                }
                CompareTexts::Pairs(read_sentence_pairs(path, &found)?)
            }
            Self::Labelled {
                texts,
                pairs,
                labels,
            } => CompareTexts::Classes(ClassTexts {
                texts,
                pairs,
                labels,
            }),
            Self::LabelledFile {
                path,
                text,
                pair,
                label,
            } => {
                CompareTexts::Classes(read_class_texts(path, &ClassColumns { text, pair, label })?)
            }
        })
    }
}

/// The program and the arguments of a measuring process; none: models are measured in this process.
fn host(process: Option<Vec<String>>) -> Box<dyn ModelHost + Send> {
    match process.as_deref() {
        Some([program, arguments @ ..]) => Box::new(MeasuringProcesses::new(program, arguments)),
        _ => Box::new(InProcess),
    }
}

/// Answers the requests of a process that measures models in processes of their own, until they end.
#[pyfunction]
pub(crate) fn measure_one_model(py: Python<'_>) -> PyResult<()> {
    run(py, || {
        answer_requests(std::io::stdin().lock(), std::io::stdout().lock())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareRequest {
    methods: Vec<String>,
    quantized: Vec<PathBuf>,
    texts: Texts,
    keep: Option<PathBuf>,
    max_drop: Option<f64>,
    threads: usize,
    batch_size: usize,
    weight_only_in: Option<WeightOnlyArithmetic>,
    calibration: Option<Calibration>,
}

#[derive(Serialize)]
struct CompareAnswer {
    comparison: Comparison,
    missed: Vec<GateMiss>,
}

/// Measures a model under several methods. `request` and the answer are JSON.
#[pyfunction]
#[pyo3(signature = (directory, request, *, process, progress=None))]
pub(crate) fn compare(
    py: Python<'_>,
    directory: PathBuf,
    request: &str,
    process: Option<Vec<String>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let mut request: CompareRequest = from_json(request)?;
    let calibration = request.calibration.take().map(Calibration::options);
    let calibration = calibration.transpose()?;
    let named = match request.methods.as_slice() {
        [] => None,
        methods => Some(
            parse_methods(methods)
                .map_err(|error| PyValueError::new_err(format!("methods: {error}")))?,
        ),
    };
    let progress = Progress::new(progress);
    run(py, || {
        // What killed processes left behind is removed by the next one that writes there.
        leftovers::remove_from(&std::env::temp_dir());
        let texts = request.texts.read()?;
        texts.check()?;
        let recipes = match named {
            Some(recipes) => recipes,
            None => {
                let fixed = calibration.is_some().then(|| Recipe::new(Method::Static));
                let recipes = default_recipes().into_iter().chain(fixed).collect();
                without_other_names_of_defaults(&directory, recipes)?
            }
        };
        let Prepared {
            recipes,
            mut failed,
            gptq,
        } = prepare(
            &directory,
            recipes,
            calibration.as_ref(),
            request.threads,
            &progress,
        )?;
        let options = CompareOptions {
            recipes,
            quantized: request.quantized,
            gptq,
            texts,
            keep: request.keep,
            threads: request.threads,
            batch_size: request.batch_size,
            weight_only: request.weight_only_in,
        };
        let (mut done, steps) = (0, options.steps());
        let mut host = host(process);
        let mut comparison =
            fewbit::compare::compare(&directory, &options, host.as_mut(), &mut |step| {
                progress.tell(done, steps, &said(step));
                done += 1;
            })?;
        progress.tell(steps, steps, "compared");
        failed.append(&mut comparison.failed);
        comparison.failed = failed;
        Ok::<_, Error>(to_json(&CompareAnswer {
            missed: (request.max_drop).map_or_else(Vec::new, |most| comparison.missed_gates(most)),
            comparison,
        }))
    })
}

/// What calibration made of the recipes of a comparison.
struct Prepared {
    recipes: Vec<Recipe>,
    failed: Vec<FailedMethod>,
    gptq: Option<GptqCalibration>,
}

fn prepare(
    directory: &Path,
    recipes: Vec<Recipe>,
    calibration: Option<&CalibrationOptions>,
    threads: usize,
    progress: &Progress,
) -> Result<Prepared, Error> {
    let mut prepared = Prepared {
        recipes,
        failed: Vec::new(),
        gptq: None,
    };
    let Some(options) = calibration else {
        return Ok(prepared);
    };
    let mut calibrated = None;
    let is_static = |recipe: &Recipe| recipe.method().needs_calibration();
    if prepared.recipes.iter().any(is_static) {
        let found = options.calibrate(directory, &mut tell_samples(progress))?;
        let CalibratedRecipes { ready, failed } = CalibratedRecipes::new(prepared.recipes, &found);
        let failures = failed.iter();
        let failures = failures.map(|(recipe, error)| FailedMethod::new(recipe.label(), error));
        prepared.failed = failures.collect();
        if let (true, Some((_, error))) = (ready.is_empty(), failed.into_iter().next()) {
            return Err(error.into());
        }
        prepared.recipes = ready;
        calibrated = Some(found);
    }
    if prepared.recipes.iter().any(Recipe::needs_samples) {
        let samples = samples(calibrated, options, directory)?;
        prepared.gptq = Some(GptqCalibration::new(samples, threads));
    }
    Ok(prepared)
}

fn said(step: &CompareStep<'_>) -> String {
    match step {
        CompareStep::Quantizing(method) => format!("quantizing: {method}"),
        CompareStep::Encoding(name) => format!("encoding: {name}"),
        CompareStep::Speed { name, round, .. } => format!("speed {round}: {name}"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SweepRequest {
    numbers: Vec<usize>,
    texts: Texts,
    threads: usize,
    batch_size: usize,
    calibration: Calibration,
}

/// `static` calibrated on more and more texts. `request` and the answer are JSON.
#[pyfunction]
#[pyo3(signature = (directory, request, *, progress=None))]
pub(crate) fn calibration_sweep(
    py: Python<'_>,
    directory: PathBuf,
    request: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let request: SweepRequest = from_json(request)?;
    let calibration = request.calibration.options()?;
    let Some(CalibrationTexts::File(file)) = calibration.texts.clone() else {
        return Err(PyValueError::new_err(
            "calibration: expected a file that texts are drawn from, found none",
        ));
    };
    let progress = Progress::new(progress);
    run(py, || {
        let options = CalibrationSweepOptions {
            samples: request.numbers,
            seed: calibration.seed,
            backend: calibration.backend(),
            observer: calibration.observer_settings()?,
            least_sqnr_db: calibration.least_sqnr_db(),
            calibration_batch: calibration.batch_size,
            texts: request.texts.read()?,
            threads: request.threads,
            batch_size: request.batch_size,
            ..CalibrationSweepOptions::new(calibration.input(&file, &mut |_| {})?)
        };
        let (mut done, steps) = (0, options.steps());
        let found = sweep(&directory, &options, &mut |step| {
            let what = match step {
                SweepStep::Original => "original".to_owned(),
                SweepStep::Dynamic => "dynamic".to_owned(),
                SweepStep::Static { samples, seed } => format!("static: {samples}, seed {seed}"),
            };
            progress.tell(done, steps, &what);
            done += 1;
        })?;
        progress.tell(steps, steps, "calibration sweep");
        Ok::<_, Error>(to_json(&found))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BenchRequest {
    batch: Vec<usize>,
    tokens: Vec<usize>,
    threads: Vec<usize>,
    texts: Option<Vec<String>>,
    texts_file: Option<PathBuf>,
    field: Vec<String>,
    seconds: f64,
    rounds: usize,
    profile: bool,
    weight_only_in: Option<WeightOnlyArithmetic>,
}

#[derive(Serialize)]
struct BenchAnswer {
    version: &'static str,
    #[serde(flatten)]
    report: BenchReport,
}

/// Measures how fast the models (name, directory) are. `request` and the answer are JSON.
#[pyfunction]
#[pyo3(signature = (models, request, *, process, progress=None))]
pub(crate) fn bench(
    py: Python<'_>,
    models: Vec<(String, PathBuf)>,
    request: &str,
    process: Option<Vec<String>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let request: BenchRequest = from_json(request)?;
    let progress = Progress::new(progress);
    run(py, || {
        let texts = match request.texts_file {
            Some(path) => Some(read_texts(path, &request.field)?),
            None => request.texts,
        };
        let options = BenchOptions {
            batches: request.batch,
            tokens: request.tokens,
            threads: request.threads,
            texts,
            seconds: request.seconds,
            rounds: request.rounds,
            profile: request.profile,
            weight_only: request.weight_only_in,
        };
        let model = |(name, directory)| BenchModel { name, directory };
        let models: Vec<BenchModel> = models.into_iter().map(model).collect();
        let (mut done, steps) = (0, options.steps(models.len()));
        let mut host = host(process);
        let report = fewbit::bench::bench(&models, &options, host.as_mut(), &mut |step| {
            progress.tell(done, steps, &measured(step));
            done += 1;
        })?;
        progress.tell(steps, steps, "measured");
        Ok::<_, Error>(to_json(&BenchAnswer {
            version: env!("CARGO_PKG_VERSION"),
            report,
        }))
    })
}

fn measured(step: &BenchStep<'_>) -> String {
    match step {
        BenchStep::Opening(name) => format!("opening: {name}"),
        BenchStep::Startup => "first embedding".to_owned(),
        BenchStep::Shape(shape, threads) => {
            format!("{} x {}, threads: {threads}", shape.batch, shape.tokens)
        }
        BenchStep::Profile(shape) => format!("stages: {} x {}", shape.batch, shape.tokens),
        BenchStep::Texts(batch, threads) => format!("texts by {batch}, threads: {threads}"),
    }
}
