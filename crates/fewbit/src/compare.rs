//! One model under several methods, measured side by side.

pub mod calibration_sweep;
mod classes;
mod contender;
mod kept_models;
mod methods;
mod report;
mod sample_texts;
mod texts;

pub use classes::ClassFigures;
pub use methods::{
    default_recipes, method_hint, method_name, parse_method, parse_methods, parse_weight_choice,
    parse_weights, without_other_names_of_defaults,
};
pub use report::{ComparedModel, Comparison, FailedMethod, GateMiss};
pub use sample_texts::SAMPLE_TEXTS;
pub use texts::CompareTexts;

use crate::Error;
use crate::measure::{ModelHost, ModelOutput, in_rounds};
use crate::size::ModelSize;
use classes::Classes;
use contender::{Contender, Encoded};
use fewbit_evaluate::{EmbeddingAgreement, TextOrder, TextRequest, directory_bytes, median};
use fewbit_model::{Embeddings, Encoder, EncoderSettings, WeightOnlyArithmetic, open_checkpoint};
use fewbit_quantize::{
    GptqCalibration, QuantizePlan, Recipe, quantize_model, quantize_model_with_gptq,
};
use kept_models::OutputRoot;
use methods::refuse_duplicates;
use std::path::{Path, PathBuf};
use std::time::Instant;
use texts::Inputs;

/// Texts that speed in batches is measured on, at most.
const SPEED_TEXTS: usize = 256;
/// Texts that latency is measured on, at most; spread evenly over those.
const LATENCY_TEXTS: usize = 32;
/// Rounds in which the speed of every model is measured once, every other one backwards.
const ROUNDS: usize = 3;

