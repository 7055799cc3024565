//! One model under several methods, measured side by side.

pub mod calibration_sweep;
mod contender;
mod kept_models;
mod methods;
mod sample_texts;
mod texts;

pub use methods::{
    default_recipes, method_hint, method_name, parse_method, parse_methods,
    without_shared_embeddings,
};
pub use sample_texts::SAMPLE_TEXTS;
pub use texts::CompareTexts;

use crate::Error;
use crate::measure::{LATENCY_TEXTS, Measure, MeasureRequest, spread};
use crate::size::ModelSize;
use contender::Contender;
use fewbit_checkpoint::Checkpoint;
use fewbit_evaluate::{
    ComparisonRow, EvaluateError, MeasuredModel, MetricError, ReferenceFacts, SentenceSimilarity,
};
use fewbit_model::{Embeddings, Encoder, EncoderSettings, WeightOnlyArithmetic};
use fewbit_quantize::{
    GptqCalibration, QuantizePlan, Recipe, quantize_model, quantize_model_with_gptq,
};
use kept_models::OutputRoot;
use methods::refuse_duplicates;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Texts that speed in batches is measured on, at most.
const SPEED_TEXTS: usize = 256;
/// Rounds in which the speed of every model is measured once, every other one backwards.
const ROUNDS: usize = 3;

/// What to compare, on what, and how to run it.
#[derive(Debug, Clone)]
pub struct CompareOptions {
    /// The methods; the model as it is always comes first, as the reference.
    pub recipes: Vec<Recipe>,
    /// What the recipes with `gptq` are calibrated with.
    pub gptq: Option<GptqCalibration>,
    /// What the models are run on.
    pub texts: CompareTexts,
    /// Directory to keep the quantized models in; otherwise they go to a temporary one.
    pub keep: Option<PathBuf>,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Texts run together.
    pub batch_size: usize,
    /// What layers compute with whose weights alone are int8; none: what
    /// [`WeightOnlyArithmetic::from_environment`] says.
    pub weight_only: Option<WeightOnlyArithmetic>,
}

impl Default for CompareOptions {
    /// The [`default_recipes`] on the built-in sentences, on one thread.
    fn default() -> Self {
        CompareOptions {
            recipes: default_recipes(),
            gptq: None,
            texts: CompareTexts::BuiltIn,
            keep: None,
            threads: 1,
            batch_size: 32,
            weight_only: None,
        }
    }
}

impl CompareOptions {
    /// How often [`compare`] says what it does next, if nothing fails.
    pub fn steps(&self) -> usize {
        self.recipes.len() + (1 + ROUNDS) * (1 + self.recipes.len())
    }
}

/// The result of [`compare`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The source directory.
    pub model: PathBuf,
    /// Number of parameters of the model.
    pub parameters: u64,
    /// How many texts every model encoded.
    pub texts: usize,
    /// What the texts are: `built-in`, `texts` or `pairs`.
    pub texts_kind: &'static str,
    /// Tokens of the texts, special tokens included.
    pub tokens: usize,
    /// How many texts were cut at the model's limit.
    pub truncated: usize,
    /// How many texts latency was measured on, each alone.
    pub latency_texts: usize,
    /// How many texts speed in batches was measured on.
    pub speed_texts: usize,
    /// In how many rounds latency and speed were measured; a row has the middle one of each.
    pub rounds_of_speed: usize,
    /// Worker threads.
    pub threads: usize,
    /// Texts run together where speed in batches is measured.
    pub batch_size: usize,
    /// Instruction set of the kernels.
    pub isa: &'static str,
    /// What layers computed with whose weights alone are int8.
    pub weight_only_in: WeightOnlyArithmetic,
    /// The model as it is, then one row for each method that did not fail.
    pub rows: Vec<ComparedModel>,
    /// The methods that failed, and why. Empty if all is well.
    pub failed: Vec<FailedMethod>,
}

/// A method without a row: its model could not be made or measured. The others are measured all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedMethod {
    /// The recipe's label, as a row would have it.
    pub name: String,
    /// What went wrong, with the causes and a hint.
    pub error: String,
}

impl FailedMethod {
    /// The method of this label, and what it failed with.
    pub fn new(name: String, error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text += &format!("\n  caused by: {cause_text}");
            }
            source = cause.source();
        }
        FailedMethod { name, error: text }
    }
}

