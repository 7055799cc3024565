//! What can be wrong with a file of data.

use std::path::PathBuf;

/// The text names the file, the line or row and the column, what was expected and found, and on a line of its own a hint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file cannot be read.
    #[error("{path}: {source}\n  hint: check the path, and that you may read it")]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{place}: expected {expected}, found {found}\n  hint: {hint}")]
    Content {
        /// File, line or row, and column.
        place: String,
        /// What there should be.
        expected: String,
        /// What there is.
        found: String,
        /// What to do about it.
        hint: String,
    },
}

impl DataError {
    /// [`DataError::Content`]
    pub fn content(
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Content {
            place: place.into(),
            expected: expected.into(),
            found: found.into(),
            hint: hint.into(),
        }
    }
}