/// What to compare, on what, and how to run it.
#[derive(Debug, Clone)]
pub struct CompareOptions {
    /// The methods; the model as it is always comes first, as the reference.
    pub recipes: Vec<Recipe>,
    /// Directories of models that are quantized already, trained ones for example, to be compared as they are.
    pub quantized: Vec<PathBuf>,
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
            quantized: Vec::new(),
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
        let models = 1 + self.recipes.len() + self.quantized.len();
        self.recipes.len() + (1 + ROUNDS) * models
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
/// refused for, and a source that no method can be applied to. Gives the labels of a model that is compared as a classifier.
fn check(source: &Path, options: &CompareOptions) -> Result<Option<Classes>, Error> {
    refuse_duplicates(&options.recipes, &options.quantized)?;
    options.texts.check()?;
    kept_models::check(options.keep.as_deref(), &options.recipes)?;
    let checkpoint = open_checkpoint(source)?;
    let mut refusals = options
        .recipes
        .iter()
        .map(|recipe| QuantizePlan::new(&checkpoint, recipe).err());
    if options.quantized.is_empty()
        && let Some(Some(refusal)) = refusals.next()
        && refusals.all(|refusal| refusal.is_some())
    {
        return Err(refusal.into());
    }
    // A file that cannot be looked at is found now, not after all measurements.
    directory_bytes(source)?;
    ModelSize::of(source)?;
    let classes = Classes::of(&checkpoint, source, &options.texts, options.weight_only)?;
    if classes.is_none() {
        let settings = EncoderSettings::with_weight_only(options.weight_only);
        Encoder::open_with_settings(source, &settings)?;
    }
    Ok(classes)
}

/// Makes a model of every recipe, measures each and the original, and puts the figures side by side.
///
/// All models lie on disk together until the end, because speed is measured in rounds that visit every model: a machine
/// that grows slower meanwhile disturbs all of them alike. `step` is told what is done next.
///
/// A model with a head for sequence classification is compared by its logits, unless the texts are scored pairs; any other by its embeddings.
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
///     println!("{:28} {:5.2} times smaller", row.name, row.compression_ratio);
/// }
/// # Ok::<(), fewbit::Error>(())
/// ```
pub fn compare(
    source: impl AsRef<Path>,
    options: &CompareOptions,
    host: &mut dyn ModelHost,
    step: &mut dyn FnMut(&CompareStep<'_>),
) -> Result<Comparison, Error> {
    let source = source.as_ref();
    let classes = check(source, options)?;
    let root = OutputRoot::new(options.keep.as_deref())?;
    let mut run = Run {
        options,
        inputs: options.texts.inputs(),
        output: match classes {
            Some(_) => ModelOutput::Logits,
            None => ModelOutput::Embeddings,
        },
        host,
        step,
    };
    let mut contenders = run.quantize_all(source, root.path())?;
    run.encode_all(&mut contenders)?;
    let sample = run.inputs.spread(SPEED_TEXTS);
    let alone = sample.spread(LATENCY_TEXTS);
    run.time_all(&mut contenders, &sample, &alone)?;

    let (original, methods) = contenders
        .split_first_mut()
        .expect("the original comes first");
    let reference = original.encoded()?;
    let size = ModelSize::of(source)?;
    let figures = |name: &str, against: Option<&Embeddings>, found: &Embeddings| {
        let classes = classes.as_ref();
        let figures = classes.map(|classes| classes.figures(name, against, found));
        figures.transpose()
    };
    let of_original = Quality {
        agreement: None,
        classes: figures(&original.name, None, &reference.embeddings)?,
    };
    let mut rows = vec![row(original, of_original, &size, options)?];
    for contender in methods.iter_mut().filter(|known| !known.has_failed()) {
        contender.attempt(|contender| {
            let embeddings = &contender.encoded()?.embeddings;
            let (name, reference) = (&contender.name, &reference.embeddings);
            let classes = figures(name, Some(reference), embeddings)?;
            let agreement = match classes {
                Some(_) => None,
                None => Some(EmbeddingAgreement::between(name, reference, embeddings)?),
            };
            let quality = Quality { agreement, classes };
            rows.push(row(contender, quality, &size, options)?);
            Ok(())
        })?;
    }
    Ok(Comparison {
        model: source.to_owned(),
        parameters: size.parameters,
        texts: run.inputs.len(),
        texts_kind: options.texts.kind(),
        output: run.output,
        tokens: reference.embeddings.tokens,
        truncated: reference.embeddings.truncated.len(),
        latency_texts: alone.len(),
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

/// How close a model is to the original, and how good.
struct Quality {
    agreement: Option<EmbeddingAgreement>,
    classes: Option<ClassFigures>,
}

/// The figures of one model; `original` is the size of the one that the others are compared with.
fn row(
    contender: &Contender,
    Quality { agreement, classes }: Quality,
    original: &ModelSize,
    options: &CompareOptions,
) -> Result<ComparedModel, Error> {
    let encoded = contender.encoded()?;
    let size = ModelSize::of(&contender.directory)?;
    let stays = options.keep.is_some() || options.quantized.contains(&contender.directory);
    let kept = contender.recipe.as_ref().filter(|_| stays);
    Ok(ComparedModel {
        name: contender.name.clone(),
        disk_bytes: size.disk_bytes,
        memory: encoded.memory,
        compression_ratio: original.disk_bytes as f64 / size.disk_bytes as f64,
        bits_per_weight: 8.0 * size.disk_bytes as f64 / original.parameters as f64,
        agreement,
        classes,
        similarity: options.texts.similarity(&encoded.embeddings)?,
        median_milliseconds: contender.middle_of(&contender.median_milliseconds)?,
        texts_per_second: contender.middle_of(&contender.texts_per_second)?,
        directory: kept.map(|_| contender.directory.clone()),
        recipe: contender.recipe.clone(),
        parameter_bytes: size.parameter_bytes,
        buffer_bytes: size.buffer_bytes,
        directory_bytes: directory_bytes(&contender.directory)?,
        load_seconds: encoded.load_seconds,
        quantize_seconds: contender.quantize_seconds,
    })
}

/// A comparison while it runs.
struct Run<'a> {
    options: &'a CompareOptions,
    inputs: Inputs,
    output: ModelOutput,
    host: &'a mut dyn ModelHost,
    step: &'a mut dyn FnMut(&CompareStep<'_>),
}

impl Run<'_> {
    /// The original, and a model of every recipe in a directory below `root`.
    fn quantize_all(&mut self, source: &Path, root: &Path) -> Result<Vec<Contender>, Error> {
        let mut contenders = vec![Contender::original(source)];
        for recipe in &self.options.recipes {
            let mut contender = Contender::of(recipe, root);
            (self.step)(&CompareStep::Quantizing(&contender.name));
            contender.attempt(|contender| {
                let start = Instant::now();
                let out = &contender.directory;
                let silent = &mut |_: usize, _: usize, _: &str| {};
                match &self.options.gptq {
                    Some(gptq) => {
                        quantize_model_with_gptq(source, recipe, gptq, out, false, silent)?
                    }
                    None => quantize_model(source, recipe, out, false, silent)?,
                };
                contender.quantize_seconds = Some(start.elapsed().as_secs_f64());
                Ok(())
            })?;
            contenders.push(contender);
        }
        let quantized = self.options.quantized.iter();
        contenders.extend(quantized.map(|directory| Contender::quantized(directory)));
        Ok(contenders)
    }

    /// Encodes all texts with every model, in a process that has done nothing else if the host opens one for each.
    fn encode_all(&mut self, contenders: &mut [Contender]) -> Result<(), Error> {
        let request = self.request(&self.inputs, TextOrder::ByLength, self.options.batch_size);
        for contender in contenders.iter_mut().filter(|known| !known.has_failed()) {
            (self.step)(&CompareStep::Encoding(&contender.name));
            contender.attempt(|contender| {
                let mut open = (self.host).open(
                    &contender.directory,
                    self.options.weight_only,
                    self.output,
                )?;
                let encoded = Encoded {
                    embeddings: open.encode(&request)?,
                    memory: open.memory()?,
                    load_seconds: open.facts().load_seconds,
                };
                tracing::info!(
                    name = contender.name,
                    load_seconds = encoded.load_seconds,
                    weight_memory_bytes = encoded.memory.weight_memory_bytes,
                    peak_resident_bytes = encoded.memory.peak_resident_bytes,
                    tokens = encoded.embeddings.tokens,
                    "texts encoded"
                );
                contender.encoded = Some(encoded);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Times every model in each round: the texts `alone` one by one, after a pass over them that does not count, then the
    /// texts of `sample` in batches.
    fn time_all(
        &mut self,
        contenders: &mut [Contender],
        sample: &Inputs,
        alone: &Inputs,
    ) -> Result<(), Error> {
        let alone = self.request(alone, TextOrder::AsGiven, 1);
        let batches = self.request(sample, TextOrder::ByLength, self.options.batch_size);
        in_rounds(ROUNDS, contenders, |contender, before| {
            if contender.has_failed() {
                return Ok(());
            }
            (self.step)(&CompareStep::Speed {
                name: &contender.name,
                round: before.len() + 1,
                rounds: ROUNDS,
            });
            contender.attempt(|contender| {
                let mut open = (self.host).open(
                    &contender.directory,
                    self.options.weight_only,
                    self.output,
                )?;
                open.time_texts(&alone)?;
                let milliseconds = median(open.time_texts(&alone)?.call_seconds).map(|s| 1e3 * s);
                let texts_per_second = sample.len() as f64 / open.time_texts(&batches)?.seconds();
                tracing::info!(
                    name = contender.name,
                    median_milliseconds = milliseconds,
                    texts_per_second,
                    "speed measured"
                );
                contender.median_milliseconds.extend(milliseconds);
                contender.texts_per_second.push(texts_per_second);
                Ok(())
            })
        })?;
        Ok(())
    }

    fn request(&self, inputs: &Inputs, order: TextOrder, batch_size: usize) -> TextRequest {
        TextRequest {
            texts: inputs.texts.clone(),
            pairs: inputs.pairs.clone(),
            order,
            batch_size,
            threads: self.options.threads,
        }
    }
}
