//! Layer normalization, and root mean square normalization (Zhang and Sennrich 2019), which is the same of values that are not centred.

use std::ops::Range;

use crate::generic::quantize_rows::{BLOCK_ROWS, quantize_block, rows_at_once};
use crate::generic::vector::{SquaredDistance, Value, add, sum};
use crate::quantized_rows::{QuantizedRows, RowScale};
use crate::row_operations::{Norm, NormKind};
use crate::simd::{LANES, Simd};

/// For each row: x = (x + residual), then `fma((x - mean) * (1 / sqrt(variance + epsilon)), gamma, beta)`.
///
/// [`NormKind::RootMeanSquare`] takes 0 for the mean. The variance is that of the centred values in a pass of its own: a mean that is large against the spread costs no accuracy.
pub(crate) struct LayerNorm<'a> {
    /// (rows, columns), in place.
    pub(crate) x: &'a mut [f32],
    /// (rows, columns)
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) norm: Norm<'a>,
}

#[inline(always)]
pub(crate) fn layer_norm<S: Simd>(s: S, mut call: LayerNorm<'_>) {
    let at_once = rows_at_once(call.norm.gamma.len());
    for first in (0..call.rows()).step_by(at_once) {
        let rows = at_once.min(call.rows() - first);
        call.normalize(s, first..first + rows);
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
    let at_once = rows_at_once(call.norm.gamma.len());
    let mut finite = true;
    for first in (0..call.rows()).step_by(at_once) {
        let rows = at_once.min(call.rows() - first);
        let x = call.normalize(s, first..first + rows);
        finite &= quantize_block(s, x, scale, out, first, rows);
    }
    finite
}

impl LayerNorm<'_> {
    fn rows(&self) -> usize {
        match self.norm.gamma.len() {
            0 => 0,
            columns => self.x.len() / columns,
        }
    }

    /// Normalizes some rows, at most [`BLOCK_ROWS`], and returns them.
    #[inline(always)]
    fn normalize<S: Simd>(&mut self, s: S, rows: Range<usize>) -> &[f32] {
        let Norm {
            kind,
            gamma,
            beta,
            epsilon,
        } = self.norm;
        let columns = gamma.len();
        let place = rows.start * columns..rows.end * columns;
        let x = &mut self.x[place.clone()];
        if let Some(residual) = self.residual {
            add(s, x, &residual[place]);
        }
        let (mut means, mut inverses) = ([0.0; BLOCK_ROWS], [0.0; BLOCK_ROWS]);
        if kind == NormKind::Layer {
            for (mean, row) in means.iter_mut().zip(x.chunks_exact(columns)) {
                *mean = sum(s, Value, row) / columns as f32;
            }
        }
        let statistics = inverses.iter_mut().zip(&means);
        for ((inverse, &center), row) in statistics.zip(x.chunks_exact(columns)) {
            let variance = sum(s, SquaredDistance { center }, row) / columns as f32;
            *inverse = 1.0 / (variance + epsilon).sqrt();
        }
        let statistics = means.iter().zip(&inverses);
        for ((&mean, &inverse), row) in statistics.zip(x.chunks_exact_mut(columns)) {
            scale_and_shift(s, row, mean, inverse, gamma, beta);
        }
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
