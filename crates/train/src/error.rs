//! What can go wrong in training.

use fewbit_checkpoint::CheckpointError;
use fewbit_model::ModelError;
use fewbit_quantize::QuantizeError;

/// An error of quantization-aware training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The model cannot be run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model cannot be quantized or written.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// A file of the model cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An operation on tensors failed.
    #[error("training: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A layer is quantized in a form that training has no gradient for.
    #[error(
        "{module}: expected int8 weights by row, int4 groups, NF4, FP4 or float weights, with float, static or per-token inputs; found another form\n  hint: train with a recipe of `dynamic`, `static`, `weight-only` or `nf4` with its defaults, or keep the layer float with --skip"
    )]
    NotTrained {
        /// The name of the module.
        module: String,
    },
    /// A number became infinite or NaN.
    #[error(
        "{what}: expected finite numbers, found others\n  hint: train with a lower learning rate"
    )]
    NotFinite {
        /// What holds it.
        what: String,
    },
    /// An option of a training is out of its range, or does not go with the others.
    #[error("{option}: expected {expected}, found {found}\n  hint: {hint}")]
    Option {
        /// The option, or what it speaks of.
        option: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
        /// What to do.
        hint: String,
    },
    /// A training that was interrupted was another one.
    #[error(
        "{path}: expected a training of {expected}, found another one\n  hint: give the flags and files of the run that was interrupted, or remove {path} to start again"
    )]
    OtherRun {
        /// Where it was saved.
        path: String,
        /// What differs.
        expected: String,
    },
}
