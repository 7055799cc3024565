//! Observers of a model that PyTorch runs, and what they decide.

use crate::calibration::backend as backend_named;
use crate::error::exception;
use crate::run::run;
use fewbit::quantize::calibration::{CalibrationStatistics, Sensitivity};
use fewbit::quantize::{QConfig, StaticInputs};
use numpy::{PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The observers of a backend, by the keys of `fewbit_quantize::QConfig`, as JSON.
#[pyfunction]
pub(crate) fn default_qconfig(backend: &str) -> PyResult<String> {
    serde_json::to_string(&backend_named(backend)?.qconfig()).map_err(exception)
}

/// What the inputs of layers have shown, layer by layer.
#[pyclass(frozen, module = "fewbit._fewbit")]
pub(crate) struct Calibration {
    qconfig: QConfig,
    statistics: Mutex<CalibrationStatistics>,
}

#[pymethods]
impl Calibration {
    /// Of a qconfig, and of the statistics that another one has collected, both as JSON.
    #[new]
    #[pyo3(signature = (qconfig, statistics=None))]
    fn new(qconfig: &str, statistics: Option<&str>) -> PyResult<Self> {
        let qconfig: QConfig = serde_json::from_str(qconfig).map_err(exception)?;
        let statistics = match statistics {
            Some(json) => serde_json::from_str(json).map_err(exception)?,
            None => CalibrationStatistics::of_another_engine(qconfig.activation()),
        };
        Ok(Self {
            qconfig,
            statistics: Mutex::new(statistics),
        })
    }

    /// Takes in rows (rows, columns) of the input of a layer.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a borrow of an array is what Python gives"
    )]
    fn observe(
        &self,
        py: Python<'_>,
        layer: &str,
        values: PyReadonlyArray2<'_, f32>,
    ) -> PyResult<()> {
        let columns = values.shape()[1];
        let values = values.as_slice().map_err(exception)?;
        run(py, || self.lock().observe(layer, columns, values))
    }

    /// How inputs are quantized, as the keys of a recipe, and what one range costs at each of them; as JSON. `backend` says which inputs do
    /// without one range.
    fn decide(&self, py: Python<'_>, backend: &str) -> PyResult<String> {
        let backend = backend_named(backend)?;
        let decided = run(py, || {
            let statistics = self.lock();
            let sensitivity = Sensitivity::new(&statistics)?;
            let least = backend.least_sqnr_db();
            let inputs = sensitivity.static_inputs(&statistics, backend, least)?;
            Ok::<_, fewbit::QuantizeError>((inputs, sensitivity.sites().to_vec()))
        })?;
        let (
            StaticInputs {
                scales,
                reduce_range,
                ..
            },
            sites,
        ) = decided;
        let decided = serde_json::json!({
            "static_inputs": scales,
            "weight_scales": self.qconfig.weight_scales(),
            "reduce_range": reduce_range,
            "sites": sites,
        });
        Ok(decided.to_string())
    }

    /// The names of the layers that were seen.
    fn layers(&self) -> Vec<String> {
        self.lock().sites().map(str::to_owned).collect()
    }

    /// What was collected, as JSON.
    fn statistics(&self) -> PyResult<String> {
        serde_json::to_string(&*self.lock()).map_err(exception)
    }
}

impl Calibration {
    fn lock(&self) -> MutexGuard<'_, CalibrationStatistics> {
        // An update that panicked has left what was collected before it.
        self.statistics
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
