//! A model directory made of another, and the manager of what was made.

use crate::calibration::{Calibration, Found, samples, tell_samples};
use crate::error::{exception, from_json, to_json};
use crate::run::{Progress, run};
use crate::training::Training;
use fewbit::calibration::CalibrationOptions;
use fewbit::compare::{method_hint, parse_weights};
use fewbit::quantize::{
    ActivationsField, Backend, BlockScales, GptqCalibration, ModuleFields, OutputOptions,
    PlannedConversion, ShardSize, WeightScales, weight_codecs,
};
use fewbit::train::TrainingReport;
use fewbit::{
    Catalogue, CodeLayout, EmbeddingStorage, FloatDType, GroupSize, Method, QuantizeError,
    QuantizePlan, QuantizeReport, Recipe, RecipeFields, WeightsField,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is to be done, under the names of the command line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// None: `recipe` or `recipe_file` says it.
    method: Option<String>,
    /// The text of a recipe in JSON.
    recipe: Option<String>,
    recipe_file: Option<PathBuf>,
    #[serde(default)]
    weights: WeightsField,
    group_size: Option<GroupSize>,
    #[serde(default)]
    asymmetric: bool,
    #[serde(default)]
    layout: CodeLayout,
    #[serde(default)]
    weight_scales: WeightScales,
    #[serde(default)]
    modules: BTreeMap<String, LayerWeights>,
    double_quant: bool,
    block_size: Option<usize>,
    scales: Option<BlockScales>,
    /// None: the default of the method.
    embeddings: Option<EmbeddingStorage>,
    quantize_embeddings: bool,
    float_dtype: Option<FloatDType>,
    skip: Vec<String>,
    weight_only: Vec<String>,
    activations: Option<ActivationsField>,
    gptq: bool,
    saturation_proof: bool,
    calibration: Option<Calibration>,
    /// Whether weights are trained, besides what a recipe says.
    #[serde(default)]
    trained: bool,
    /// There if `calibration` has what is trained on.
    training: Option<Training>,
    /// Whether to measure what each range does to the embeddings.
    sensitivity_of_output: bool,
    force: bool,
    resume: bool,
    /// None: the default.
    max_shard_size: Option<String>,
    threads: usize,
}

impl Request {
    /// The recipe; one of `static` by its name has no scales yet.
    fn recipe(&self, backend: Backend) -> Result<Recipe, fewbit::Error> {
        let file = match (&self.recipe, &self.recipe_file) {
            (Some(text), _) => Some(Recipe::from_json(text)?),
            (None, Some(path)) => Some(Recipe::read(path)?),
            (None, None) => None,
        };
        let has_scales = file.is_some();
        let mut fields = match (file, &self.method) {
            (Some(recipe), _) => RecipeFields::from(recipe),
            (None, method) => self.fields(method_named(method.as_deref())?, backend)?,
        };
        let add = |given: &[String], known: &mut Vec<String>| {
            let new = given.iter().filter(|pattern| !known.contains(pattern));
            let new: Vec<String> = new.cloned().collect();
            known.extend(new);
        };
        add(&self.skip, &mut fields.skip);
        add(&self.weight_only, &mut fields.weight_only);
        fields.trained |= self.trained;
        let recipe = Recipe::try_from(fields)?;
        self.check_training(&recipe)?;
        if has_scales || recipe.method() != Method::Static {
            recipe.validate()?;
        }
        Ok(recipe)
    }

    /// Refuses training without texts, and texts to train on where nothing is trained.
    fn check_training(&self, recipe: &Recipe) -> Result<(), QuantizeError> {
        let (expected, found, hint) = match (recipe.is_trained(), &self.training) {
            (true, None) => (
                "data to train on beside it",
                "none",
                "a few thousand texts like those that the model will see, without labels: data=",
            ),
            (false, Some(_)) => (
                "true beside data",
                "false",
                "leave data out, or give method=\"qat\"",
            ),
            _ => return Ok(()),
        };
        let origin = match &self.recipe_file {
            Some(file) => file.display().to_string(),
            None => "recipe".to_owned(),
        };
        Err(QuantizeError::Recipe {
            origin,
            field: "qat",
            expected: expected.to_owned(),
            found: found.to_owned(),
            hint: hint.to_owned(),
        })
    }

