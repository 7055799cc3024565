//! Reading fields of a JSON configuration with errors that name file, field, expected and found.

use crate::ModelError;
use serde_json::Value;
use std::path::Path;

/// The fields of one JSON object and the file that they came from.
///
/// A field that is absent takes the default that transformers gives it; a field that is present must be valid, `null`
/// included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConfigFields<'a> {
    file: &'a Path,
    object: &'a Value,
}

impl<'a> ConfigFields<'a> {
    pub(crate) fn new(file: &'a Path, object: &'a Value) -> Self {
        Self { file, object }
    }

    /// The file that the fields came from.
    pub(crate) fn file(&self) -> &'a Path {
        self.file
    }

    /// The first field whose name is not `known`, and its value.
    pub(crate) fn unknown(&self, known: impl Fn(&str) -> bool) -> Option<(&'a str, &'a Value)> {
        let mut fields = self.object.as_object().into_iter().flatten();
        fields
            .find(|(name, _)| !known(name))
            .map(|(name, value)| (name.as_str(), value))
    }

    /// The value of `field`, if the object has it.
    pub(crate) fn get(&self, field: &str) -> Option<&'a Value> {
        self.object.get(field)
    }

    /// Whether the object has the field, with null.
    pub(crate) fn is_null(&self, field: &str) -> bool {
        self.get(field).is_some_and(Value::is_null)
    }

    /// Errors if `field` is there with another value than `usual`, the only one that is supported; numbers are the same whichever way they are
    /// written.
    pub(crate) fn expect_usual(
        &self,
        field: &str,
        usual: &Value,
        hint: &str,
    ) -> Result<(), ModelError> {
        let is_usual =
            |found: &Value| found == usual || found.is_number() && found.as_f64() == usual.as_f64();
        match self.get(field) {
            Some(found) if !is_usual(found) => {
                Err(self.unsupported(field, &usual.to_string(), found, hint))
            }
            _ => Ok(()),
        }
    }

    /// The object itself.
    pub(crate) fn object(&self) -> &'a Value {
        self.object
    }

    /// A finite number above 0.
    pub(crate) fn positive(&self, field: &str, default: f32) -> Result<f32, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(default);
        };
        match value.as_f64().map(|number| number as f32) {
            Some(number) if number > 0.0 && number.is_finite() => Ok(number),
            _ => Err(self.invalid(field, "expected a number above 0", value)),
        }
    }

    /// A whole number in `minimum..=maximum`.
    pub(crate) fn size(
        &self,
        field: &str,
        default: usize,
        minimum: usize,
        maximum: usize,
    ) -> Result<usize, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(default);
        };
        match value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
        {
            Some(number) if (minimum..=maximum).contains(&number) => Ok(number),
            _ => Err(self.invalid(
                field,
                &format!("expected a whole number from {minimum} to {maximum}"),
                value,
            )),
        }
    }

    /// A number that is at least 0 and, as f32, below 1.
    pub(crate) fn fraction(&self, field: &str, default: f32) -> Result<f32, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(default);
        };
        match value.as_f64().map(|number| number as f32) {
            Some(number) if (0.0..1.0).contains(&number) => Ok(number),
            _ => Err(self.invalid(field, "expected a number from 0 to below 1", value)),
        }
    }

    /// A string.
    pub(crate) fn string(&self, field: &str, default: &'a str) -> Result<&'a str, ModelError> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.invalid(field, "expected a string", other)),
        }
    }

    /// true or false.
    pub(crate) fn flag(&self, field: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.invalid(field, "expected true or false", other)),
        }
    }

    /// The error for an invalid value.
    pub(crate) fn invalid(&self, field: &str, expected: &str, found: &Value) -> ModelError {
        self.error(
            field,
            format!("{expected}, found {found}"),
            "correct the value or fetch the file again",
        )
    }

    /// The error for a valid value that fewbit does not support.
    pub(crate) fn unsupported(
        &self,
        field: &str,
        supported: &str,
        found: &Value,
        hint: &str,
    ) -> ModelError {
        self.error(
            field,
            format!("supported is {supported}, found {found}"),
            hint,
        )
    }

    /// An error at `field`.
    pub(crate) fn error(
        &self,
        field: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> ModelError {
        ModelError::Config {
            file: self.file.to_owned(),
            field: field.to_owned(),
            message: message.into(),
            hint: hint.into(),
        }
    }
}
