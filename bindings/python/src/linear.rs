//! A linear layer by itself.

use crate::run::run;
use crate::stored_weight::WeightParts;
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray2};
use pyo3::prelude::*;

/// A linear layer by itself, packed for the kernels of this CPU.
#[pyclass(frozen, module = "fewbit._fewbit")]
pub(crate) struct Linear {
    linear: fewbit::model::Linear,
}

#[pymethods]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
impl Linear {
    /// Packs a weight of `shape` (out, in), and a bias (out).
    #[new]
    #[pyo3(signature = (weight, shape, bias=None))]
    fn new(
        py: Python<'_>,
        weight: WeightParts<'_>,
        shape: [usize; 2],
        bias: Option<PyReadonlyArray1<'_, f32>>,
    ) -> PyResult<Self> {
        let stored = weight.stored()?;
        let bias = bias.as_ref().map(|bias| bias.as_slice()).transpose()?;
        let linear = run(py, || fewbit::model::Linear::new(stored, bias, shape))?;
        Ok(Self { linear })
    }

    /// Writes the outputs (rows, out) of `x` (rows, in) to `y`, on no more than `threads` threads.
    fn forward(
        &self,
        py: Python<'_>,
        x: PyReadonlyArray2<'_, f32>,
        mut y: PyReadwriteArray2<'_, f32>,
        threads: usize,
    ) -> PyResult<()> {
        let (x, y) = (x.as_slice()?, y.as_slice_mut()?);
        let [out, _] = self.linear.shape();
        let threads = self.linear.useful_threads(y.len() / out.max(1), threads);
        run(py, || self.linear.forward_into(x, y, threads))
    }
}
