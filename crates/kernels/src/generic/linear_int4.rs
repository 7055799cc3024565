//! Products of quantized activations and int4 weights.
//!
//! A panel of codes is unpacked into the bytes that the int8 tile reads, once for all rows of a call, and stays in the second-level cache meanwhile. Where that is
//! written for the instruction set, the first tile of rows does it while it multiplies, and one that is alone keeps no bytes. Each group of columns gives exact sums of integers, which become floats, times the scale of the group.

use crate::aligned::Scratch;
use crate::generic::f32_tile::row_tiles;
use crate::generic::linear_int8::{IntegerProduct, Output, VectorEpilogue, multiply_into};
use crate::int8_tile::{
    CodeSource, FloatAccumulators, INT8_GROUP, INT8_LINE, INT8_TILE_ROWS, Int8Operands, Int8Tile,
    Prefetch, ScaledGroups,
};
use crate::packed_int4::PackedInt4;
use crate::panel_layout::INT4_PAIR;
use crate::quantized_rows::QuantizedRows;
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// `y(r, o) = fma(fma(-zero_point(r), correction(o), sum), scale_row(r), bias(o) or 0)`, where `sum` starts from 0 and takes `fma(f32(acc), scale(o, g), sum)` of
/// each group g in order, with `acc = sum over k in g of code(r, k) * (weight(o, k) - zero_point(o, g))`, exact in i32; and `correction(o)` is the same with 1 for
/// every code.
pub(crate) struct LinearInt4<'a> {
    /// (rows, in_features)
    pub(crate) x: &'a QuantizedRows,
    pub(crate) weight: &'a PackedInt4,
    /// (out_features)
    pub(crate) bias: Option<&'a [f32]>,
    /// Holds the prepared activations.
    pub(crate) activations: &'a mut Scratch,
    /// Holds an unpacked panel.
    pub(crate) panel: &'a mut Scratch,
}

#[inline(always)]
pub(crate) fn linear_int4<S: Simd, T: Int8Tile>(
    s: S,
    t: T,
    call: LinearInt4<'_>,
    output: Output<'_>,
) {
    multiply_into(s, Int4Product { t, call }, output);
}

/// The product of [`linear_int4`].
struct Int4Product<'a, T> {
    t: T,
    call: LinearInt4<'a>,
}

impl<S: Simd, T: Int8Tile> IntegerProduct<S> for Int4Product<'_, T> {
    #[inline(always)]
    fn multiply(self, s: S, columns: Range<usize>, epilogue: &mut impl VectorEpilogue<S>) {
        multiply(s, self.t, self.call, columns, epilogue);
    }
}

