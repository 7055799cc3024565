//! Softmax of rows.

use super::exponentials::exponentials_of_halves;
use super::values::{slice, values};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use fewbit_kernels::Kernels;

/// The softmax of each row of `x` (…, columns).
///
/// # Errors
/// `x` is not f32.
pub(crate) fn softmax(x: &Tensor, kernels: &'static Kernels) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Softmax { kernels })
}

struct Softmax {
    kernels: &'static Kernels,
}

/// Rows of `columns` numbers become their softmax. Minus infinity becomes 0, unless a row has nothing else.
pub(super) fn softmax_rows(x: &mut [f32], columns: usize, kernels: &Kernels) {
    for row in x.chunks_exact_mut(columns.max(1)) {
        let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|x| *x = 0.5 * (*x - greatest));
    }
    exponentials_of_halves(x, kernels);
    for row in x.chunks_exact_mut(columns.max(1)) {
        let inverse = 1.0 / row.iter().sum::<f32>();
        row.iter_mut().for_each(|x| *x *= inverse);
    }
}

/// The gradients of the results of [`softmax_rows`] become those of what went in: with p the results and g their gradients,
/// `p * (g - sum of p * g)` times `scale`.
pub(super) fn softmax_gradients(
    results: &[f32],
    gradients: &mut [f32],
    columns: usize,
    scale: f32,
) {
    let columns = columns.max(1);
    let rows = gradients
        .chunks_exact_mut(columns)
        .zip(results.chunks_exact(columns));
    for (gradients, results) in rows {
        let products = gradients.iter().zip(results).map(|(g, p)| g * p);
        let sum = products.sum::<f32>();
        for (g, p) in gradients.iter_mut().zip(results) {
            *g = (*g - sum) * p * scale;
        }
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = slice(x, layout)?.to_vec();
        let columns = layout.dims().last().copied().unwrap_or(0);
        softmax_rows(&mut out, columns, self.kernels);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let mut out = values(&gradient.contiguous()?)?.to_vec();
        let columns = x.dims().last().copied().unwrap_or(0);
        softmax_gradients(&values(result)?, &mut out, columns, 1.0);
        Ok(Some(Tensor::from_vec(out, x.shape(), &Device::Cpu)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::finite_differences::{assert_gradients, random};

    #[test]
    fn gradients_are_those_of_differences() {
        let kernels = Kernels::from_environment().expect("kernels");
        for columns in [1, 2, 9] {
            assert_gradients(&[random(&[2, 3, columns], 1)], |inputs| {
                softmax(&inputs[0], kernels)
            });
        }
    }
}
