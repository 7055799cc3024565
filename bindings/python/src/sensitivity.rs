//! Which layers need 8 bits.

use crate::calibration::{Calibration, tell_samples};
use crate::error::{from_json, to_json};
use crate::run::{Progress, run};
use fewbit::compare::parse_weight_choice;
use fewbit::quantize::{Rounding, ShardSize, StaticInputs, weight_codecs};
use fewbit::sensitivity::{SensitivityGoal, SensitivityOptions, SensitivityStep};
use fewbit::{EmbeddingStorage, FloatDType, IntegerRecipe, Method};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Deserialize;
use std::path::PathBuf;

/// What is to be measured and reached, under the names of the command line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: Method,
    weights: Vec<String>,
    gptq: bool,
    /// None: the default of the method.
    embeddings: Option<EmbeddingStorage>,
    float_dtype: Option<FloatDType>,
    skip: Vec<String>,
    /// One of both.
    max_bytes: Option<String>,
    min_cosine: Option<f64>,
    calibration: Calibration,
    threads: usize,
}

impl Request {
    fn goal(&self) -> PyResult<SensitivityGoal> {
        match (&self.max_bytes, self.min_cosine) {
            (Some(text), None) => {
                let size: Result<ShardSize, _> = text.parse();
                let size =
                    size.map_err(|error| PyValueError::new_err(format!("max_bytes: {error}")))?;
                Ok(SensitivityGoal::MaxBytes(size.bytes()))
            }
            (None, Some(cosine)) => Ok(SensitivityGoal::MinCosine(cosine)),
            _ => Err(PyValueError::new_err(
                "expected max_bytes or min_cosine, and not both",
            )),
        }
    }

    fn options(&self) -> PyResult<SensitivityOptions> {
        let base = match self.method {
            Method::Dynamic => IntegerRecipe::dynamic(),
            Method::WeightOnly => IntegerRecipe::weight_only(),
            Method::Static => StaticInputs::default().into(),
            other => {
                return Err(PyValueError::new_err(format!(
                    "method: expected dynamic, static or weight-only, found {other}"
                )));
            }
        };
        let mut base = base.with_skip(self.skip.iter().cloned());
        if self.gptq {
            base = base.with_rounding(Rounding::Gptq {
                saturation_proof: false,
            });
        }
        if let Some(form) = self.embeddings {
            base = base.with_embeddings(form);
        }
        base.float_dtype = self.float_dtype;
        let choices = self.weights.iter().map(|text| {
            let weights = parse_weight_choice(text);
            weights.map_err(|error| PyValueError::new_err(format!("weights: {error}")))
        });
        Ok(SensitivityOptions {
            base,
            choices: choices.collect::<PyResult<_>>()?,
            threads: self.threads,
        })
    }
}

/// Measures each layer and chooses. `request` and the answer are JSON.
#[pyfunction]
#[pyo3(signature = (directory, request, *, progress=None))]
pub(crate) fn sensitivity(
    py: Python<'_>,
    directory: PathBuf,
    request: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let request: Request = from_json(request)?;
    let (goal, options) = (request.goal()?, request.options()?);
    let calibration = request.calibration.options()?;
    let progress = Progress::new(progress);
    run(py, || {
        weight_codecs::set_threads(options.threads);
        let mut tell_drawn = tell_samples(&progress);
        let mut tell = |step: SensitivityStep<'_>| match step {
            SensitivityStep::Samples(step) => tell_drawn(step),
            SensitivityStep::Pass(done, total, what) => progress.tell(done, total, what),
        };
        let found =
            fewbit::sensitivity::sensitivity(&directory, &options, &calibration, goal, &mut tell)?;
        Ok::<_, fewbit::Error>(to_json(&found))
    })
}