/// One model of a comparison. In JSON the fields of `figures` stand beside the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparedModel {
    /// Name (`original` or the recipe's label), bytes, agreement with the original, speed, memory.
    #[serde(flatten)]
    pub figures: ComparisonRow,
    /// The recipe; none for the original.
    pub recipe: Option<Recipe>,
    /// Where the model was kept, if it was.
    pub directory: Option<PathBuf>,
    /// Stored bytes of parameters, see [`ModelSize::parameter_bytes`].
    pub parameter_bytes: u64,
    /// Stored bytes of buffers, see [`ModelSize::buffer_bytes`].
    pub buffer_bytes: u64,
    /// Bytes of all files, tokenizer and configuration included.
    pub directory_bytes: u64,
    /// Seconds to open the model.
    pub load_seconds: f64,
    /// Seconds to write the model; none for the original.
    pub quantize_seconds: Option<f64>,
}

/// A method that loses more than allowed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateMiss {
    /// Name of the row.
    pub name: String,
    /// What it loses; see [`Comparison::missed_gates`]. NaN if a figure is not a number.
    pub drop: f64,
}

impl Comparison {
    /// Methods that lose more than `max_drop` against the original: points of Spearman x 100 where there are pairs,
    /// otherwise `100 * (1 - mean cosine)`. A figure that is not a number or not defined counts as missed.
    pub fn missed_gates(&self, max_drop: f64) -> Vec<GateMiss> {
        let Some((original, methods)) = self.rows.split_first() else {
            return Vec::new();
        };
        let scored = self.texts_kind == "pairs";
        let drop = |figures: &ComparisonRow| match (original.figures.similarity, figures.similarity)
        {
            (Some(reference), Some(found)) => 100.0 * (reference.spearman - found.spearman),
            (None, None) if !scored => {
                100.0
                    * (1.0
                        - figures
                            .agreement
                            .map_or(f64::NAN, |agreement| agreement.mean_cosine))
            }
            _ => f64::NAN,
        };
        methods
            .iter()
            .map(|row| GateMiss {
                name: row.figures.name.clone(),
                drop: drop(&row.figures),
            })
            .filter(|miss| miss.drop.is_nan() || miss.drop > max_drop)
            .collect()
    }
}

