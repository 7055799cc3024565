//! What a training begins with, and what it ends in.

use std::collections::BTreeMap;
use std::path::Path;

use fewbit_checkpoint::MODULES_FILE;
use fewbit_model::task_head::{CrossEncoder, ModelClass};
use fewbit_model::{Catalogue, EncoderSpec, HeadSpec, Labels, ModuleKind, Task, open_checkpoint};
use fewbit_quantize::calibration::{CalibrationSamples, model_fingerprint};
use fewbit_quantize::{BlockScales, CodeLayout, Method, Recipe, RecipeFields, StaticInput};

use crate::TrainError;
use crate::sample_order::SampleOrder;

/// Samples that the codes to begin with are calibrated on.
const CALIBRATION_SAMPLES: usize = 256;

/// The recipe that is written: `recipe` without what only says how the codes are found that training goes on from.
///
/// # Errors
/// One of a method that has no codes, or whose products are not those that training computes.
pub(crate) fn written_recipe(recipe: &Recipe) -> Result<Recipe, TrainError> {
    let mut fields = RecipeFields::from(recipe.clone());
    let is_trained = match recipe {
        Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => false,
        Recipe::Integer(_) | Recipe::FourBit(_) => true,
    };
    if !is_trained {
        return Err(TrainError::Option {
            option: "recipe",
            expected: "one of a method with codes: dynamic, static, weight-only, nf4 or fp4"
                .to_owned(),
            found: recipe.method().to_string(),
            hint: "floats need no training".to_owned(),
        });
    }
    let layouts = fields.modules.values().map(|module| module.layout);
    let rounds = |layout: &CodeLayout| {
        !matches!(layout, CodeLayout::PackQuantized | CodeLayout::IntQuantized)
    };
    if let Some(layout) = layouts.chain([fields.layout]).find(rounds) {
        return Err(TrainError::Option {
            option: "layout",
            expected: "pack-quantized or int-quantized".to_owned(),
            found: layout.to_string(),
            hint: "other layouts round scales when they are written, so that the model would not be the one that was trained; `fewbit convert --allow-requantize` makes them afterwards, rounded anew".to_owned(),
        });
    }
    fields.trained = true;
    fields.gptq = false;
    fields.saturation_proof = false;
    fields.scales =
        matches!(recipe.method(), Method::Nf4 | Method::Fp4).then_some(BlockScales::Absmax);
    for module in fields.modules.values_mut() {
        module.scales = None;
    }
    Ok(Recipe::try_from(fields)?)
}

/// `recipe` with GPTQ, if it can have it.
///
/// # Errors
/// Those of [`Recipe::try_from`].
pub(crate) fn recipe_to_begin_with(recipe: &Recipe) -> Result<Recipe, TrainError> {
    let without = RecipeFields {
        trained: false,
        ..RecipeFields::from(recipe.clone())
    };
    let with = RecipeFields {
        gptq: true,
        ..without.clone()
    };
    Ok(Recipe::try_from(with).or_else(|_| Recipe::try_from(without))?)
}

/// `recipe` for the model in `source` with these scales and zero points of inputs, by the names of modules, in the place of its own.
///
/// # Errors
/// Those of [`Recipe::try_from`]; a model that cannot be read.
pub(crate) fn with_static_inputs(
    source: &Path,
    recipe: &Recipe,
    trained: &BTreeMap<String, StaticInput>,
) -> Result<Recipe, TrainError> {
    let catalogue = Catalogue::of_checkpoint(&open_checkpoint(source)?)?;
    let mut fields = RecipeFields::from(recipe.clone());
    for (module, trained) in trained {
        // Recipes name modules without the model's prefix.
        let named = fields
            .static_inputs
            .get_mut(catalogue.without_prefix(module));
        if let Some(input) = named {
            *input = *trained;
        }
    }
    Ok(Recipe::try_from(fields)?)
}

/// What tells the model in `source`, and its head where that is trained, from others.
pub(crate) fn fingerprint(
    source: &Path,
    head: Option<&(HeadSpec, Labels)>,
) -> Result<String, TrainError> {
    let checkpoint = open_checkpoint(source)?;
    let catalogue = Catalogue::of_checkpoint(&checkpoint)?;
    let encoder = model_fingerprint(&checkpoint, catalogue.linear_modules())?;
    let Some((head, labels)) = head else {
        return Ok(encoder);
    };
    let layers = head
        .modules()
        .filter(|module| module.kind() == ModuleKind::Linear);
    let layers = model_fingerprint(&checkpoint, layers)?;
    let (task, problem) = (head.task.name(), labels.problem_type());
    Ok(format!("{encoder} {layers} {task} {problem:?}"))
}

/// The head that is trained with the encoder, where the model has one that says something of texts or tokens. One that predicts words is not: its matrix is as a rule the
/// table of word embeddings. Nor is any where a modules.json makes embeddings of the model, whatever its class.
///
/// # Errors
/// Labels that config.json contradicts itself about; files of sentence-transformers that are no JSON.
pub(crate) fn trained_head(source: &Path) -> Result<Option<(HeadSpec, Labels)>, TrainError> {
    let checkpoint = &open_checkpoint(source)?;
    let class = ModelClass::of_config(checkpoint.config());
    let task = class.and_then(|class| class.task());
    if task.is_none_or(|task| task == Task::MaskedLm) {
        return Ok(None);
    }
    let labels = Labels::from_checkpoint(checkpoint)?;
    let makes_embeddings = checkpoint.directory().join(MODULES_FILE).exists()
        && CrossEncoder::from_checkpoint(checkpoint, &labels)?.is_none();
    if makes_embeddings {
        return Ok(None);
    }
    let spec = EncoderSpec::from_checkpoint(checkpoint)?;
    match HeadSpec::from_checkpoint(checkpoint, &spec, &labels) {
        Ok(head) => Ok(Some((head, labels))),
        Err(error) => {
            tracing::warn!("the model is trained without its head, which cannot be run: {error}");
            Ok(None)
        }
    }
}

/// Some of the samples that are trained on.
pub(crate) fn calibration_samples(
    samples: &CalibrationSamples,
    order: &SampleOrder,
) -> CalibrationSamples {
    let numbers = order.first(CALIBRATION_SAMPLES);
    match samples {
        CalibrationSamples::Texts(texts) => CalibrationSamples::Texts(
            numbers
                .iter()
                .map(|&number| texts[number].clone())
                .collect(),
        ),
        CalibrationSamples::Tokens(rows) => {
            CalibrationSamples::Tokens(numbers.iter().map(|&number| rows[number].clone()).collect())
        }
    }
}