    fn modules_as_keys(&self) -> Result<BTreeMap<String, ModuleFields>, fewbit::Error> {
        let modules = self.modules.iter().map(|(pattern, weights)| {
            let keys = match weights {
                LayerWeights::Keys(keys) => *keys,
                LayerWeights::Words(words) => parse_weights(words)?.into(),
            };
            Ok((pattern.clone(), keys))
        });
        modules.collect()
    }

    fn fields(&self, method: Method, backend: Backend) -> Result<RecipeFields, fewbit::Error> {
        let defaults = RecipeFields::new(method);
        let fields = RecipeFields {
            weights: self.weights,
            group_size: self.group_size,
            asymmetric: self.asymmetric,
            layout: self.layout,
            weight_scales: self.weight_scales,
            modules: self.modules_as_keys()?,
            block_size: self.block_size,
            double_quantization: self.double_quant,
            scales: self.scales,
            embeddings: self.embeddings.unwrap_or(defaults.embeddings),
            quantize_embeddings: self.quantize_embeddings.then_some(true),
            float_dtype: self.float_dtype,
            gptq: self.gptq,
            saturation_proof: self.saturation_proof,
            ..defaults
        };
        Ok(match self.activations {
            Some(ActivationsField::PerTensor) if method == Method::Dynamic => {
                fields.with_scales_of_quantize_dynamic(backend)
            }
            Some(activations) => RecipeFields {
                activations,
                ..fields
            },
            None => fields,
        })
    }
}

/// Weights of a single layer.
#[derive(Deserialize)]
#[serde(untagged)]
enum LayerWeights {
    /// As a list of methods has them: `int4+group-32`.
    Words(String),
    /// As a recipe has them.
    Keys(ModuleFields),
}

fn method_named(name: Option<&str>) -> Result<Method, fewbit::Error> {
    let name = match name.unwrap_or_default() {
        "float16" => "fp16",
        "bfloat16" => "bf16",
        name => name,
    };
    name.parse::<Method>().map_err(|error| {
        let hint = method_hint(name);
        let hint = hint.map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
        fewbit::Error::Compare(format!("method: {error}{hint}"))
    })
}

/// What was done, or what would be.
#[derive(Serialize)]
struct Answer<'a> {
    report: Option<&'a QuantizeReport>,
    training: Option<&'a TrainingReport>,
    plan: Option<&'a QuantizePlan>,
    /// Number of files of weights.
    files: usize,
    calibration: Option<Found>,
    /// Layers that the model runs, and layers that its files hold.
    layers: [usize; 2],
}

/// Quantizes a model; without `out` it says what would be done. `request` and the answer are JSON.
#[pyfunction]
#[pyo3(signature = (directory, out, request, *, progress=None))]
pub(crate) fn quantize_model(
    py: Python<'_>,
    directory: PathBuf,
    out: Option<PathBuf>,
    request: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let mut request: Request = from_json(request)?;
    if let Some(method) = &request.method {
        method_named(Some(method)).map_err(|error| PyValueError::new_err(error.to_string()))?;
    }
    let options = request.calibration.take().map(Calibration::options);
    let options = options.transpose()?;
    let max_shard_size = match &request.max_shard_size {
        Some(text) => text.parse().map_err(|error: fewbit::CheckpointError| {
            PyValueError::new_err(format!("max_shard_size: {error}"))
        })?,
        None => ShardSize::default(),
    };
    let progress = Progress::new(progress);
    run(py, || {
        weight_codecs::set_threads(request.threads);
        let backend = options
            .as_ref()
            .map_or(Backend::Native, CalibrationOptions::backend);
        let mut recipe = request.recipe(backend)?;
        let mut calibration = None;
        if let (Some(options), Recipe::Integer(int8)) = (&options, &recipe)
            && recipe.method().needs_calibration()
            && recipe
                .static_inputs()
                .is_none_or(|inputs| inputs.is_empty())
        {
            let of_training =
                (request.training.as_ref()).map(|_| options.clone().before_training());
            let options = of_training.as_ref().unwrap_or(options);
            let mut found = options.calibrate(&directory, &mut tell_samples(&progress))?;
            let with_scales = found.recipe(int8)?;
            if request.sensitivity_of_output {
                found.measure_output_effect(int8, &mut |done, total| {
                    progress.tell(done, total, "sensitivity");
                })?;
            }
            recipe = with_scales;
            calibration = Some(found);
        }
        let found = calibration.as_ref().map(Found::of);
        let gptq = match &options {
            Some(options) if recipe.needs_samples() && !recipe.is_trained() => {
                let samples = samples(calibration, options, &directory)?;
                Some(GptqCalibration::new(samples, request.threads))
            }
            _ => None,
        };
        let conversion = PlannedConversion::new(&directory, &recipe)?;
        let catalogue = Catalogue::of_checkpoint(conversion.checkpoint())?;
        let output_options = OutputOptions {
            force: request.force,
            max_shard_size,
            resume: request.resume,
        };
        let mut answer = Answer {
            report: None,
            training: None,
            plan: None,
            files: conversion.file_bytes(&output_options)?.len(),
            calibration: found,
            layers: [
                catalogue.layers(),
                catalogue.stored_layers(conversion.checkpoint()),
            ],
        };
        let Some(out) = out else {
            answer.plan = Some(conversion.plan());
            return Ok::<_, fewbit::Error>(to_json(&answer));
        };
        if let (Some(training), Some(data)) = (&request.training, options) {
            let (out, output) = (out.as_path(), &output_options);
            let report = training.run(
                &directory,
                &recipe,
                data,
                request.threads,
                (out, output),
                &progress,
            )?;
            answer.training = Some(&report);
            return Ok(to_json(&answer));
        }
        let gptq = gptq.map(|gptq| gptq.kept_beside(&out, request.resume));
        let gptq = gptq.transpose()?;
        let mut tell = |done: usize, total: usize, module: &str| progress.tell(done, total, module);
        let report = conversion.write(gptq.as_ref(), &out, &output_options, &mut tell)?;
        answer.report = Some(&report);
        Ok(to_json(&answer))
    })
}

