//! Which layers need 8 bits, and which do with 4.
//!
//! # The measure
//!
//! Every choice of weights is measured by what it does to the embeddings of texts. With e_t the float model's embedding of text t and e'_t that of a
//! quantized one,
//!
//! ```text
//! loss = 1 - mean over t of cosine(e_t, e'_t)
//! ```
//!
//! as for [ranges of inputs](crate::calibration). The baseline is the model that has the largest of the choices everywhere. Then each group of layers in turn has
//! each of the other choices, floats perhaps among them, all else being as in the baseline; what that adds to the baseline's loss is the cost of the choice. Layers that read the same rows (queries, keys
//! and values) are one group: loaders fuse them and want them alike. The loss of a mixture is predicted as
//!
//! ```text
//! loss of the baseline + sum over groups of the cost of what they have
//! ```
//!
//! since errors of different layers point in unrelated directions, and 1 - cosine grows with their squares. [`WeightSensitivity::choose`] finds the best mixture under a
//! limit exactly, runs it, and gives the measured cosine beside the predicted one.
//!
//! It costs one pass over the texts for each group and choice. All choices of all weights are in memory meanwhile, a byte a weight each, beside the float model.

mod frontier;
mod goal;
mod measure;
mod report;

use std::fmt;
use std::path::PathBuf;

use fewbit_model::{Embeddings, EncodeOptions};

use crate::unwritten_weights::WeightsInMemory;
use crate::{IntegerRecipe, WeightCodes};
use frontier::Choice;
pub use goal::SensitivityGoal;
pub use report::{ChoiceSensitivity, GroupSensitivity, SensitivityReport, UniformWeights};

/// Weights that a layer may have.
///
/// ```
/// use fewbit_quantize::{WeightChoice, WeightCodes};
///
/// assert_eq!(WeightChoice::from(WeightCodes::Int8).to_string(), "int8");
/// assert_eq!(WeightChoice::Float.to_string(), "float");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightChoice {
    /// Codes.
    Codes(WeightCodes),
    /// Floats: the layer is skipped.
    Float,
}

impl WeightChoice {
    fn codes(self) -> Option<WeightCodes> {
        match self {
            Self::Codes(codes) => Some(codes),
            Self::Float => None,
        }
    }
}

impl From<WeightCodes> for WeightChoice {
    fn from(codes: WeightCodes) -> Self {
        Self::Codes(codes)
    }
}

impl fmt::Display for WeightChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codes(codes) => codes.fmt(f),
            Self::Float => f.pad("float"),
        }
    }
}

/// What to measure, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct SensitivityOptions {
    /// `dynamic`, `weight-only`, or `static` with the scales of inputs that calibration chose, with all that is the same whatever is chosen: rounding, embeddings,
    /// what is skipped. Its own weights are of no account.
    pub base: IntegerRecipe,
    /// The weights that layers may have: at least two, one of them codes.
    pub choices: Vec<WeightChoice>,
    /// Threads, at least 1; no effect on the result.
    pub threads: usize,
}

impl Default for SensitivityOptions {
    /// int8 or int4 in groups of the default size, for `weight-only`, on one thread.
    fn default() -> Self {
        Self {
            base: IntegerRecipe::weight_only(),
            choices: vec![
                WeightCodes::Int8.into(),
                WeightCodes::Int4(Default::default()).into(),
            ],
            threads: 1,
        }
    }
}

/// What each choice of each group of layers costs, measured.
///
/// ```no_run
/// use fewbit_quantize::calibration::CalibrationSamples;
/// use fewbit_quantize::quantize_model;
/// use fewbit_quantize::sensitivity::{SensitivityGoal, SensitivityOptions, WeightSensitivity};
///
/// let texts = vec!["Texts like those that".to_owned(), "the model will see.".to_owned()];
/// let samples = CalibrationSamples::Texts(texts);
/// let options = SensitivityOptions::default();
/// let measured = WeightSensitivity::measure("models/minilm", &options, &samples, &mut |_, _, _| {})?;
/// let report = measured.choose(SensitivityGoal::MaxBytes(20_000_000), &mut |_, _, _| {})?;
/// println!("{:.4}", report.measured_cosine);
/// quantize_model("models/minilm", &report.recipe, "models/minilm-mixed", false, &mut |_, _, _| {})?;
/// # Ok::<(), fewbit_quantize::QuantizeError>(())
/// ```
#[derive(Debug)]
pub struct WeightSensitivity {
    source: PathBuf,
    checkpoint_directory: PathBuf,
    /// With the form of embeddings that goes with every choice.
    base: IntegerRecipe,
    choices: Vec<WeightChoice>,
    /// Of each choice; of floats the tables alone, which are as beside codes.
    weights: Vec<WeightsInMemory>,
    groups: Vec<Group>,
    /// Bytes of everything else.
    other_bytes: u64,
    texts: Vec<String>,
    encode: EncodeOptions,
    /// Embeddings of the float model.
    reference: Embeddings,
    /// The number of the choice that the baseline has everywhere.
    baseline: usize,
    /// The loss with each choice everywhere.
    uniform_losses: Vec<f64>,
}

/// Layers that read the same rows.
#[derive(Debug)]
struct Group {
    site: String,
    /// Paths without the model's prefix, and as in the checkpoint.
    modules: Vec<(String, String)>,
    /// In the order of the choices.
    costs: Vec<Choice>,
}
