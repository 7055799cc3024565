//! Queries, keys and values of attention as codes.
//!
//! All are symmetric with codes -127..=127: `scale = absmax / 127`, at least 2^-23, `code = round_ties_even(x * (1 / scale))`; the bits of
//! [`fewbit_numerics::affine::AffineParameters::symmetric`]. No code needs clamping, as x is at most absmax.

use std::ops::Range;

use fewbit_numerics::affine::MINIMUM_SCALE;

use crate::aligned::Scratch;
use crate::generic::vector::lane_maxima;
use crate::panel_layout::{INT8_GROUP, INT8_LINE, PanelLayout};
use crate::simd::{LANES, Simd};

/// The greatest code.
const MOST: f32 = 127.0;

/// Rows of numbers, cut into heads of whole vectors.
#[derive(Clone, Copy)]
pub(crate) struct HeadRows<'a> {
    pub(crate) numbers: &'a [f32],
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    pub(crate) heads: usize,
    /// Vectors of a head.
    pub(crate) parts: usize,
}

impl<'a> HeadRows<'a> {
    /// Rows whose heads have `head_size` features each, with zeros in `scratch` after those that do not fill the last vector.
    #[inline(always)]
    pub(crate) fn new(
        numbers: &'a [f32],
        stride: usize,
        rows: usize,
        [heads, head_size]: [usize; 2],
        scratch: &'a mut Scratch,
    ) -> Self {
        let parts = head_size.div_ceil(LANES);
        let padded_size = parts * LANES;
        let unpadded = Self {
            numbers,
            stride,
            rows,
            heads,
            parts,
        };
        if padded_size == head_size {
            return unpadded;
        }
        let padded = scratch.slice(rows * heads * padded_size);
        for (row, padded) in padded.chunks_exact_mut(heads * padded_size).enumerate() {
            let row = &numbers[row * stride..][..heads * head_size];
            let heads = row.chunks_exact(head_size);
            for (head, padded) in heads.zip(padded.chunks_exact_mut(padded_size)) {
                padded[..head_size].copy_from_slice(head);
                padded[head_size..].fill(0.0);
            }
        }
        Self {
            numbers: padded,
            stride: heads * padded_size,
            ..unpadded
        }
    }

    /// The vectors of a row, head by head.
    #[inline(always)]
    fn row(&self, row: usize) -> &'a [[f32; LANES]] {
        let row = &self.numbers[row * self.stride..][..self.heads * self.parts * LANES];
        row.as_chunks().0
    }
}

/// Scales of sixteen magnitudes, and their inverses.
#[inline(always)]
fn scales<S: Simd>(s: S, magnitudes: S::F32) -> (S::F32, S::F32) {
    let scale = s.div(magnitudes, s.splat(MOST));
    let scale = s.max(scale, s.splat(MINIMUM_SCALE));
    (scale, s.div(s.splat(1.0), scale))
}

#[inline(always)]
fn code<S: Simd>(s: S, x: S::F32, inverse: S::F32) -> S::I32 {
    s.round_to_i32(s.mul(x, inverse))
}

/// One scale for each row and head: fills `codes` (rows, heads, features) with the low bytes of the codes plus `offset`, and `scales_out`
/// (rows, heads).
#[inline(always)]
pub(crate) fn quantize_heads<S: Simd>(
    s: S,
    x: HeadRows<'_>,
    offset: i32,
    codes: &mut [u8],
    scales_out: &mut [f32],
) {
    // The usual sizes have loops of constant length.
    match x.parts {
        2 => quantize_parts(s, x, 2, offset, codes, scales_out),
        4 => quantize_parts(s, x, 4, offset, codes, scales_out),
        parts => quantize_parts(s, x, parts, offset, codes, scales_out),
    }
}

/// [`quantize_heads`] of heads of `parts` vectors.
#[inline(always)]
fn quantize_parts<S: Simd>(
    s: S,
    x: HeadRows<'_>,
    parts: usize,
    offset: i32,
    codes: &mut [u8],
    scales_out: &mut [f32],
) {
    let offset = s.splat_i32(offset);
    let code_rows = codes.chunks_exact_mut(x.heads * parts * LANES);
    let scale_rows = scales_out.chunks_exact_mut(x.heads);
    for (row, (codes, scales_out)) in (0..x.rows).zip(code_rows.zip(scale_rows)) {
        // Sixteen heads at a time, so that scales are computed in the lanes of a vector.
        let vectors = x.row(row).chunks(LANES * parts);
        let codes = codes.as_chunks_mut().0.chunks_mut(LANES * parts);
        for ((vectors, codes), scales_out) in vectors.zip(codes).zip(scales_out.chunks_mut(LANES)) {
            let mut magnitudes = [s.splat(0.0); LANES];
            for (head, greatest) in vectors.chunks_exact(parts).zip(&mut magnitudes) {
                for part in head {
                    *greatest = s.max(s.abs(s.load(part)), *greatest);
                }
            }
            let (scale, inverse) = scales(s, lane_maxima(s, magnitudes));
            s.store_up_to(scale, scales_out);
            let mut inverses = [0.0; LANES];
            s.store(inverse, &mut inverses);
            let heads = vectors
                .chunks_exact(parts)
                .zip(codes.chunks_exact_mut(parts));
            for ((head, codes), inverse) in heads.zip(inverses) {
                let inverse = s.splat(inverse);
                for (part, codes) in head.iter().zip(codes) {
                    let code = s.add_i32(code(s, s.load(part), inverse), offset);
                    s.store_low_bytes(code, codes);
                }
            }
        }
    }
}

