//! A model directory in another layout.

use crate::error::{from_json, to_json};
use crate::run::{Progress, run};
use fewbit::quantize::weight_codecs;
use fewbit::{ConversionTarget, ConvertOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Deserialize;
use std::path::PathBuf;

/// What is to be done, under the names of the command line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    to: String,
    allow_requantize: bool,
    force: bool,
    threads: usize,
}

/// Converts a model. `request` and the answer are JSON.
#[pyfunction]
#[pyo3(signature = (directory, out, request, *, progress=None))]
pub(crate) fn convert_model(
    py: Python<'_>,
    directory: PathBuf,
    out: PathBuf,
    request: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let request: Request = from_json(request)?;
    let target: ConversionTarget = request
        .to
        .parse()
        .map_err(|error| PyValueError::new_err(format!("to: {error}")))?;
    let options = ConvertOptions {
        allow_requantize: request.allow_requantize,
        force: request.force,
    };
    let progress = Progress::new(progress);
    run(py, || {
        weight_codecs::set_threads(request.threads);
        let mut tell = |done: usize, total: usize, tensor: &str| progress.tell(done, total, tensor);
        let report = fewbit::convert_model(&directory, &target, &out, options, &mut tell)?;
        Ok::<_, fewbit::Error>(to_json(&report))
    })
}
