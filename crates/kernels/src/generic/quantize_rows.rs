//! Quantization of activations, row by row.

use fewbit_numerics::activation::{TWELVE_BIT_CODES, row_parameters, twelve_bit_row_parameters};
use fewbit_numerics::affine::{AffineParameters, CodeRange};

use crate::quantized_rows::{QuantizedRows, RowScale};
use crate::simd::{LANES, Simd};

/// Bytes of the rows that go through a pass together: they stay in the first-level cache until the next one.
const BLOCK_BYTES: usize = 24 << 10;

/// The most rows that go through a pass together.
pub(crate) const BLOCK_ROWS: usize = 8;

/// How many rows of `columns` go through a pass together: the reductions at the end of a row are chains of operations that wait for one another,
/// and those of several rows do so at the same time.
#[inline(always)]
pub(crate) fn rows_at_once(columns: usize) -> usize {
    (BLOCK_BYTES / size_of::<f32>() / columns.max(1)).clamp(1, BLOCK_ROWS)
}

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
    for first in (0..out.rows).step_by(rows_at_once(columns)) {
        let rows = rows_at_once(columns).min(out.rows - first);
        let x = &x[first * columns..][..rows * columns];
        finite &= quantize_block(s, x, scale, out, first, rows);
    }
    finite
}

/// Quantizes `x` (rows, columns), at most [`BLOCK_ROWS`] rows, into the rows of `out` from `first` on. Returns whether all elements are finite.
#[inline(always)]
pub(crate) fn quantize_block<S: Simd>(
    s: S,
    x: &[f32],
    scale: RowScale,
    out: &mut QuantizedRows,
    first: usize,
    rows: usize,
) -> bool {
    let columns = out.columns;
    let row = |index: usize| &x[index * columns..][..columns];
    match scale {
        RowScale::Static(parameters) => {
            out.scales[first..first + rows].fill(parameters.scale);
            out.zero_points[first..first + rows].fill(parameters.zero_point);
            let encoder = Encoder::new(s, parameters);
            let mut zeros = s.splat(0.0);
            for index in 0..rows {
                let codes = out.row_mut(first + index);
                zeros = encoder.encode_row::<true>(s, row(index), codes, zeros);
            }
            s.reduce_sum(zeros) == 0.0
        }
        RowScale::PerToken(_) | RowScale::PerTokenTwelveBit => {
            let mut ranges = [Range::default(); BLOCK_ROWS];
            for (index, range) in ranges.iter_mut().enumerate().take(rows) {
                *range = range_of(s, row(index));
            }
            for (index, range) in ranges.iter().enumerate().take(rows) {
                let Range { min, max, .. } = *range;
                let parameters = match scale {
                    RowScale::PerToken(scheme) => row_parameters(min, max, scheme),
                    _ => twelve_bit_row_parameters(min, max),
                };
                out.scales[first + index] = parameters.scale;
                out.zero_points[first + index] = parameters.zero_point;
                if let RowScale::PerTokenTwelveBit = scale {
                    let encoder = Encoder::over(s, parameters, TWELVE_BIT_CODES);
                    let (high, low) = out.planes_mut(first + index);
                    encoder.encode_planes(s, row(index), high, low);
                } else {
                    let (codes, zeros) = (out.row_mut(first + index), s.splat(0.0));
                    Encoder::new(s, parameters).encode_row::<false>(s, row(index), codes, zeros);
                }
            }
            ranges.iter().take(rows).all(|range| range.finite)
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Range {
    min: f32,
    max: f32,
    finite: bool,
}

/// Least and greatest element, zero included; NaN takes no part.
#[inline(always)]
fn range_of<S: Simd>(s: S, x: &[f32]) -> Range {
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
        Self::over(s, parameters, CodeRange::UINT8)
    }

    #[inline(always)]
    fn over(s: S, parameters: AffineParameters, codes: CodeRange) -> Self {
        let zero_point = parameters.zero_point;
        Self {
            inverse: s.splat(parameters.inverse_scale()),
            low: s.splat((codes.min - zero_point) as f32),
            high: s.splat((codes.max - zero_point) as f32),
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
            Ok(vector) => s.store_u8(self.encode(s, x), vector),
            Err(_) => {
                let mut last = [0; LANES];
                s.store_u8(self.encode(s, x), &mut last);
                codes.copy_from_slice(&last[..codes.len()]);
            }
        }
    }

    /// High and low bytes of the codes of a row.
    #[inline(always)]
    fn encode_planes(&self, s: S, x: &[f32], high: &mut [u8], low: &mut [u8]) {
        let (vectors, rest) = x.as_chunks::<LANES>();
        let (high, high_rest) = high.as_chunks_mut::<LANES>();
        let (low, low_rest) = low.as_chunks_mut::<LANES>();
        for ((x, high), low) in vectors.iter().zip(high).zip(low) {
            s.store_u16_planes(self.encode(s, s.load(x)), low, high);
        }
        if !rest.is_empty() {
            let (mut high, mut low) = ([0; LANES], [0; LANES]);
            let x = s.load_partial(rest, 0.0);
            s.store_u16_planes(self.encode(s, x), &mut low, &mut high);
            high_rest.copy_from_slice(&high[..rest.len()]);
            low_rest.copy_from_slice(&low[..rest.len()]);
        }
    }

    /// The codes of a row. `ANY`: of any numbers, and x * 0 is added to `zeros`, which stays zero as long as every x is finite. Otherwise of
    /// numbers whose products with the inverse scale are far from the ends of i32: clamping then comes with the packing into bytes.
    #[inline(always)]
    fn encode_row<const ANY: bool>(
        &self,
        s: S,
        x: &[f32],
        codes: &mut [u8],
        mut zeros: S::F32,
    ) -> S::F32 {
        let zero = s.splat(0.0);
        let (fours, rest) = x.as_chunks::<{ 4 * LANES }>();
        let (code_fours, code_rest) = codes.as_chunks_mut::<{ 4 * LANES }>();
        for (x, codes) in fours.iter().zip(code_fours) {
            let mut vectors = [self.zero_point; 4];
            for (vector, x) in vectors.iter_mut().zip(x.as_chunks::<LANES>().0) {
                let x = s.load(x);
                *vector = if ANY {
                    zeros = s.fma(x, zero, zeros);
                    self.encode(s, x)
                } else {
                    let rounded = s.round_to_i32(s.mul(x, self.inverse));
                    s.sub_i32(rounded, self.zero_point)
                };
            }
            s.store_u8_saturated(vectors, codes);
        }
        for (x, codes) in rest.chunks(LANES).zip(code_rest.chunks_mut(LANES)) {
            let x = s.load_up_to(x, 0.0);
            if ANY {
                zeros = s.fma(x, zero, zeros);
            }
            self.encode_up_to(s, x, codes);
        }
        zeros
    }
}
