//! The errors of every part of fewbit, in one type.

use crate::threads::ThreadsError;
use fewbit_checkpoint::CheckpointError;
use fewbit_evaluate::EvaluateError;
use fewbit_kernels::isa::IsaError;
use fewbit_model::ModelError;
use fewbit_quantize::QuantizeError;
use fewbit_train::TrainError;
use std::path::PathBuf;

/// Anything that can go wrong. The text is the one of the part that failed: file, tensor, expected, found, hint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Building or running a model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Deciding on or doing a conversion.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// Quantization-aware training.
    #[error(transparent)]
    Train(Box<TrainError>),
    /// Reading evaluation data, measuring, or computing a metric.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The environment variable `FEWBIT_ISA` cannot be followed.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// A number of threads that cannot be used.
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    /// A comparison that cannot be made; the text says of what and why.
    #[error("{0}")]
    Compare(String),
    /// A measurement that failed elsewhere, for instance in a process of its own; the text says of what and why.
    #[error("{0}")]
    Measure(String),
    /// A benchmark that cannot be run; the text says of what and why.
    #[error("{0}")]
    Bench(String),
    /// A file outside any checkpoint.
    #[error("{path}: {source}\n  hint: check the path, and that you may use it", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl From<TrainError> for Error {
    fn from(error: TrainError) -> Self {
        Self::Train(Box::new(error))
    }
}
