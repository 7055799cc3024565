//! A model directory in another layout.

use crate::error::{from_json, to_json};
use crate::run::{Progress, run};
use fewbit::quantize::{OutputOptions, weight_codecs};
use fewbit::{CheckpointError, ConversionTarget, ConvertOptions, Int4Options};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Deserialize;
use std::path::PathBuf;

/// What is to be done, under the names of the command line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    to: String,
    group_size: Option<String>,
    asymmetric: bool,
    allow_requantize: bool,
    force: bool,
    max_shard_size: String,
    resume: bool,
    threads: usize,
}

impl Request {
    fn target(&self) -> PyResult<ConversionTarget> {
        let wrong = |field: &str, error: &dyn std::fmt::Display| {
            PyValueError::new_err(format!("{field}: {error}"))
        };
        let target: ConversionTarget = self.to.parse().map_err(|error| wrong("to", &error))?;
        if self.group_size.is_none() && !self.asymmetric {
            return Ok(target);
        }
        let Some(options) = target.int4_options() else {
            let field = if self.asymmetric {
                "asymmetric"
            } else {
                "group_size"
            };
            return Err(wrong(
                field,
                &"does not go with this layout\n  hint: it is for `int4`, `gptq`, `gptq_v2` and `awq`",
            ));
        };
        let group_size = self.group_size.as_deref().map(str::parse).transpose();
        let group_size = group_size.map_err(|error| wrong("group_size", &error))?;
        Ok(ConversionTarget::int4(Int4Options {
            group_size: group_size.unwrap_or_default(),
            asymmetric: self.asymmetric,
            ..options
        }))
    }

    fn options(&self) -> PyResult<ConvertOptions> {
        let max_shard_size = self.max_shard_size.parse();
        Ok(ConvertOptions {
            allow_requantize: self.allow_requantize,
            output: OutputOptions {
                force: self.force,
                max_shard_size: max_shard_size.map_err(|error: CheckpointError| {
                    PyValueError::new_err(format!("max_shard_size: {error}"))
                })?,
                resume: self.resume,
            },
        })
    }
}

/// Converts a model; without `out` says what would be written. `request` and the answer are JSON.
#[pyfunction]
#[pyo3(signature = (directory, out, request, *, dry_run=false, progress=None))]
pub(crate) fn convert_model(
    py: Python<'_>,
    directory: PathBuf,
    out: Option<PathBuf>,
    request: &str,
    dry_run: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let request: Request = from_json(request)?;
    let (target, options) = (request.target()?, request.options()?);
    let progress = Progress::new(progress);
    run(py, || {
        weight_codecs::set_threads(request.threads);
        let out = match out {
            Some(out) if !dry_run => out,
            out => {
                let plan = fewbit::plan_conversion(&directory, &target, out.as_deref(), options)?;
                return Ok::<_, fewbit::Error>(to_json(&plan));
            }
        };
        let mut tell = |done: usize, total: usize, tensor: &str| progress.tell(done, total, tensor);
        let report = fewbit::convert_model(&directory, &target, &out, options, &mut tell)?;
        Ok(to_json(&report))
    })
}
