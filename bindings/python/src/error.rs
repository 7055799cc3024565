//! Errors and panics as one Python exception.

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
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
