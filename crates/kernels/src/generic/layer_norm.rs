//! Layer normalization.

use crate::generic::quantize_rows::quantize_row;
use crate::generic::vector::{SquaredDistance, Value, add, sum};
use crate::quantized_rows::{QuantizedRows, RowScale};
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
pub(crate) fn layer_norm<S: Simd>(s: S, mut call: LayerNorm<'_>) {
    for row in 0..call.rows() {
        call.normalize(s, row);
    }
}

/// [`layer_norm`], and the rows that it gives quantized while they are in the cache. Returns whether all elements are finite.
#[inline(always)]
pub(crate) fn layer_norm_quantize<S: Simd>(
    s: S,
    mut call: LayerNorm<'_>,
    scale: RowScale,
    out: &mut QuantizedRows,
) -> bool {
    let mut finite = true;
    for row in 0..call.rows() {
        finite &= quantize_row(s, call.normalize(s, row), scale, out, row);
    }
    finite
}

impl LayerNorm<'_> {
    fn rows(&self) -> usize {
        match self.gamma.len() {
            0 => 0,
            columns => self.x.len() / columns,
        }
    }

    /// Normalizes a row and returns it.
    #[inline(always)]
    fn normalize<S: Simd>(&mut self, s: S, row: usize) -> &[f32] {
        let columns = self.gamma.len();
        let place = row * columns..(row + 1) * columns;
        let x = &mut self.x[place.clone()];
        if let Some(residual) = self.residual {
            add(s, x, &residual[place]);
        }
        let mean = sum(s, Value, x) / columns as f32;
        let variance = sum(s, SquaredDistance { center: mean }, x) / columns as f32;
        let inverse = 1.0 / (variance + self.epsilon).sqrt();
        scale_and_shift(s, x, mean, inverse, self.gamma, self.beta);
        x
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
