//! Quantization of activations, row by row.

use fewbit_numerics::activation::row_parameters;
use fewbit_numerics::affine::{AffineParameters, CodeRange};

use crate::quantized_rows::{QuantizedRows, RowScale};
use crate::simd::{LANES, Simd};

/// Quantizes every row of `x`, by the order of operations that [`fewbit_numerics::activation`] sets: the range and the codes are computed
/// here, the parameters there. Returns whether all elements are finite.
#[inline(always)]
pub(crate) fn quantize_rows<S: Simd>(
    s: S,
    x: &[f32],
    scale: RowScale,
    out: &mut QuantizedRows,
) -> bool {
    let columns = out.columns;
    let mut finite = true;
    for row in 0..out.rows {
        finite &= quantize_row(s, &x[row * columns..][..columns], scale, out, row);
    }
    finite
}

/// Quantizes `x` into row `row` of `out`. Returns whether all elements are finite.
#[inline(always)]
pub(crate) fn quantize_row<S: Simd>(
    s: S,
    x: &[f32],
    scale: RowScale,
    out: &mut QuantizedRows,
    row: usize,
) -> bool {
    let Range { min, max, finite } = range(s, x);
    let parameters = match scale {
        RowScale::PerToken(scheme) => row_parameters(min, max, scheme),
        RowScale::Static(parameters) => parameters,
    };
    out.scales[row] = parameters.scale;
    out.zero_points[row] = parameters.zero_point;
    Encoder::new(s, parameters).encode_row(s, x, out.row_mut(row));
    finite
}

struct Range {
    min: f32,
    max: f32,
    finite: bool,
}

/// Least and greatest element, zero included; NaN takes no part.
#[inline(always)]
fn range<S: Simd>(s: S, x: &[f32]) -> Range {
    let zero = s.splat(0.0);
    let mut least = [zero; 2];
    let mut greatest = [zero; 2];
    // Stays zero as long as every x is finite: infinity and NaN times zero are NaN.
    let mut zeros = [zero; 2];
    let (pairs, rest) = x.as_chunks::<{ 2 * LANES }>();
    for pair in pairs {
        let vectors = pair.as_chunks::<LANES>().0;
        for index in 0..2 {
            let x = s.load(&vectors[index]);
            least[index] = s.min(x, least[index]);
            greatest[index] = s.max(x, greatest[index]);
            zeros[index] = s.fma(x, zero, zeros[index]);
        }
    }
    for part in rest.chunks(LANES) {
        let x = s.load_up_to(part, 0.0);
        least[0] = s.min(x, least[0]);
        greatest[0] = s.max(x, greatest[0]);
        zeros[0] = s.fma(x, zero, zeros[0]);
    }
    Range {
        min: s.reduce_min(s.min(least[0], least[1])),
        max: s.reduce_max(s.max(greatest[0], greatest[1])),
        finite: s.reduce_sum(s.add(zeros[0], zeros[1])) == 0.0,
    }
}

/// The rounding rule with its constants in registers.
#[derive(Clone, Copy)]
pub(crate) struct Encoder<S: Simd> {
    inverse: S::F32,
    low: S::F32,
    high: S::F32,
    /// Negated.
    zero_point: S::I32,
}

impl<S: Simd> Encoder<S> {
    #[inline(always)]
    pub(crate) fn new(s: S, parameters: AffineParameters) -> Self {
        let zero_point = parameters.zero_point;
        Self {
            inverse: s.splat(parameters.inverse_scale()),
            low: s.splat((CodeRange::UINT8.min - zero_point) as f32),
            high: s.splat((CodeRange::UINT8.max - zero_point) as f32),
            zero_point: s.splat_i32(-zero_point),
        }
    }

    #[inline(always)]
    fn encode(&self, s: S, x: S::F32) -> S::I32 {
        // Both bounds are integers: clamping before the rounding gives the code of clamping after it.
        let clamped = s.min(s.max(s.mul(x, self.inverse), self.low), self.high);
        s.sub_i32(s.round_to_i32(clamped), self.zero_point)
    }

    /// Codes of the first `codes.len()` lanes, at most sixteen.
    #[inline(always)]
    pub(crate) fn encode_up_to(&self, s: S, x: S::F32, codes: &mut [u8]) {
        match codes.try_into() {
            Ok(whole) => s.store_u8(self.encode(s, x), whole),
            Err(_) => {
                let mut last = [0; LANES];
                s.store_u8(self.encode(s, x), &mut last);
                codes.copy_from_slice(&last[..codes.len()]);
            }
        }
    }

    #[inline(always)]
    fn encode_row(&self, s: S, x: &[f32], codes: &mut [u8]) {
        let (vectors, tail) = x.as_chunks::<LANES>();
        let (code_vectors, code_tail) = codes.as_chunks_mut::<LANES>();
        for (x, codes) in vectors.iter().zip(code_vectors) {
            s.store_u8(self.encode(s, s.load(x)), codes);
        }
        if !tail.is_empty() {
            self.encode_up_to(s, s.load_partial(tail, 0.0), code_tail);
        }
    }
}
