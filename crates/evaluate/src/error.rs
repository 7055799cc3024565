//! What can go wrong while measuring.

use std::path::PathBuf;

use fewbit_model::ModelError;

use crate::MetricError;

/// An error of reading evaluation data, running a model or computing a metric.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// Opening or running the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A metric that is not defined for its input.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// A file of texts could not be read, or is not what it should be.
    #[error(transparent)]
    Rows(#[from] fewbit_data::DataError),
    /// A file could not be read.
    #[error("{path}: {source}\n  hint: check the path, and that you may read it")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A data file, or a list of texts, holds nothing to measure with.
    #[error("{origin}: expected at least {expected}, found {found}\n  hint: {hint}")]
    TooLittleData {
        /// The file, or what the list is for.
        origin: String,
        /// For instance "two sentence pairs".
        expected: &'static str,
        /// How many there are.
        found: usize,
        /// What to do about it.
        hint: &'static str,
    },
    /// Two sets of embeddings do not belong together.
    #[error(
        "embeddings of `{name}`: expected {expected:?} (texts, columns), found {found:?}\n  hint: compare models of the same width on the same texts"
    )]
    EmbeddingShape {
        /// The model whose embeddings are not as expected.
        name: String,
        /// (texts, columns) of the reference.
        expected: [usize; 2],
        /// (texts, columns) of the model.
        found: [usize; 2],
    },
}
