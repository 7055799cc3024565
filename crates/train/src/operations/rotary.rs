//! Rotation of queries and keys by their positions.

use super::values::{slice, values};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use fewbit_kernels::Kernels;
use std::sync::Arc;

/// Heads of `x` (tokens, columns), whole heads of `head_size`, turned by `turns` (tokens, head_size): cosines and then sines of each token.
///
/// # Errors
/// Shapes that do not fit together.
pub(crate) fn rotate(
    x: &Tensor,
    turns: &Arc<[f32]>,
    head_size: usize,
    kernels: &'static Kernels,
) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Rotate {
        turns: Arc::clone(turns),
        head_size,
        kernels,
    })
}

struct Rotate {
    turns: Arc<[f32]>,
    head_size: usize,
    kernels: &'static Kernels,
}

impl CustomOp1 for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        let size = self.head_size;
        if !columns.is_multiple_of(size.max(1)) || rows * size != self.turns.len() {
            let turns = self.turns.len();
            candle_core::bail!("{turns} turns of heads of {size} for {rows} rows of {columns}");
        }
        let mut out = slice(x, layout)?.to_vec();
        self.kernels.rotate(&mut out, columns, &self.turns, size);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    /// The other way round.
    fn bwd(&self, x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, columns) = x.dims2()?;
        let mut out = values(&gradient.contiguous()?)?.to_vec();
        let mut back = self.turns.to_vec();
        for turn in back.chunks_exact_mut(self.head_size.max(1)) {
            let sines = &mut turn[self.head_size / 2..];
            sines.iter_mut().for_each(|sine| *sine = -*sine);
        }
        self.kernels
            .rotate(&mut out, columns, &back, self.head_size);
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
        // Not the cosines and sines of any angles: the transpose is what counts.
        let turns = random(&[3, 6], 4).flatten_all().expect("a tensor");
        let turns: Arc<[f32]> = turns.to_vec1::<f32>().expect("floats").into();
        assert_gradients(&[random(&[3, 12], 1)], |inputs| {
            rotate(&inputs[0], &turns, 6, kernels)
        });
        assert!(rotate(&random(&[2, 12], 1), &turns, 6, kernels).is_err());
    }
}
