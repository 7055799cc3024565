//! int8 codes of groups of elements with a symmetric scale, and back. The formulas are those of [`fewbit_numerics::rows`], bit for bit.

use fewbit_numerics::affine::CodeRange;
use fewbit_numerics::rows::row_scale;

use crate::float_bytes::Elements;
use crate::generic::group_absmax::{absmax_lanes, is_finite};
use crate::generic::panel_element::PanelElement;
use crate::simd::{LANES, Simd};

/// Elements that become codes together.
const LINE: usize = 4 * LANES;

/// Floats to quantize, and where codes and scales go.
pub(crate) struct QuantizeInt8<'a, E> {
    pub(crate) source: Elements<'a, E>,
    pub(crate) group_size: usize,
    pub(crate) codes: &'a mut [i8],
    pub(crate) scales: GroupScales<'a>,
}

/// Where the scales come from.
pub(crate) enum GroupScales<'a> {
    /// From the largest magnitude of each group: they go here.
    OfEachGroup(&'a mut [f32]),
    /// All groups have this one.
    Given(f32),
}

/// Codes to dequantize, and where the floats go.
pub(crate) struct DequantizeInt8<'a> {
    pub(crate) codes: &'a [i8],
    pub(crate) scales: &'a [f32],
    pub(crate) group_size: usize,
    pub(crate) out: &'a mut [f32],
}

/// Quantizes groups, of which the last may be short. Returns whether all elements are finite; otherwise the results mean nothing.
#[inline(always)]
pub(crate) fn quantize<S: Simd, E: PanelElement>(s: S, call: QuantizeInt8<'_, E>) -> bool {
    let QuantizeInt8 {
        source,
        group_size,
        codes,
        scales,
    } = call;
    let mut largest = s.splat(0.0);
    match scales {
        GroupScales::OfEachGroup(scales) => {
            for (group, scale) in scales.iter_mut().enumerate() {
                let start = group * group_size;
                let end = source.len().min(start.saturating_add(group_size));
                let elements = source.range(start..end);
                let lanes = absmax_lanes(s, elements);
                largest = s.max_magnitude(largest, lanes);
                *scale = row_scale(s.reduce_max(lanes));
                encode(s, elements, *scale, &mut codes[start..end]);
            }
        }
        GroupScales::Given(scale) => {
            largest = absmax_lanes(s, source);
            encode(s, source, scale, codes);
        }
    }
    is_finite(s, largest)
}

/// The codes of elements that share a scale.
#[inline(always)]
fn encode<S: Simd, E: PanelElement>(s: S, elements: Elements<'_, E>, scale: f32, codes: &mut [i8]) {
    let inverse = s.splat(1.0 / scale);
    let low = s.splat(CodeRange::INT8.min as f32);
    let high = s.splat(CodeRange::INT8.max as f32);
    let (lines, rest) = codes.as_chunks_mut::<LINE>();
    for (line, codes) in lines.iter_mut().enumerate() {
        let mut rounded = [s.splat_i32(0); 4];
        for (index, rounded) in rounded.iter_mut().enumerate() {
            let x = elements.vector(s, line * LINE + index * LANES);
            // Both bounds are integers: clamping before the rounding gives the code of clamping after it.
            let clamped = s.min(s.max(s.mul(x, inverse), low), high);
            *rounded = s.round_to_i32(clamped);
        }
        s.store_i8_saturated(rounded, codes);
    }
    if !rest.is_empty() {
        let mut rounded = [s.splat_i32(0); 4];
        let first = elements.len() - rest.len();
        for (index, rounded) in rounded.iter_mut().enumerate() {
            let x = elements.vector_up_to(s, first + index * LANES);
            let clamped = s.min(s.max(s.mul(x, inverse), low), high);
            *rounded = s.round_to_i32(clamped);
        }
        let mut last = [0; LINE];
        s.store_i8_saturated(rounded, &mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// `code * scale`, one rounding.
#[inline(always)]
pub(crate) fn dequantize<S: Simd>(s: S, call: DequantizeInt8<'_>) {
    let DequantizeInt8 {
        codes,
        scales,
        group_size,
        out,
    } = call;
    let groups = out.chunks_mut(group_size).zip(codes.chunks(group_size));
    for ((out, codes), &scale) in groups.zip(scales) {
        let scale = s.splat(scale);
        let (lines, rest) = out.as_chunks_mut::<LANES>();
        let (vectors, last) = codes.as_chunks::<LANES>();
        for (line, codes) in lines.iter_mut().zip(vectors) {
            s.store(s.mul(s.load_i8(codes), scale), line);
        }
        if !rest.is_empty() {
            let mut padded = [0; LANES];
            padded[..last.len()].copy_from_slice(last);
            s.store_partial(s.mul(s.load_i8(&padded), scale), rest);
        }
    }
}