/// See `fewbit.QuantizationManager`.
#[pyclass(frozen, module = "fewbit._fewbit")]
pub(crate) struct QuantizationManager {
    manager: Mutex<fewbit::QuantizationManager>,
}

impl QuantizationManager {
    fn lock(&self) -> MutexGuard<'_, fewbit::QuantizationManager> {
        // What was applied is noted after it is whole.
        self.manager.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl QuantizationManager {
    #[new]
    fn new(py: Python<'_>, directory: PathBuf, force: bool) -> PyResult<Self> {
        let manager = run(py, || fewbit::QuantizationManager::new(directory))?;
        Ok(Self {
            manager: Mutex::new(manager.with_force(force)),
        })
    }

    /// Sizes of the source, as JSON.
    fn model_size(&self, py: Python<'_>) -> PyResult<String> {
        run(py, || self.lock().model_size().map(|size| to_json(&size)))
    }

    /// Sizes side by side, as JSON.
    fn compare_sizes(&self, py: Python<'_>) -> PyResult<String> {
        run(py, || {
            self.lock().compare_sizes().map(|rows| to_json(&rows))
        })
    }

    /// Counts a directory, written elsewhere, that a recipe in JSON made of the source.
    fn add_written(&self, recipe: &str, directory: PathBuf) -> PyResult<()> {
        let recipe = Recipe::from_json(recipe).map_err(exception)?;
        self.lock().add_written(&recipe, directory);
        Ok(())
    }

    /// Writes what a recipe in JSON makes of the source.
    #[pyo3(signature = (recipe, out, *, threads, progress=None))]
    fn apply(
        &self,
        py: Python<'_>,
        recipe: &str,
        out: PathBuf,
        threads: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let progress = Progress::new(progress);
        run(py, || {
            weight_codecs::set_threads(threads);
            let recipe = Recipe::from_json(recipe)?;
            let mut tell =
                |done: usize, total: usize, module: &str| progress.tell(done, total, module);
            let report = self
                .lock()
                .apply_with_progress(&recipe, None, &out, &mut tell)?;
            Ok::<_, fewbit::Error>(to_json(&report))
        })
    }
}

/// A recipe in JSON, without what has its default: of a file, or of a text in JSON.
#[pyfunction]
#[pyo3(signature = (file=None, text=None))]
pub(crate) fn read_recipe(file: Option<PathBuf>, text: Option<&str>) -> PyResult<String> {
    let recipe = match (file, text) {
        (Some(file), _) => Recipe::read(file),
        (None, text) => Recipe::from_json(text.unwrap_or("{}")),
    };
    Ok(recipe.map_err(exception)?.to_json())
}
