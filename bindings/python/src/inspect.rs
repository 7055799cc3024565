//! What a model directory consists of, and where a model is.

use crate::error::{exception, to_json};
use crate::run::run;
use fewbit::CheckpointError;
use fewbit::checkpoint::gguf::gguf_source;
use fewbit::checkpoint::hub::{HubSettings, resolve_with};
use pyo3::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;

/// The directory of a model: itself, or where the model of that Hub id was downloaded to.
#[pyfunction]
pub(crate) fn resolve(py: Python<'_>, model: &str) -> PyResult<OsString> {
    run(py, || {
        let directory = resolve_with(model, &HubSettings::from_environment())?;
        Ok::<_, CheckpointError>(directory.into_os_string())
    })
}

/// Everything that `fewbit inspect` shows, as JSON.
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, directory: PathBuf) -> PyResult<String> {
    run(py, || {
        fewbit::inspect(directory).map(|found| to_json(&found))
    })
}

/// Everything that `fewbit inspect` shows of a GGUF file, or of the only one in a directory, as JSON.
#[pyfunction]
pub(crate) fn inspect_gguf(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    run(py, || {
        let file = gguf_source(&path)?.unwrap_or(path);
        fewbit::inspect_gguf(file).map(|found| to_json(&found))
    })
}

/// Name of the instruction set that kernels use in this process.
#[pyfunction]
pub(crate) fn isa() -> PyResult<&'static str> {
    fewbit::isa().map_err(exception)
}
