//! Errors of reading, building and running a model.

use fewbit_checkpoint::CheckpointError;
use std::path::PathBuf;

/// What went wrong. The text has the form `where: what: expected, found` and, on a line of its own, a hint, like
/// [`CheckpointError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file or tensor of the checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A configuration file (`config.json`, `modules.json`, a pooling configuration …): a field with an impossible
    /// value, or one that changes the mathematics in a way that is not supported.
    #[error("{}: `{field}`: {message}\n  hint: {hint}", file.display())]
    Config {
        /// The file that holds the field.
        file: PathBuf,
        /// The field, as spelled in the file.
        field: String,
        /// What was expected and what was found.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// A small file beside the checkpoint that cannot be read or is not what its name says.
    #[error("{}: {message}\n  hint: {hint}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What was expected and what was found.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// A tokenizer file that is absent, malformed, or does not belong to the model.
    #[error("{}: {message}\n  hint: {hint}", file.display())]
    Tokenizer {
        /// The file, or the directory where one was looked for.
        file: PathBuf,
        /// What was expected and what was found.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// Token ids, lengths or options out of range.
    #[error("{0}")]
    Input(String),
    /// NaN or infinity came up while the model ran.
    #[error(
        "`{site}`: value {value} at row {row}, column {column}: expected finite numbers\n  hint: a weight of this layer or of one before it is damaged or overflows; `fewbit inspect` shows the dtypes, and a checkpoint in float32 tells an overflow from damage"
    )]
    NonFinite {
        /// Where, as [`crate::tap`] names sites; after the network `pooling.output` and `normalize.length`.
        site: String,
        /// Row (token) in the block that was computed; after the network the index of the text.
        row: usize,
        /// Column of that row.
        column: usize,
        /// The value found.
        value: f32,
    },
}

impl ModelError {
    /// The error of a value that is not finite at another row; other errors have none.
    pub(crate) fn at_row(mut self, row_of: impl FnOnce(usize) -> usize) -> Self {
        if let Self::NonFinite { row, .. } = &mut self {
            *row = row_of(*row);
        }
        self
    }
}
