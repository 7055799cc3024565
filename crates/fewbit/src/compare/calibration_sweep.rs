//! How many calibration texts are enough: `static` made from more and more of them, each number drawn several times.

use super::CompareTexts;
use super::kept_models::OutputRoot;
use crate::Error;
use crate::calibration::DEFAULT_BATCH;
use crate::repetition::first_repeated;
use fewbit_evaluate::{EmbeddingAgreement, SentenceSimilarity};
use fewbit_model::{Embeddings, EncodeOptions, Encoder, EncoderSpec, open_checkpoint};
use fewbit_quantize::calibration::texts::DEFAULT_SEED;
use fewbit_quantize::calibration::{
    CalibrationInput, Sensitivity, calibration_sites, static_recipe,
};
use fewbit_quantize::{
    Backend, Calibrator, Method, ObserverSettings, QuantizePlan, Recipe, StaticInputs,
    quantize_model,
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Draws of each number of texts.
pub const SEEDS: u64 = 3;

/// What to calibrate with, and what to judge by.
#[derive(Debug, Clone)]
pub struct CalibrationSweepOptions {
    /// Numbers of texts, each at least 1 and named once.
    pub samples: Vec<usize>,
    /// The first of [`SEEDS`] seeds in a row, with each of which every number is drawn.
    pub seed: u64,
    /// Where texts, or rows of token ids, are drawn from.
    pub calibration: CalibrationInput,
    /// How many of them are observed together.
    pub calibration_batch: usize,
    /// Whose weights they have.
    pub backend: Backend,
    /// How they are observed.
    pub observer: ObserverSettings,
    /// Inputs whose signal to noise ratio with one range is lower are dynamic, in dB.
    pub least_sqnr_db: f64,
    /// What the models are run on.
    pub texts: CompareTexts,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Texts run together.
    pub batch_size: usize,
}

impl CalibrationSweepOptions {
    /// 1, 4, 16, 64, 256 and 1024 texts of a file, observed as `quantize --method static` does by default, judged by the built-in
    /// sentences on one thread.
    pub fn new(calibration: CalibrationInput) -> Self {
        CalibrationSweepOptions {
            samples: vec![1, 4, 16, 64, 256, 1024],
            seed: DEFAULT_SEED,
            calibration,
            calibration_batch: DEFAULT_BATCH,
            backend: Backend::Native,
            observer: Backend::Native.qconfig().activation(),
            least_sqnr_db: Backend::Native.least_sqnr_db(),
            texts: CompareTexts::BuiltIn,
            threads: 1,
            batch_size: EncodeOptions::default().batch_size,
        }
    }

    /// How often [`calibration_sweep`] says what it does next, if nothing fails.
    pub fn steps(&self) -> usize {
        2 + self.samples.len() * SEEDS as usize
    }

    fn encode_options(&self) -> EncodeOptions {
        EncodeOptions {
            threads: self.threads,
            batch_size: self.batch_size,
        }
    }

    fn seeds(&self) -> impl Iterator<Item = u64> {
        let first = self.seed;
        (0..SEEDS).map(move |index| first.wrapping_add(index))
    }
}

/// The result of [`calibration_sweep`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CalibrationSweep {
    /// The source directory.
    pub model: PathBuf,
    /// The file that calibration texts were drawn from.
    pub calibration: PathBuf,
    /// The seeds that they were drawn with.
    pub seeds: Vec<u64>,
    /// How many texts every model encoded.
    pub texts: usize,
    /// What these texts are: `built-in`, `texts` or `pairs`.
    pub texts_kind: &'static str,
    /// Inputs of layers that have a range.
    pub inputs: usize,
    /// Worker threads.
    pub threads: usize,
    /// Instruction set of the kernels.
    pub isa: &'static str,
    /// The correlation of the float model with the scores.
    pub original: Option<SentenceSimilarity>,
    /// The method `dynamic`, which needs no texts.
    pub dynamic: Judgement,
    /// One for each number of texts, in the order given.
    pub rows: Vec<SweepRow>,
}