/// Panels of the keys of one head. A group of four bytes is moved as if it were a number: of `codes` (tokens, heads * groups), those of the
/// head start at `start`, and `panels` has room for (tokens padded to sixteen) * groups. Keys beyond the last are zeros.
#[inline(always)]
pub(crate) fn pack_keys<S: Simd>(
    s: S,
    layout: PanelLayout,
    codes: &[f32],
    stride: usize,
    start: usize,
    groups: usize,
    panels: &mut [i8],
) {
    let tokens = codes.len() / stride;
    let outputs = tokens.next_multiple_of(LANES);
    for first in (0..tokens).step_by(LANES) {
        for group in (0..groups).step_by(LANES) {
            let count = LANES.min(groups - group);
            let mut rows = [s.splat(0.0); LANES];
            for (row, token) in rows.iter_mut().zip(first..tokens) {
                let start = token * stride + start + group;
                *row = s.load_up_to(&codes[start..start + count], 0.0);
            }
            for (group, column) in (group..groups).zip(s.transpose(rows)) {
                let line = line_mut(panels, layout.line(outputs, groups, first, group));
                s.store_bits(column, line);
                layout.order.arrange(line);
            }
        }
    }
}

#[inline(always)]
fn line_mut(panels: &mut [i8], start: usize) -> &mut [i8; INT8_LINE] {
    let line = &mut panels[start..start + INT8_LINE];
    line.try_into().expect("a line of sixteen outputs")
}

/// Panels of the values of all heads, one scale for each feature over all rows. `panels` holds (heads, segments, features, rows of the
/// segment) bytes, the rows padded to sixteen; `scales_out` and `inverses` (heads, features).
#[inline(always)]
pub(crate) fn pack_values<S: Simd>(
    s: S,
    layout: PanelLayout,
    x: HeadRows<'_>,
    panels: &mut [i8],
    scales_out: &mut [f32],
    inverses: &mut [f32],
) {
    let outputs = x.parts * LANES;
    let groups = x.rows.next_multiple_of(LANES) / INT8_GROUP;
    let scales_out = scales_out.as_chunks_mut::<LANES>().0;
    let inverses = inverses.as_chunks_mut::<LANES>().0;
    // Row by row, as they lie in memory.
    scales_out.fill([0.0; LANES]);
    for row in 0..x.rows {
        for (vector, greatest) in x.row(row).iter().zip(&mut *scales_out) {
            let magnitude = s.abs(s.load(vector));
            s.store(s.max(magnitude, s.load(greatest)), greatest);
        }
    }
    for (scales_out, inverse_out) in scales_out.iter_mut().zip(&mut *inverses) {
        let (scale, inverse) = scales(s, s.load(scales_out));
        s.store(scale, scales_out);
        s.store(inverse, inverse_out);
    }
    let nothing = &[][..];
    for group in 0..groups {
        let mut rows = [nothing; INT8_GROUP];
        for (vectors, row) in rows.iter_mut().zip(group * INT8_GROUP..x.rows) {
            *vectors = x.row(row);
        }
        let segment = value_segment(groups, group / SEGMENT_GROUPS);
        for (index, inverse) in inverses.iter().enumerate() {
            let inverse = s.load(inverse);
            let mut codes = [s.splat_i32(0); INT8_GROUP];
            for (codes, row) in codes.iter_mut().zip(rows) {
                if let Some(vector) = row.get(index) {
                    *codes = code(s, s.load(vector), inverse);
                }
            }
            let (head, part) = (index / x.parts, index % x.parts);
            let start = (head * groups + segment.start) * outputs * INT8_GROUP;
            let place = layout.line(outputs, segment.len(), part * LANES, group - segment.start);
            let line = line_mut(panels, start + place);
            s.store_i8_groups(codes, line);
            layout.order.arrange(line);
        }
    }
}

/// Groups of tokens whose products with values are summed in integers: of the codes of exponentials, which have sixteen bits, no more than 256
/// products fit in i32.
pub(crate) const SEGMENT_GROUPS: usize = 256 / INT8_GROUP;

/// The groups of segment `segment` of `groups` groups.
#[inline(always)]
pub(crate) fn value_segment(groups: usize, segment: usize) -> Range<usize> {
    let start = segment * SEGMENT_GROUPS;
    start..groups.min(start + SEGMENT_GROUPS)
}
