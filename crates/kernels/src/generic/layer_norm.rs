//! Layer normalization.

use crate::generic::vector::{SquaredDistance, Value, add, sum};
use crate::simd::{LANES, Simd};

/// For each row: x = (x + residual), then `fma((x - mean) * (1 / sqrt(variance + epsilon)), gamma, beta)`.
///
/// The variance is that of the centred values in a pass of its own: a mean that is large against the spread costs no accuracy.
pub(crate) struct LayerNorm<'a> {
    /// (rows, columns), in place.
    pub(crate) x: &'a mut [f32],
    /// (rows, columns)
    pub(crate) residual: Option<&'a [f32]>,
    /// (columns)
    pub(crate) gamma: &'a [f32],
    /// (columns)
    pub(crate) beta: &'a [f32],
    pub(crate) epsilon: f32,
}

#[inline(always)]
pub(crate) fn layer_norm<S: Simd>(s: S, call: LayerNorm<'_>) {
    let LayerNorm {
        x,
        residual,
        gamma,
        beta,
        epsilon,
    } = call;
    let columns = gamma.len();
    if columns == 0 {
        return;
    }
    for (index, row) in x.chunks_exact_mut(columns).enumerate() {
        if let Some(residual) = residual {
            add(s, row, &residual[index * columns..][..columns]);
        }
        let mean = sum(s, Value, row) / columns as f32;
        let variance = sum(s, SquaredDistance { center: mean }, row) / columns as f32;
        let inverse = 1.0 / (variance + epsilon).sqrt();
        scale_and_shift(s, row, mean, inverse, gamma, beta);
    }
}

#[inline(always)]
fn scale_and_shift<S: Simd>(
    s: S,
    row: &mut [f32],
    mean: f32,
    inverse: f32,
    gamma: &[f32],
    beta: &[f32],
) {
    let (mean, inverse) = (s.splat(mean), s.splat(inverse));
    let (vectors, tail) = row.as_chunks_mut::<LANES>();
    let (gammas, gamma_tail) = gamma.as_chunks::<LANES>();
    let (betas, beta_tail) = beta.as_chunks::<LANES>();
    for ((x, gamma), beta) in vectors.iter_mut().zip(gammas).zip(betas) {
        let normal = s.mul(s.sub(s.load(x), mean), inverse);
        s.store(s.fma(normal, s.load(gamma), s.load(beta)), x);
    }
    if !tail.is_empty() {
        let normal = s.mul(s.sub(s.load_partial(tail, 0.0), mean), inverse);
        let gamma = s.load_partial(gamma_tail, 0.0);
        let beta = s.load_partial(beta_tail, 0.0);
        s.store_partial(s.fma(normal, gamma, beta), tail);
    }
}