/// How close a model is to the float one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Judgement {
    /// Agreement of the embeddings with those of the float model.
    pub agreement: EmbeddingAgreement,
    /// Correlation with the scores, if there are any; none for a model that finds all pairs equally similar.
    pub similarity: Option<SentenceSimilarity>,
}

/// The models made from one number of texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepRow {
    /// The number of texts.
    pub samples: usize,
    /// Mean cosine to the float model.
    pub mean_cosine: Spread,
    /// Spearman's correlation with the scores; none if there are none, or one of the models has no correlation.
    pub spearman: Option<Spread>,
    /// One for each seed: what `quantize --method static --samples SAMPLES --seed SEED` makes.
    pub runs: Vec<SweepRun>,
}

/// The model made from one draw of texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepRun {
    /// The seed of the draw.
    pub seed: u64,
    /// Tokens of the calibration texts, special tokens included.
    pub tokens: u64,
    /// Inputs that are dynamic per token, as one range would cost too much there.
    pub dynamic_inputs: usize,
    /// How close the model is.
    #[serde(flatten)]
    pub judgement: Judgement,
}

/// One figure over several seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The arithmetic mean.
    pub mean: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// None of no value.
    fn of(values: &[f64]) -> Option<Self> {
        (!values.is_empty()).then(|| Spread {
            mean: values.iter().sum::<f64>() / values.len() as f64,
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            greatest: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

/// What a sweep is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepStep {
    /// Encoding all texts with the float model.
    Original,
    /// Making the model of the method `dynamic` and encoding all texts with it.
    Dynamic,
    /// Drawing texts, calibrating with them, making the model and encoding all texts with it.
    Static {
        /// How many texts.
        samples: usize,
        /// The seed that they are drawn with.
        seed: u64,
    },
}

/// Makes a `static` model from every number of texts and with each of [`SEEDS`] seeds, and says how close each is to the float
/// model, which encodes the texts once. One model lies on disk at a time, in a temporary directory. `step` is told what is done next.
///
/// # Errors
/// A number that is 0, is named twice, or is more than the file has texts; texts or a source that cannot be used: these are found before
/// anything is written. No input that tolerates one range.
///
/// ```no_run
/// use fewbit::compare::calibration_sweep::{CalibrationSweepOptions, calibration_sweep};
/// use fewbit::quantize::calibration::CalibrationInput;
///
/// let options = CalibrationSweepOptions::new(CalibrationInput::detect("texts.txt".as_ref())?);
/// for row in calibration_sweep("models/all-MiniLM-L6-v2", &options, &mut |_| {})?.rows {
///     println!("{:5} texts: mean cosine {:.5}", row.samples, row.mean_cosine.mean);
/// }
/// # Ok::<(), fewbit::Error>(())
/// ```
pub fn calibration_sweep(
    source: impl AsRef<Path>,
    options: &CalibrationSweepOptions,
    step: &mut dyn FnMut(SweepStep),
) -> Result<CalibrationSweep, Error> {
    let source = source.as_ref();
    check(source, options)?;
    let mut calibrator = Calibrator::prepare(source, options.observer)?;
    step(SweepStep::Original);
    let judge = Judge::new(calibrator.encoder(), options)?;
    let root = OutputRoot::new(None)?;
    let directory = root.path().join("model");
    let make = |recipe: &Recipe| -> Result<Judgement, Error> {
        quantize_model(source, recipe, &directory, true, &mut |_, _, _| {})?;
        judge.judge(&recipe.label(), &Encoder::open(&directory)?)
    };

    step(SweepStep::Dynamic);
    let dynamic = make(&Recipe::new(Method::Dynamic))?;
    let checkpoint = open_checkpoint(source)?;
    let mut rows = Vec::new();
    for &samples in &options.samples {
        let mut runs = Vec::new();
        for seed in options.seeds() {
            step(SweepStep::Static { samples, seed });
            let spec = calibrator.encoder().network().spec();
            let drawn = options.calibration.sample(samples, seed, spec)?;
            calibrator.observe_samples(&drawn, 0, options.calibration_batch, |_, _| Ok(()))?;
            let statistics = calibrator.restart()?;
            let sensitivity = Sensitivity::new(&statistics)?;
            let least = options.least_sqnr_db;
            let calibrated = sensitivity.static_inputs(&statistics, options.backend, least)?;
            let recipe = static_recipe(&checkpoint, &StaticInputs::default().into(), &calibrated)?;
            let sites = sensitivity.sites();
            runs.push(SweepRun {
                seed,
                tokens: statistics.tokens(),
                dynamic_inputs: sites.iter().filter(|site| site.is_dynamic(least)).count(),
                judgement: make(&recipe)?,
            });
        }
        rows.push(row(samples, runs));
    }
    Ok(CalibrationSweep {
        model: source.to_owned(),
        calibration: options.calibration.path().to_owned(),
        seeds: options.seeds().collect(),
        texts: judge.texts.len(),
        texts_kind: options.texts.kind(),
        inputs: calibration_sites(&calibrator.encoder().network().spec().catalogue()).len(),
        threads: options.threads,
        isa: crate::isa()?,
        original: options.texts.similarity(&judge.reference)?,
        dynamic,
        rows,
    })
}

/// Finds what the numbers, the texts or the source would be refused for.
fn check(source: &Path, options: &CalibrationSweepOptions) -> Result<(), Error> {
    let refused = |what: String| Err(Error::Compare(what));
    if options.samples.contains(&0) {
        return refused(
            "expected 1 text or more, found 0\n  hint: `dynamic` is in the table anyway, and needs none"
                .to_owned(),
        );
    }
    if let Some(twice) = first_repeated(&options.samples) {
        return refused(format!(
            "expected each number of texts once, found {twice} twice\n  hint: each is drawn with {SEEDS} seeds"
        ));
    }
    let Some(&most) = options.samples.iter().max() else {
        return refused(
            "expected a number of texts, found none\n  hint: for instance 1, 16, 256".to_owned(),
        );
    };
    options.texts.check()?;
    let checkpoint = open_checkpoint(source)?;
    QuantizePlan::new(&checkpoint, &Recipe::new(Method::Dynamic))?;
    let spec = EncoderSpec::from_checkpoint(&checkpoint)?;
    options.calibration.sample(most, options.seed, &spec)?;
    Ok(())
}

fn row(samples: usize, runs: Vec<SweepRun>) -> SweepRow {
    let cosines: Vec<f64> = runs
        .iter()
        .map(|run| run.judgement.agreement.mean_cosine)
        .collect();
    let correlations: Option<Vec<f64>> = runs
        .iter()
        .map(|run| Some(run.judgement.similarity?.spearman))
        .collect();
    SweepRow {
        samples,
        mean_cosine: Spread::of(&cosines).expect("there is a run for each seed"),
        spearman: correlations.and_then(|values| Spread::of(&values)),
        runs,
    }
}

/// The texts, and what the float model makes of them.
struct Judge<'a> {
    options: &'a CalibrationSweepOptions,
    texts: Vec<String>,
    reference: Embeddings,
}

impl<'a> Judge<'a> {
    fn new(float: &Encoder, options: &'a CalibrationSweepOptions) -> Result<Self, Error> {
        let texts = options.texts.texts();
        Ok(Judge {
            reference: float.encode(&texts, &options.encode_options())?,
            options,
            texts,
        })
    }

    fn judge(&self, name: &str, encoder: &Encoder) -> Result<Judgement, Error> {
        let embeddings = encoder.encode(&self.texts, &self.options.encode_options())?;
        Ok(Judgement {
            agreement: EmbeddingAgreement::between(name, &self.reference, &embeddings)?,
            similarity: self.options.texts.similarity(&embeddings)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_mean_and_both_ends() {
        let spread = Spread::of(&[0.5, 0.25, 0.75]).unwrap();
        assert_eq!(
            (spread.mean, spread.least, spread.greatest),
            (0.5, 0.25, 0.75)
        );
        assert_eq!(Spread::of(&[]), None);
    }
}
