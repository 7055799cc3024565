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
}
