//! A model directory with a task head.

use crate::error::to_json;
use crate::run::run;
use fewbit::EncodeOptions;
use fewbit::model::prediction::{Aggregation, AnswerOptions, Classification, TextInput};
use fewbit::model::{PredictorSettings, WeightOnlyArithmetic};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;

/// See `fewbit.Predictor`. Predictions are JSON.
#[pyclass(frozen, module = "fewbit._fewbit")]
pub(crate) struct Predictor {
    predictor: fewbit::Predictor,
}

/// A text, and a second one that is read with it.
type Input = (String, Option<String>);

fn inputs(owned: &[Input]) -> Vec<TextInput<'_>> {
    owned
        .iter()
        .map(|(text, pair)| TextInput {
            text,
            pair: pair.as_deref(),
        })
        .collect()
}

/// The arithmetic of that name of layers whose weights alone are int8.
pub(crate) fn weight_only(name: Option<&str>) -> PyResult<Option<WeightOnlyArithmetic>> {
    Ok(match name {
        None => None,
        Some("integers") => Some(WeightOnlyArithmetic::Integers),
        Some("floats") => Some(WeightOnlyArithmetic::Floats),
        Some(name) => {
            return Err(PyValueError::new_err(format!(
                "weight_only_in: expected integers or floats, found {name:?}"
            )));
        }
    })
}

#[pymethods]
impl Predictor {
    #[staticmethod]
    #[pyo3(signature = (directory, *, max_tokens=None, weight_only_in=None))]
    fn open(
        py: Python<'_>,
        directory: PathBuf,
        max_tokens: Option<usize>,
        weight_only_in: Option<&str>,
    ) -> PyResult<Self> {
        let settings = PredictorSettings {
            max_tokens,
            weight_only: weight_only(weight_only_in)?,
        };
        let predictor = run(py, || {
            fewbit::Predictor::open_with_settings(directory, &settings)
        })?;
        Ok(Self { predictor })
    }

    /// What the model is for: the end of its class's name, as transformers spells it.
    #[getter]
    fn task(&self) -> &'static str {
        self.predictor.task().name()
    }

    #[getter]
    fn labels(&self) -> Vec<String> {
        self.predictor.labels().to_vec()
    }

    #[getter]
    fn max_tokens(&self) -> usize {
        self.predictor.max_tokens()
    }

    #[getter]
    fn memory_bytes(&self) -> usize {
        self.predictor.model().memory_bytes()
    }

    #[pyo3(signature = (inputs, *, threads, batch_size))]
    fn classify(
        &self,
        py: Python<'_>,
        inputs: Vec<Input>,
        threads: usize,
        batch_size: usize,
    ) -> PyResult<String> {
        #[derive(Serialize)]
        struct Labels {
            labels: Vec<fewbit::model::prediction::LabelScore>,
            truncated: bool,
        }
        let options = EncodeOptions {
            threads,
            batch_size,
        };
        let labels = |Classification { labels, truncated }| Labels { labels, truncated };
        run(py, || {
            let found = self.predictor.classify(&self::inputs(&inputs), &options)?;
            let found: Vec<Labels> = found.into_iter().map(labels).collect();
            Ok::<_, fewbit::ModelError>(to_json(&found))
        })
    }

    /// Logits (texts, labels).
    #[pyo3(signature = (inputs, *, threads, batch_size))]
    fn logits<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<Input>,
        threads: usize,
        batch_size: usize,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let options = EncodeOptions {
            threads,
            batch_size,
        };
        let logits = run(py, || {
            (self.predictor).text_logits(&self::inputs(&inputs), &options)
        })?;
        PyArray1::from_vec(py, logits.values).reshape([logits.rows, logits.columns])
    }

    #[pyo3(signature = (texts, *, aggregation, threads, batch_size))]
    fn tag(
        &self,
        py: Python<'_>,
        texts: Vec<String>,
        aggregation: &str,
        threads: usize,
        batch_size: usize,
    ) -> PyResult<String> {
        let aggregation = match aggregation {
            "none" => Aggregation::None,
            "simple" => Aggregation::Simple,
            "first" => Aggregation::First,
            "average" => Aggregation::Average,
            "max" => Aggregation::Max,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "aggregation: expected one of none, simple, first, average, max, found {aggregation:?}"
                )));
            }
        };
        let options = EncodeOptions {
            threads,
            batch_size,
        };
        run(py, || {
            let found = self.predictor.tag(&texts, aggregation, &options)?;
            let tagging = found
                .iter()
                .map(|found| json!({ "entities": found.entities, "truncated": found.truncated }));
            Ok::<_, fewbit::ModelError>(to_json(&tagging.collect::<Vec<_>>()))
        })
    }

    #[pyo3(signature = (questions, *, top_k, max_answer_tokens, allow_no_answer, threads, batch_size))]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a keyword of Python's `answer`"
    )]
    fn answer(
        &self,
        py: Python<'_>,
        questions: Vec<(String, String)>,
        top_k: usize,
        max_answer_tokens: usize,
        allow_no_answer: bool,
        threads: usize,
        batch_size: usize,
    ) -> PyResult<String> {
        let answers = AnswerOptions {
            top_k,
            max_answer_tokens,
            handle_impossible_answer: allow_no_answer,
        };
        let options = EncodeOptions {
            threads,
            batch_size,
        };
        run(py, || {
            let found = self.predictor.answer(&questions, answers, &options)?;
            let found = found.iter().map(|answers| json!({ "answers": answers }));
            Ok::<_, fewbit::ModelError>(to_json(&found.collect::<Vec<_>>()))
        })
    }

    #[pyo3(signature = (texts, *, top_k, threads, batch_size))]
    fn fill_masks(
        &self,
        py: Python<'_>,
        texts: Vec<String>,
        top_k: usize,
        threads: usize,
        batch_size: usize,
    ) -> PyResult<String> {
        let options = EncodeOptions {
            threads,
            batch_size,
        };
        run(py, || {
            let found = self.predictor.fill_masks(&texts, top_k, &options)?;
            let filled = found
                .iter()
                .map(|found| json!({ "masks": found.masks, "truncated": found.truncated }));
            Ok::<_, fewbit::ModelError>(to_json(&filled.collect::<Vec<_>>()))
        })
    }
}
