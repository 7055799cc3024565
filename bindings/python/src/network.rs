//! An encoder without tokenizer and pooling, for the PyTorch bridge: what stands in the place of a transformers model, and what
//! its weights stand for.

use crate::run::run;
use crate::token_batch::TokenBatch;
use fewbit::checkpoint::StoredWeight;
use fewbit::model::architectures::MODEL_TYPES;
use fewbit::model::{Catalogue, ModelError, ModuleKind, Tap, open_checkpoint};
use numpy::{PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray2};
use pyo3::prelude::*;
use std::path::PathBuf;

/// See `fewbit.torch.native_encoder`.
#[pyclass(frozen, module = "fewbit._fewbit")]
pub(crate) struct Network {
    network: fewbit::model::Network,
}

/// Token ids as they come from Python, all (sequences, length).
struct Inputs<'py> {
    input_ids: PyReadonlyArray2<'py, i64>,
    attention_mask: Option<PyReadonlyArray2<'py, i64>>,
    token_type_ids: Option<PyReadonlyArray2<'py, i64>>,
    position_ids: Option<PyReadonlyArray2<'py, i64>>,
}

impl Inputs<'_> {
    fn batch(&self, network: &fewbit::model::Network) -> PyResult<TokenBatch> {
        let input_ids = self.input_ids.as_array();
        let mut batch = TokenBatch::new(
            input_ids,
            self.attention_mask.as_ref().map(|array| array.as_array()),
            self.token_type_ids.as_ref().map(|array| array.as_array()),
        )?;
        let positions = self.position_ids.as_ref().map(|array| array.as_array());
        batch.place(network.spec(), input_ids, positions)?;
        Ok(batch)
    }
}

#[pymethods]
impl Network {
    /// Loads the encoder in a model directory.
    #[staticmethod]
    fn open(py: Python<'_>, directory: PathBuf) -> PyResult<Self> {
        let network = run(py, || {
            let checkpoint = open_checkpoint(&directory)?;
            let (network, _) = fewbit::model::Network::load(&checkpoint)?;
            Ok::<_, ModelError>(network)
        })?;
        Ok(Self { network })
    }

    /// Last hidden states (sequences, length, hidden size), 0 where `attention_mask` leaves a token out.
    #[pyo3(signature = (input_ids, attention_mask=None, token_type_ids=None, position_ids=None, *, threads))]
    fn forward<'py>(
        &self,
        py: Python<'py>,
        input_ids: PyReadonlyArray2<'py, i64>,
        attention_mask: Option<PyReadonlyArray2<'py, i64>>,
        token_type_ids: Option<PyReadonlyArray2<'py, i64>>,
        position_ids: Option<PyReadonlyArray2<'py, i64>>,
        threads: usize,
    ) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let inputs = Inputs {
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
        };
        let batch = inputs.batch(&self.network)?;
        let states = run(py, || self.network.hidden_states(&batch.ragged, threads))?;
        Ok(batch.padded(py, &states, self.hidden_size()))
    }

    /// The residual stream before the first layer and after each: as many arrays as there are layers, and one.
    #[pyo3(signature = (input_ids, attention_mask=None, token_type_ids=None, position_ids=None))]
    fn hidden_states<'py>(
        &self,
        py: Python<'py>,
        input_ids: PyReadonlyArray2<'py, i64>,
        attention_mask: Option<PyReadonlyArray2<'py, i64>>,
        token_type_ids: Option<PyReadonlyArray2<'py, i64>>,
        position_ids: Option<PyReadonlyArray2<'py, i64>>,
    ) -> PyResult<Vec<Bound<'py, PyArray3<f32>>>> {
        let inputs = Inputs {
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
        };
        let batch = inputs.batch(&self.network)?;
        let mut steps = Steps(vec![Vec::new(); self.network.spec().passes().len() + 1]);
        run(py, || {
            self.network
                .hidden_states_tapped(&batch.ragged, &mut steps)
                .map(drop)
        })?;
        let steps = steps.0.iter();
        Ok(steps
            .map(|states| batch.padded(py, states, self.hidden_size()))
            .collect())
    }

    /// Columns of the hidden states.
    #[getter]
    fn hidden_size(&self) -> usize {
        self.network.spec().hidden_size
    }

    /// Whether tokens have positions that are looked up in a table.
    #[getter]
    fn looks_up_positions(&self) -> bool {
        self.network.spec().looks_up_positions()
    }

    /// Whether something depends on how many places lie between two tokens.
    #[getter]
    fn knows_distances(&self) -> bool {
        self.network.spec().knows_distances()
    }

    /// Bytes of parameters held in memory.
    #[getter]
    fn memory_bytes(&self) -> usize {
        self.network.memory_bytes()
    }
}

/// Keeps the residual stream after each step.
struct Steps(Vec<Vec<f32>>);

impl Tap for Steps {
    fn wants(&self, _site: &str) -> bool {
        false
    }

    fn see(&mut self, _site: &str, _rows: usize, _columns: usize, _values: &[f32]) {}

    fn see_hidden_states(&mut self, step: usize, _columns: usize, values: &[f32]) {
        // Blocks come in the order of the batch.
        self.0[step].extend_from_slice(values);
    }
}

/// The values of config.json's `model_type` of encoders that the executor runs.
#[pyfunction]
pub(crate) fn encoder_model_types() -> Vec<&'static str> {
    MODEL_TYPES.to_vec()
}

/// The weights of a directory that are not stored as floats, as floats: names of modules and arrays of the shape of their weights.
#[pyfunction]
pub(crate) fn dequantized_weights(
    py: Python<'_>,
    directory: PathBuf,
) -> PyResult<Vec<(String, Bound<'_, PyArray2<f32>>)>> {
    let weights = run(py, || {
        let checkpoint = open_checkpoint(&directory)?;
        let catalogue = Catalogue::of_checkpoint(&checkpoint)?;
        let mut weights = Vec::new();
        for module in catalogue.modules() {
            if !matches!(module.kind(), ModuleKind::Linear | ModuleKind::Table)
                || checkpoint.weight_tensor_names(&module.name).is_empty()
            {
                continue;
            }
            let stored = module.stored_weight(&checkpoint)?;
            if !matches!(stored, StoredWeight::Float(_)) {
                let values = stored.dequantize(module.shape)?;
                weights.push((module.name.clone(), module.shape, values));
            }
        }
        Ok::<_, ModelError>(weights)
    })?;
    let arrays = weights.into_iter().map(|(name, shape, values)| {
        let array = PyArray1::from_vec(py, values).reshape(shape)?;
        Ok((name, array))
    });
    arrays.collect()
}