/// What a comparison is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareStep<'a> {
    /// Writing the model of this method.
    Quantizing(&'a str),
    /// Encoding all texts with this model.
    Encoding(&'a str),
    /// Measuring latency and speed in batches, in this round of so many.
    Speed {
        /// The model.
        name: &'a str,
        /// From 1.
        round: usize,
        /// How many there are.
        rounds: usize,
    },
}

/// Finds what can be found without writing or measuring anything: what the texts, the source and the output directories would be
/// refused for, and a source that no method can be applied to.
fn check(source: &Path, options: &CompareOptions) -> Result<(), Error> {
    refuse_duplicates(&options.recipes)?;
    options.texts.check()?;
    kept_models::check(options.keep.as_deref(), &options.recipes)?;
    let checkpoint = Checkpoint::open(source)?;
    let mut refusals = options
        .recipes
        .iter()
        .map(|recipe| QuantizePlan::new(&checkpoint, recipe).err());
    if let Some(Some(refusal)) = refusals.next()
        && refusals.all(|refusal| refusal.is_some())
    {
        return Err(refusal.into());
    }
    let settings = EncoderSettings::with_weight_only(options.weight_only);
    Encoder::open_with_settings(source, &settings)?;
    Ok(())
}

/// The correlation of a model's embeddings with the scores; none for a model that finds all pairs equally similar.
fn similarity(
    embeddings: &Embeddings,
    scores: &[f64],
) -> Result<Option<SentenceSimilarity>, Error> {
    match SentenceSimilarity::evaluate(embeddings, scores) {
        Ok(similarity) => Ok(Some(similarity)),
        Err(EvaluateError::Metric(MetricError::Constant { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a model of every recipe, measures each and the original, and puts the figures side by side.
///
/// All models lie on disk together until the end, because speed is measured in rounds that visit every model: a machine
/// that grows slower meanwhile disturbs all of them alike. `step` is told what is done next.
///
/// A method that fails does not end the comparison: it is named in [`Comparison::failed`].
///
/// # Errors
/// The source or the texts cannot be used; no method can be applied to this model; a model to be kept is there already.
/// These are found before anything is written. The original cannot be measured.
///
/// ```no_run
/// use fewbit::compare::{CompareOptions, compare};
/// use fewbit::measure::InProcess;
///
/// let comparison = compare("models/all-MiniLM-L6-v2", &CompareOptions::default(), &mut InProcess, &mut |_| {})?;
/// for row in &comparison.rows {
///     println!("{:28} {:5.2} times smaller", row.figures.name, row.figures.compression_ratio);
/// }
/// # Ok::<(), fewbit::Error>(())
/// ```
pub fn compare(
    source: impl AsRef<Path>,
    options: &CompareOptions,
    measure: &mut dyn Measure,
    step: &mut dyn FnMut(&CompareStep<'_>),
) -> Result<Comparison, Error> {
    let source = source.as_ref();
    check(source, options)?;
    let texts = options.texts.texts();
    let scores = options.texts.scores();
    let root = OutputRoot::new(options.keep.as_deref())?;

    let mut contenders = vec![Contender::original(source)];
    for recipe in &options.recipes {
        let mut contender = Contender::of(recipe, root.path());
        step(&CompareStep::Quantizing(&contender.name));
        contender.attempt(|contender| {
            let start = Instant::now();
            let out = &contender.directory;
            let silent = &mut |_: usize, _: usize, _: &str| {};
            match &options.gptq {
                Some(gptq) => quantize_model_with_gptq(source, recipe, gptq, out, false, silent)?,
                None => quantize_model(source, recipe, out, false, silent)?,
            };
            contender.quantize_seconds = Some(start.elapsed().as_secs_f64());
            Ok(())
        })?;
        contenders.push(contender);
    }

    let request = |contender: &Contender, texts: &[String]| MeasureRequest {
        name: contender.name.clone(),
        directory: contender.directory.clone(),
        texts: texts.to_vec(),
        threads: options.threads,
        batch_size: options.batch_size,
        weight_only: options.weight_only,
    };
    for contender in contenders.iter_mut().filter(|known| !known.has_failed()) {
        step(&CompareStep::Encoding(&contender.name));
        contender.attempt(|contender| {
            contender.measured = Some(measure.measure(&request(contender, &texts))?);
            Ok(())
        })?;
    }
    let sample = spread(&texts, SPEED_TEXTS);
    for round in 0..ROUNDS {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let contender = &mut contenders[index];
            if contender.has_failed() {
                continue;
            }
            step(&CompareStep::Speed {
                name: &contender.name,
                round: round + 1,
                rounds: ROUNDS,
            });
            contender.attempt(|contender| {
                let speed = measure.speed(&request(contender, &sample))?;
                contender.speeds.push(speed);
                Ok(())
            })?;
        }
    }

    let parameters = ModelSize::of(source)?.parameters;
    let original = contenders[0].take_measured()?;
    let mut rows = Vec::new();
    for contender in contenders.iter_mut().filter(|known| !known.has_failed()) {
        contender.attempt(|contender| {
            let row = row(contender, &original, parameters, scores.as_deref(), options)?;
            rows.push(row);
            Ok(())
        })?;
    }
    Ok(Comparison {
        model: source.to_owned(),
        parameters,
        texts: texts.len(),
        texts_kind: options.texts.kind(),
        tokens: original.embeddings.tokens,
        truncated: original.embeddings.truncated.len(),
        latency_texts: sample.len().min(LATENCY_TEXTS),
        speed_texts: sample.len(),
        rounds_of_speed: ROUNDS,
        threads: options.threads,
        batch_size: options.batch_size,
        isa: crate::isa()?,
        weight_only_in: WeightOnlyArithmetic::resolve(options.weight_only)?,
        rows,
        failed: contenders
            .into_iter()
            .filter_map(Contender::into_failure)
            .collect(),
    })
}

/// The figures of one contender beside those of the original.
fn row(
    contender: &mut Contender,
    original: &MeasuredModel,
    parameters: u64,
    scores: Option<&[f64]>,
    options: &CompareOptions,
) -> Result<ComparedModel, Error> {
    let facts = ReferenceFacts {
        parameters,
        scores: None,
    };
    let size = ModelSize::of(&contender.directory)?;
    let (figures, model) = match contender.recipe {
        None => {
            let rows = fewbit_evaluate::compare(original, &[], &facts)?.rows;
            (rows.into_iter().next(), original.clone())
        }
        Some(_) => {
            let model = contender.take_measured()?;
            let rows = fewbit_evaluate::compare(original, std::slice::from_ref(&model), &facts)?;
            (rows.rows.into_iter().nth(1), model)
        }
    };
    let mut figures = figures.expect("a row for the reference and each model");
    if let Some(scores) = scores {
        figures.similarity = similarity(&model.embeddings, scores)?;
    }
    let kept = contender.recipe.as_ref().and(options.keep.as_ref());
    Ok(ComparedModel {
        figures,
        directory: kept.map(|_| contender.directory.clone()),
        recipe: contender.recipe.clone(),
        parameter_bytes: size.parameter_bytes,
        buffer_bytes: size.buffer_bytes,
        directory_bytes: model.measurement.directory_bytes,
        load_seconds: model.measurement.load_seconds,
        quantize_seconds: contender.quantize_seconds,
    })
}
