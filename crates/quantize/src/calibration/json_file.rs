//! JSON files of calibration.

use std::path::Path;

use fewbit_checkpoint::output_file::OutputFile;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::QuantizeError;

/// Writes `value` to `path` as a whole; then, in the same step for whoever stops the program, does `after`. Without `replace`, a file
/// that is there already stays and is an error.
pub(super) fn write<T>(
    path: &Path,
    value: &impl Serialize,
    replace: bool,
    after: impl FnOnce() -> T,
) -> Result<T, QuantizeError> {
    let text = serde_json::to_vec(value).expect("finite numbers and names are valid JSON");
    let mut file = OutputFile::create(path, replace)?;
    file.append(&text)?;
    Ok(file.commit_and(after)?)
}

/// Reads a value that [`write`] wrote: `expected`, in words.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    expected: &str,
    hint: &str,
) -> Result<T, QuantizeError> {
    let text = std::fs::read(path).map_err(|source| QuantizeError::Io {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|error| QuantizeError::Calibration {
        place: path.display().to_string(),
        expected: expected.to_owned(),
        found: error.to_string(),
        hint: hint.to_owned(),
    })
}
