//! A convolution by itself.

use crate::run::run;
use crate::stored_weight::WeightParts;
use fewbit::model::Windows;
use numpy::{PyReadonlyArray1, PyReadonlyArray4, PyReadwriteArray4, PyUntypedArrayMethods};
use pyo3::prelude::*;

/// A convolution by itself, packed for the kernels of this CPU. Channels are the last axis of everything.
#[pyclass(frozen, module = "fewbit._fewbit")]
pub(crate) struct Convolution {
    convolution: fewbit::model::Convolution,
}

#[pymethods]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
impl Convolution {
    /// Packs a weight (out, kernel height * kernel width * in / groups) of `channels` (in, out), and a bias (out).
    #[new]
    #[pyo3(signature = (weight, channels, groups, *, kernel, stride, dilation, padding, bias=None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a keyword of torch's convolutions"
    )]
    fn new(
        py: Python<'_>,
        weight: WeightParts<'_>,
        channels: [usize; 2],
        groups: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        padding: [[usize; 2]; 2],
        bias: Option<PyReadonlyArray1<'_, f32>>,
    ) -> PyResult<Self> {
        let stored = weight.stored()?;
        let bias = bias.as_ref().map(|bias| bias.as_slice()).transpose()?;
        let windows = Windows {
            kernel,
            stride,
            dilation,
            padding,
        };
        let convolution = run(py, || {
            fewbit::model::Convolution::new(&stored, bias, channels, groups, windows)
        })?;
        Ok(Self { convolution })
    }

    /// Writes the outputs (images, height, width, out) of `x` (images, height, width, in) to `y`, on no more than `threads` threads.
    fn forward(
        &self,
        py: Python<'_>,
        x: PyReadonlyArray4<'_, f32>,
        mut y: PyReadwriteArray4<'_, f32>,
        threads: usize,
    ) -> PyResult<()> {
        let &[images, height, width, _] = x.shape() else {
            unreachable!("an array of four axes")
        };
        let (x, y) = (x.as_slice()?, y.as_slice_mut()?);
        let images = [images, height, width];
        let threads = self.convolution.useful_threads(y.len(), threads);
        run(py, || self.convolution.forward_into(x, images, y, threads))
    }
}