/// Computes the outputs `columns`, which are whole panels but for the last one, and passes them to `epilogue`.
#[inline(always)]
fn multiply<S: Simd, T: Int8Tile>(
    s: S,
    t: T,
    call: LinearInt4<'_>,
    columns: Range<usize>,
    epilogue: &mut impl VectorEpilogue<S>,
) {
    let LinearInt4 {
        x,
        weight,
        bias,
        activations,
        panel,
    } = call;
    let &PackedInt4 {
        group_size,
        groups,
        pairs,
        ref layout,
        ..
    } = weight;
    let Range { start, end } = columns;
    let panel_outputs = layout.vectors * LANES;
    assert!(end <= weight.out_features && start.is_multiple_of(panel_outputs));
    if x.rows == 0 {
        return;
    }
    let (codes, stride) = t.activations(x, activations);
    let planes = if T::WIDE { 1 } else { x.planes };
    let outputs = end.next_multiple_of(LANES) - start;
    let mut sums = FloatAccumulators::new();
    let lines = 2 * group_size.div_ceil(INT4_PAIR);
    for first in (0..outputs).step_by(panel_outputs) {
        let vectors_of_panel = panel_outputs.min(outputs - first) / LANES;
        let line = vectors_of_panel * INT8_LINE;
        let first_of_panel = (start + first) / LANES;
        let packed = &weight.codes[(start + first) * pairs * INT8_GROUP..][..pairs * line];
        let unpacked = panel.slice::<i8>(2 * pairs * line);
        if !T::READS_NIBBLES {
            unpack_panel(weight, first_of_panel, packed, unpacked);
        }
        let unpacked = unpacked.as_mut_ptr();
        let nibbles = packed.as_ptr().cast::<i8>();
        // What comes next is on its way while this panel is multiplied.
        let next = packed.as_ptr().wrapping_add(packed.len()).cast::<i8>();
        let tiles = || row_tiles(x.rows, INT8_TILE_ROWS / planes);
        let number_of_tiles = tiles().count();
        let share = (pairs * vectors_of_panel).div_ceil(number_of_tiles);
        let whole_panel = vectors_of_panel == T::VECTORS;
        for vector in (0..vectors_of_panel).step_by(T::VECTORS) {
            let vectors = T::VECTORS.min(vectors_of_panel - vector);
            let first_vector = first_of_panel + vector;
            for (tile, (row, rows)) in tiles().enumerate() {
                let rows_of_codes = &codes[row * planes * stride..][..rows * planes * stride];
                let prefetch = match vector {
                    0 if x.rows * planes >= T::PREFETCH_ROWS => Prefetch {
                        line: next.wrapping_add(tile * share * INT8_LINE),
                        rate: (share * 256).div_ceil((lines * groups).max(1)),
                    },
                    _ => Prefetch::NONE,
                };
                let offsets = match &weight.offsets {
                    Some(offsets) => offsets[first_vector * groups * INT8_LINE..].as_ptr(),
                    None => std::ptr::null(),
                };
                let (weights, source) = match tile {
                    _ if !T::READS_NIBBLES => (unpacked.cast_const(), CodeSource::Bytes),
                    0 if whole_panel && number_of_tiles > 1 => {
                        let bytes = unpacked;
                        (nibbles, CodeSource::KeptNibbles { offsets, bytes })
                    }
                    1.. if whole_panel => (unpacked.cast_const(), CodeSource::Bytes),
                    _ => (nibbles, CodeSource::Nibbles { offsets }),
                };
                let operands = ScaledGroups {
                    group: Int8Operands {
                        activations: rows_of_codes.as_ptr(),
                        stride,
                        rows: rows * planes,
                        weights: weights.wrapping_add(vector * INT8_LINE),
                        group_stride: line,
                        groups: lines,
                        vectors,
                        prefetch,
                    },
                    planes,
                    count: groups,
                    scales: weight.scales[first_vector * groups * LANES..].as_ptr(),
                    group_sums: match T::ACTIVATION_OFFSET {
                        0 => std::ptr::null(),
                        _ => weight.group_sums[first_vector * groups * LANES..].as_ptr(),
                    },
                    source,
                };
                // SAFETY: activations and panel were cut to the sizes that the tile reads: `count` groups of `lines` lines, which are all columns, padded
                // with zeros, or half as many lines of nibbles; there are as many vectors as the panel has from this one on, each with a scale, a sum and offsets for
                // every group where the tile reads these. The first tile stores bytes for all others of a whole panel.
                unsafe { t.multiply_groups(s, operands, &mut sums) };
                for vector in 0..vectors {
                    let column = (first_vector + vector) * LANES;
                    let count = LANES.min(end - column);
                    let correction = s.load(&weight.row_sums.as_chunks().0[first_vector + vector]);
                    let bias = match bias {
                        Some(bias) => s.load_up_to(&bias[column..column + count], 0.0),
                        None => s.splat(0.0),
                    };
                    for index in 0..rows {
                        let zero_point = s.splat(-(x.zero_points[row + index] as f32));
                        let sum = s.load(&sums.0[index][vector]);
                        let sum = s.fma(zero_point, correction, sum);
                        let value = s.fma(sum, s.splat(x.scales[row + index]), bias);
                        epilogue.apply(s, value, row + index, column - start, count);
                    }
                }
            }
        }
    }
}

/// The codes of a panel as bytes `nibble - offset`, in the order in which the tile reads them. `first_vector` is that of its first sixteen outputs.
#[inline(always)]
fn unpack_panel(weight: &PackedInt4, first_vector: usize, packed: &[u8], unpacked: &mut [i8]) {
    let (packed, _) = packed.as_chunks::<INT8_LINE>();
    let (unpacked, _) = unpacked.as_chunks_mut::<INT8_LINE>();
    let vectors = packed.len() / weight.pairs.max(1);
    let pairs = packed.chunks_exact(vectors.max(1));
    let unpacked = unpacked.chunks_exact_mut(2 * vectors.max(1));
    for (pair, (packed, unpacked)) in pairs.zip(unpacked).enumerate() {
        let (low, high) = unpacked.split_at_mut(vectors);
        let lines = packed.iter().zip(low).zip(high);
        match &weight.offsets {
            None => {
                for ((packed, low), high) in lines {
                    unpack(packed, &[8; INT8_LINE], low, high);
                }
            }
            Some(offsets) => {
                let group = pair * INT4_PAIR / weight.group_size;
                let (offsets, _) = offsets.as_chunks::<INT8_LINE>();
                let offsets = offsets[first_vector * weight.groups + group..].iter();
                let lines = lines.zip(offsets.step_by(weight.groups));
                for (((packed, low), high), offset) in lines {
                    unpack(packed, offset, low, high);
                }
            }
        }
    }
}

/// The low and the high nibbles less `offset`.
#[inline(always)]
fn unpack(
    packed: &[u8; INT8_LINE],
    offset: &[i8; INT8_LINE],
    low: &mut [i8; INT8_LINE],
    high: &mut [i8; INT8_LINE],
) {
    for (((&byte, &offset), low), high) in packed.iter().zip(offset).zip(low).zip(high) {
        *low = (byte & 15).cast_signed() - offset;
        *high = (byte >> 4).cast_signed() - offset;
    }
}
