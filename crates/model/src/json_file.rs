//! Small JSON files beside the checkpoint.

use crate::ModelError;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;

/// The parsed file, or `None` if there is none.
pub(crate) fn read_json(file: &Path) -> Result<Option<Value>, ModelError> {
    let unreadable = |message: String| ModelError::File {
        file: file.to_owned(),
        message,
        hint: "fetch the file again".to_owned(),
    };
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(format!("cannot be read: {error}"))),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| unreadable(format!("expected JSON: {error}")))
}
