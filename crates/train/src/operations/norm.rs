//! LayerNorm and RMSNorm.

use super::values::{slice, values};
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};
use fewbit_kernels::{Kernels, Norm, NormKind};
use fewbit_model::spec::NormSpec;

/// Rows of `x` (…, columns) normalized, times `weight` (columns) with the offset that `spec` says, plus `bias` (columns).
///
/// # Errors
/// Shapes that do not fit together.
pub(crate) fn normalize(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    spec: NormSpec,
    kernels: &'static Kernels,
) -> Result<Tensor> {
    let operation = Normalize {
        spec,
        has_bias: bias.is_some(),
        kernels,
    };
    let bias = match bias {
        Some(bias) => bias.contiguous()?,
        None => weight.detach().zeros_like()?,
    };
    x.contiguous()?
        .apply_op3(&weight.contiguous()?, &bias, operation)
}

/// Of x, a weight, and a bias, which is zeros where there is none.
struct Normalize {
    spec: NormSpec,
    has_bias: bool,
    kernels: &'static Kernels,
}

impl Normalize {
    /// The factors of the columns.
    fn gamma(&self, weight: &[f32]) -> Vec<f32> {
        let offset = self.spec.weight_offset;
        weight.iter().map(|weight| weight + offset).collect()
    }
}

impl CustomOp3 for Normalize {
    fn name(&self) -> &'static str {
        "normalize"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut out = slice(x, x_layout)?.to_vec();
        let gamma = self.gamma(slice(weight, weight_layout)?);
        let beta = slice(bias, bias_layout)?;
        let columns = x_layout.dims().last().copied().unwrap_or(0);
        if gamma.len() != columns || beta.len() != columns {
            candle_core::bail!(
                "a normalization of {} and {} columns for rows of {columns}",
                gamma.len(),
                beta.len()
            );
        }
        let norm = Norm {
            kind: self.spec.kind,
            gamma: &gamma,
            beta,
            epsilon: self.spec.epsilon,
        };
        self.kernels.layer_norm(&mut out, None, norm);
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    /// With n = (x - mean) / d, d = sqrt(variance + epsilon), and g the gradient of n, that of x is
    /// `(g - mean(g) - n * mean(g * n)) / d`; without a mean (RMSNorm) the second term falls away.
    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let shape = x.shape();
        let gradient = gradient.contiguous()?;
        let (x, gradient) = (values(x)?, values(&gradient)?);
        let gamma = self.gamma(&values(weight)?);
        let columns = gamma.len();
        let count = columns as f32;
        let centred = self.spec.kind == NormKind::Layer;
        let mut out = vec![0.0; x.len()];
        let (mut of_weight, mut of_bias) = (vec![0.0; columns], vec![0.0; columns]);
        let mut normal = vec![0.0; columns];
        let rows = x.chunks_exact(columns.max(1));
        let rows = rows.zip(gradient.chunks_exact(columns.max(1)));
        for ((x, gradient), out) in rows.zip(out.chunks_exact_mut(columns.max(1))) {
            let mean = if centred { sum(x) / count } else { 0.0 };
            for (normal, x) in normal.iter_mut().zip(x) {
                *normal = x - mean;
            }
            let variance = dot(&normal, &normal) / count;
            let inverse = 1.0 / (variance + self.spec.epsilon).sqrt();
            let columns = normal.iter_mut().zip(gradient).zip(&mut of_weight);
            for ((normal, gradient), of_weight) in columns {
                *normal *= inverse;
                *of_weight += *normal * gradient;
            }
            for (of_bias, gradient) in of_bias.iter_mut().zip(gradient) {
                *of_bias += gradient;
            }
            for ((out, gradient), gamma) in out.iter_mut().zip(gradient).zip(&gamma) {
                *out = gradient * gamma;
            }
            let mean = if centred { sum(out) / count } else { 0.0 };
            let along = dot(out, &normal) / count;
            for (out, normal) in out.iter_mut().zip(&normal) {
                *out = (*out - mean - normal * along) * inverse;
            }
        }
        let vector = |values| Tensor::from_vec(values, columns, &Device::Cpu);
        Ok((
            Some(Tensor::from_vec(out, shape, &Device::Cpu)?),
            Some(vector(of_weight)?),
            match self.has_bias {
                true => Some(vector(of_bias)?),
                false => None,
            },
        ))
    }
}

/// Sums that are added up beside one another, so that the compiler can use vectors.
const LANES: usize = 16;

fn sum(x: &[f32]) -> f32 {
    let (vectors, tail) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for vector in vectors {
        sums.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
    }
    sums.iter().sum::<f32>() + tail.iter().sum::<f32>()
}

fn dot(x: &[f32], y: &[f32]) -> f32 {
    let ((x, x_tail), (y, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (x, y) in x.iter().zip(y) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    let tail = x_tail.iter().zip(y_tail).map(|(x, y)| x * y);
    sums.iter().sum::<f32>() + tail.sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::finite_differences::{assert_gradients, random};

    #[test]
    fn gradients_are_those_of_differences() {
        let kernels = Kernels::from_environment().expect("kernels");
        for kind in [NormKind::Layer, NormKind::RootMeanSquare] {
            for (rows, columns) in [(3, 5), (2, 16), (1, 35)] {
                let spec = NormSpec {
                    kind,
                    epsilon: 0.01,
                    weight_offset: 1.0,
                };
                let inputs = [
                    random(&[rows, columns], 1),
                    random(&[columns], 2),
                    random(&[columns], 3),
                ];
                assert_gradients(&inputs, |inputs| {
                    normalize(&inputs[0], &inputs[1], Some(&inputs[2]), spec, kernels)
                });
                assert_gradients(&inputs[..2], |inputs| {
                    normalize(&inputs[0], &inputs[1], None, spec, kernels)
                });
            }
        }
    }

    #[test]
    fn rows_of_other_columns_are_an_error() {
        let kernels = Kernels::from_environment().expect("kernels");
        let (x, weight) = (random(&[2, 4], 1), random(&[3], 2));
        let result = normalize(&x, &weight, None, NormSpec::layer(1e-5), kernels);
        assert!(result.is_err());
    }
}
