//! The means of the rows of sequences.

use super::values::{slice, values};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use fewbit_model::pooling::{Pooling, PoolingMode};
use std::sync::Arc;

/// The mean of the rows of `x` (rows, columns) of each sequence, with the bits of [`Pooling`]: (sequences, columns). Sequence i is the rows
/// `offsets[i]..offsets[i + 1]`, of which there is one at least.
///
/// # Errors
/// `x` is not f32.
pub(crate) fn sequence_means(x: &Tensor, offsets: &Arc<[usize]>) -> Result<Tensor> {
    let offsets = Arc::clone(offsets);
    x.contiguous()?.apply_op1(SequenceMeans { offsets })
}

struct SequenceMeans {
    offsets: Arc<[usize]>,
}

impl CustomOp1 for SequenceMeans {
    fn name(&self) -> &'static str {
        "means of sequences"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, columns) = layout.shape().dims2()?;
        let x = slice(x, layout)?;
        let mean = Pooling::from(PoolingMode::Mean);
        let sequences = self.offsets.len().saturating_sub(1);
        let mut out = vec![0.0; sequences * columns];
        let rows = self.offsets.windows(2);
        for (pair, out) in rows.zip(out.chunks_exact_mut(columns.max(1))) {
            mean.pool(&x[pair[0] * columns..pair[1] * columns], columns, out);
        }
        Ok((CpuStorage::F32(out), (sequences, columns).into()))
    }

    fn bwd(&self, x: &Tensor, _means: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (rows, columns) = x.dims2()?;
        let gradient = gradient.contiguous()?;
        let gradient = values(&gradient)?;
        let mut out = Vec::with_capacity(rows * columns);
        let sequences = self.offsets.windows(2);
        for (pair, gradient) in sequences.zip(gradient.chunks_exact(columns.max(1))) {
            let rows = pair[1] - pair[0];
            let share: Vec<f32> = gradient.iter().map(|value| value / rows as f32).collect();
            (0..rows).for_each(|_| out.extend_from_slice(&share));
        }
        Ok(Some(Tensor::from_vec(out, (rows, columns), &Device::Cpu)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::finite_differences::{assert_gradients, random};

    #[test]
    fn means_and_their_gradients() -> Result<()> {
        let offsets: Arc<[usize]> = [0, 1, 4].into();
        let x = Tensor::new(
            &[[1f32, 2.0], [0.0, 3.0], [1.0, 3.0], [5.0, 6.0]],
            &Device::Cpu,
        )?;
        let means = sequence_means(&x, &offsets)?;
        assert_eq!(means.to_vec2::<f32>()?, [[1.0, 2.0], [2.0, 4.0]]);
        assert_gradients(&[random(&[4, 3], 1)], |inputs| {
            sequence_means(&inputs[0], &offsets)
        });
        Ok(())
    }
}
