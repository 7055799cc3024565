//! Per-token quantization.

use fewbit_numerics::activation::{ActivationScheme, row_parameters};
use fewbit_numerics::affine::{AffineParameters, CodeRange};

use crate::quantized_rows::QuantizedRows;
use crate::simd::{LANES, Simd};

/// Quantizes every row of `x`, by the order of operations that [`fewbit_numerics::activation`] sets: the range and the codes are computed
/// here, the parameters there.
#[inline(always)]
pub(crate) fn quantize_rows<S: Simd>(
    s: S,
    x: &[f32],
    scheme: ActivationScheme,
    out: &mut QuantizedRows,
) {
    let columns = out.columns;
    for row in 0..out.rows {
        let x = &x[row * columns..][..columns];
        let (min, max) = range(s, x);
        let parameters = row_parameters(min, max, scheme);
        out.scales[row] = parameters.scale;
        out.zero_points[row] = parameters.zero_point;
        encode(s, parameters, x, &mut out.codes[row * columns..][..columns]);
    }
}

/// Least and greatest element, zero included; NaN takes no part.
#[inline(always)]
fn range<S: Simd>(s: S, x: &[f32]) -> (f32, f32) {
    let mut least = [s.splat(0.0); 2];
    let mut greatest = [s.splat(0.0); 2];
    let (pairs, rest) = x.as_chunks::<{ 2 * LANES }>();
    for pair in pairs {
        let vectors = pair.as_chunks::<LANES>().0;
        for index in 0..2 {
            let x = s.load(&vectors[index]);
            least[index] = s.min(x, least[index]);
            greatest[index] = s.max(x, greatest[index]);
        }
    }
    for part in rest.chunks(LANES) {
        let x = s.load_up_to(part, 0.0);
        least[0] = s.min(x, least[0]);
        greatest[0] = s.max(x, greatest[0]);
    }
    (
        s.reduce_min(s.min(least[0], least[1])),
        s.reduce_max(s.max(greatest[0], greatest[1])),
    )
}

#[inline(always)]
fn encode<S: Simd>(s: S, parameters: AffineParameters, x: &[f32], codes: &mut [u8]) {
    let zero_point = parameters.zero_point;
    let encoder = Encoder {
        s,
        inverse: s.splat(parameters.inverse_scale()),
        low: s.splat((CodeRange::UINT8.min - zero_point) as f32),
        high: s.splat((CodeRange::UINT8.max - zero_point) as f32),
        zero_point: s.splat_i32(-zero_point),
    };
    let (vectors, tail) = x.as_chunks::<LANES>();
    let (code_vectors, code_tail) = codes.as_chunks_mut::<LANES>();
    for (x, codes) in vectors.iter().zip(code_vectors) {
        s.store_u8(encoder.encode(s.load(x)), codes);
    }
    if !tail.is_empty() {
        let mut last = [0; LANES];
        s.store_u8(encoder.encode(s.load_partial(tail, 0.0)), &mut last);
        code_tail.copy_from_slice(&last[..tail.len()]);
    }
}

/// The rounding rule with its constants in registers.
struct Encoder<S: Simd> {
    s: S,
    inverse: S::F32,
    low: S::F32,
    high: S::F32,
    /// Negated.
    zero_point: S::I32,
}

impl<S: Simd> Encoder<S> {
    #[inline(always)]
    fn encode(&self, x: S::F32) -> S::I32 {
        let s = self.s;
        let rounded = s.round_ties_even(s.mul(x, self.inverse));
        let clamped = s.min(s.max(rounded, self.low), self.high);
        s.sub_i32(s.truncate(clamped), self.zero_point)
    }
}
