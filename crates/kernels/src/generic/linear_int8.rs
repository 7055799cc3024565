//! Products of quantized activations and int8 weights.

use crate::aligned::Scratch;
use crate::generic::float_tile::row_tiles;
use crate::packed_int8::PackedInt8;
use crate::quantized_rows::QuantizedRows;
use crate::simd::{INT8_GROUP, INT8_TILE_ROWS, Int8Tile, LANES};

/// `out(r, o) = fma(f32(acc), scale_row(r) * scale_channel(o), bias(o) or 0)` with
/// `acc = sum over k of code(r, k) * weight(o, k) - zero_point(r) * sum over k of weight(o, k)`, exact in i32.
pub(crate) struct LinearInt8<'a> {
    /// (rows, in_features)
    pub(crate) x: &'a QuantizedRows,
    pub(crate) weight: &'a PackedInt8,
    /// (out_features)
    pub(crate) bias: Option<&'a [f32]>,
    /// (rows, out_features)
    pub(crate) out: &'a mut [f32],
    /// Holds the prepared activations.
    pub(crate) scratch: &'a mut Scratch,
}

/// Panels outside, row tiles inside. The codes of the activations are brought into the form that the tile reads once a call.
#[inline(always)]
pub(crate) fn linear_int8<S: Int8Tile>(s: S, call: LinearInt8<'_>) {
    let LinearInt8 {
        x,
        weight,
        bias,
        out,
        scratch,
    } = call;
    if x.rows == 0 {
        return;
    }
    let groups = weight.groups;
    let stride = groups * INT8_GROUP;
    let activations = scratch.slice::<S::Activation>(x.rows * stride);
    if stride > 0 {
        let prepared = activations.chunks_exact_mut(stride);
        for (row, prepared) in prepared.enumerate() {
            let codes = &x.codes[row * x.columns..][..x.columns];
            s.prepare_activations(codes, prepared);
        }
    }
    let activations: &[S::Activation] = activations;

    let mut accumulators = [[0; LANES]; INT8_TILE_ROWS];
    let scales = weight.scales.as_chunks::<LANES>().0;
    let row_sums = weight.row_sums.as_chunks::<LANES>().0;
    for (panel, (scales, row_sums)) in scales.iter().zip(row_sums).enumerate() {
        let codes = &weight.codes[panel * stride * LANES..][..stride * LANES];
        let first = panel * LANES;
        let columns = LANES.min(weight.out_features - first);
        let bias = match bias {
            Some(bias) => s.load_up_to(&bias[first..first + columns], 0.0),
            None => s.splat(0.0),
        };
        let channel_scales = s.load(scales);
        let row_sums = s.load_i32(row_sums);
        for (row, rows) in row_tiles(x.rows) {
            let activations = &activations[row * stride..][..rows * stride];
            // SAFETY: both slices were cut to the sizes that the tile reads, and panels are whole cache lines.
            unsafe {
                s.int8_tile(
                    activations.as_ptr(),
                    stride,
                    rows,
                    codes.as_ptr(),
                    groups,
                    &mut accumulators,
                );
            }
            for (row, sums) in (row..row + rows).zip(&accumulators) {
                let zero_point = s.splat_i32(x.zero_points[row]);
                let sums = s.sub_i32(s.load_i32(sums), s.mul_i32(zero_point, row_sums));
                let scale = s.mul(s.splat(x.scales[row]), channel_scales);
                let value = s.fma(s.to_f32(sums), scale, bias);
                let start = row * weight.out_features + first;
                s.store_up_to(value, &mut out[start..start + columns]);
            }
        }
    }
}
