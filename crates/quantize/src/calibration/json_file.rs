//! JSON files of calibration.

use std::io::Write;
use std::path::Path;

use fewbit_checkpoint::unfinished::Unfinished;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::QuantizeError;

/// Writes `value` to a file beside `path` first and then puts it in its place, so that there is the old file or the new one, whenever the
/// program or the machine stops.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<(), QuantizeError> {
    let io = |source| QuantizeError::Io {
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_vec(value).expect("finite numbers and names are valid JSON");
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    let _unfinished = Unfinished::register(file.path());
    file.write_all(&text).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
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
