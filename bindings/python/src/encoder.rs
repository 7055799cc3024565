//! A model directory that makes embeddings of texts.

use crate::predictor::weight_only;
use crate::run::{Progress, run};
use crate::token_batch::TokenBatch;
use fewbit::EncodeOptions;
use fewbit::model::pooling::PoolingMode;
use fewbit::model::{EncoderSettings, Prompt};
use numpy::{PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::path::PathBuf;

/// See `fewbit.Encoder`.
#[pyclass(frozen, module = "fewbit._fewbit")]
pub(crate) struct Encoder {
    encoder: fewbit::Encoder,
}

#[pymethods]
impl Encoder {
    #[staticmethod]
    #[pyo3(signature = (directory, *, pooling=None, normalize=None, max_tokens=None, prompt=None, prompt_name=None, task=None, weight_only_in=None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a keyword of Python's `open`"
    )]
    fn open(
        py: Python<'_>,
        directory: PathBuf,
        pooling: Option<String>,
        normalize: Option<bool>,
        max_tokens: Option<usize>,
        prompt: Option<String>,
        prompt_name: Option<String>,
        task: Option<String>,
        weight_only_in: Option<&str>,
    ) -> PyResult<Self> {
        let settings = EncoderSettings {
            pooling: pooling.as_deref().map(pooling_mode).transpose()?,
            normalize,
            max_tokens,
            prompt: prompt.map(Prompt::Text).or(prompt_name.map(Prompt::Named)),
            task,
            weight_only: weight_only(weight_only_in)?,
        };
        let encoder = run(py, || {
            fewbit::Encoder::open_with_settings(directory, &settings)
        })?;
        Ok(Self { encoder })
    }

    /// Embeddings (texts, columns) and the ascending indices of texts that were cut.
    #[pyo3(signature = (texts, *, threads, batch_size, progress=None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<String>,
        threads: usize,
        batch_size: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(Bound<'py, PyArray2<f32>>, Vec<usize>)> {
        let options = EncodeOptions {
            threads,
            batch_size,
        };
        let progress = Progress::new(progress);
        let embeddings = run(py, || {
            let mut tell = |done: usize| progress.tell(done, texts.len(), "texts");
            self.encoder
                .encode_with_progress(&texts, &options, &mut tell)
        })?;
        let shape = [embeddings.rows, embeddings.columns];
        let array = PyArray1::from_vec(py, embeddings.values).reshape(shape)?;
        Ok((array, embeddings.truncated))
    }

    /// Last hidden states (sequences, length, hidden size), 0 where `attention_mask` leaves a token out.
    #[pyo3(signature = (input_ids, attention_mask=None, token_type_ids=None, *, threads))]
    fn forward<'py>(
        &self,
        py: Python<'py>,
        input_ids: PyReadonlyArray2<'py, i64>,
        attention_mask: Option<PyReadonlyArray2<'py, i64>>,
        token_type_ids: Option<PyReadonlyArray2<'py, i64>>,
        threads: usize,
    ) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let batch = TokenBatch::new(
            input_ids.as_array(),
            attention_mask.as_ref().map(|array| array.as_array()),
            token_type_ids.as_ref().map(|array| array.as_array()),
        )?;
        let network = self.encoder.network();
        let states = run(py, || network.hidden_states(&batch.ragged, threads))?;
        Ok(batch.padded(py, &states, network.spec().hidden_size))
    }

    /// Length of an embedding.
    #[getter]
    fn columns(&self) -> usize {
        self.encoder.columns()
    }

    /// Longest input in tokens, special tokens included.
    #[getter]
    fn max_tokens(&self) -> usize {
        self.encoder.max_tokens()
    }

    /// Whether embeddings are those of a SPLADE model, most of whose values are 0.
    #[getter]
    fn is_sparse(&self) -> bool {
        self.encoder.is_sparse()
    }

    /// Whether embeddings have length 1.
    #[getter]
    fn normalizes(&self) -> bool {
        self.encoder.normalizes()
    }

    /// Columns of a hidden state.
    #[getter]
    fn hidden_size(&self) -> usize {
        self.encoder.network().spec().hidden_size
    }

    /// Bytes of parameters held in memory.
    #[getter]
    fn memory_bytes(&self) -> usize {
        self.encoder.network().memory_bytes()
    }
}

/// The pooling mode of that name, as the command line spells it.
fn pooling_mode(name: &str) -> PyResult<PoolingMode> {
    Ok(match name {
        "mean" => PoolingMode::Mean,
        "cls" => PoolingMode::Cls,
        "max" => PoolingMode::Max,
        "last" => PoolingMode::LastToken,
        _ => {
            return Err(PyValueError::new_err(format!(
                "pooling: expected mean, cls, max or last, found {name:?}\n  hint: leave it out for what the model's files say"
            )));
        }
    })
}
