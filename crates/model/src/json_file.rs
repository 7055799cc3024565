//! Small JSON files beside the checkpoint.

use crate::ModelError;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;

/// The parsed file, or `None` if there is none.
pub(crate) fn read_json(file: &Path) -> Result<Option<Value>, ModelError> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unusable(file, format!("cannot be read: {error}"))),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| unusable(file, format!("expected JSON: {error}")))
}

/// [`read_json`] of a file that must hold an object.
pub(crate) fn read_object(file: &Path) -> Result<Option<Value>, ModelError> {
    match read_json(file)? {
        Some(value) if !value.is_object() => Err(unusable(
            file,
            format!("expected a JSON object, found {}", type_name(&value)),
        )),
        value => Ok(value),
    }
}

/// The JSON type of a value, with its article.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn unusable(file: &Path, message: String) -> ModelError {
    ModelError::File {
        file: file.to_owned(),
        message,
        hint: "fetch the file again".to_owned(),
    }
}
