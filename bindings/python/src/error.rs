//! Errors and panics as one Python exception.

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::fmt::Display;

create_exception!(
    fewbit,
    FewbitError,
    PyException,
    "What fewbit could not do: which file or tensor, what was expected, what was found, and a hint."
);

/// The exception with the error's text.
pub(crate) fn exception(error: impl Display) -> PyErr {
    FewbitError::new_err(error.to_string())
}

/// The exception of a panic, which is a defect of fewbit.
pub(crate) fn exception_of_panic(panic: &(dyn Any + Send)) -> PyErr {
    let text = (panic.downcast_ref::<&str>().copied())
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    FewbitError::new_err(format!(
        "{text}\n  hint: this is a defect of fewbit, not of what it was given; please report it with what was called"
    ))
}

/// What Python sends, read. What it cannot be is a mistake of the Python half, or of a value that it passes on.
pub(crate) fn from_json<T: DeserializeOwned>(text: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// A report as text.
pub(crate) fn to_json(report: &impl Serialize) -> String {
    serde_json::to_string(report).expect("reports are structs of numbers, strings and lists")
}
