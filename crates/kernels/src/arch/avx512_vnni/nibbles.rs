//! The tile of int4 weights: nibbles become bytes in registers, on their way to `vpdpbusd`.
//!
//! Where several tiles of rows read the same panel, the first one also stores the bytes, for the others. It has the time: loads, stores and masks run beside the products.

use std::arch::x86_64::*;

use crate::int8_tile::{
    CodeSource, FloatAccumulators, INT8_GROUP, INT8_LINE, INT8_PANEL_VECTORS, ScaledGroups,
};
use crate::quantized_rows::PLANES;
use crate::simd::LANES;

/// The offsets of weights without zero points.
static EIGHTS: Line = Line([8; INT8_LINE]);

#[repr(align(64))]
struct Line([i8; INT8_LINE]);

/// The codes are bytes.
const BYTES: u8 = 0;
/// The codes are nibbles.
const NIBBLES: u8 = 1;
/// The codes are nibbles, and are stored as bytes.
const KEPT_NIBBLES: u8 = 2;

/// [`Int8Tile::multiply_groups`](crate::int8_tile::Int8Tile::multiply_groups)
///
/// # Safety
///
/// As there, and the CPU has AVX-512 with VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn multiply_groups(operands: ScaledGroups<u8>, sums: &mut FloatAccumulators) {
    let vectors = operands.group.vectors;
    // SAFETY: this function's contract.
    unsafe {
        match operands.source {
            CodeSource::Bytes => by_rows::<INT8_PANEL_VECTORS, BYTES>(operands, 0, sums),
            CodeSource::KeptNibbles { .. } => {
                by_rows::<INT8_PANEL_VECTORS, KEPT_NIBBLES>(operands, 0, sums)
            }
            CodeSource::Nibbles { .. } => {
                let mut vector = 0;
                while vector < vectors {
                    vector += match vectors - vector {
                        4.. => by_rows::<4, NIBBLES>(operands, vector, sums),
                        2.. => by_rows::<2, NIBBLES>(operands, vector, sums),
                        _ => by_rows::<1, NIBBLES>(operands, vector, sums),
                    };
                }
                vector
            }
        }
    };
}

/// `VECTORS` vectors from `vector` on; returns their number.
///
/// # Safety
///
/// As [`multiply_groups`], and there are these vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn by_rows<const VECTORS: usize, const SOURCE: u8>(
    operands: ScaledGroups<u8>,
    vector: usize,
    sums: &mut FloatAccumulators,
) -> usize {
    // SAFETY: this function's contract.
    unsafe {
        match (operands.planes, operands.group.rows) {
            (1, 1) => tile::<1, 1, VECTORS, SOURCE>(operands, vector, sums),
            (1, 2) => tile::<2, 1, VECTORS, SOURCE>(operands, vector, sums),
            (1, 3) => tile::<3, 1, VECTORS, SOURCE>(operands, vector, sums),
            (1, 4) => tile::<4, 1, VECTORS, SOURCE>(operands, vector, sums),
            (1, 5) => tile::<5, 1, VECTORS, SOURCE>(operands, vector, sums),
            (1, _) => tile::<6, 1, VECTORS, SOURCE>(operands, vector, sums),
            (_, 2) => tile::<2, PLANES, VECTORS, SOURCE>(operands, vector, sums),
            (_, 4) => tile::<4, PLANES, VECTORS, SOURCE>(operands, vector, sums),
            (_, _) => tile::<6, PLANES, VECTORS, SOURCE>(operands, vector, sums),
        }
    }
    VECTORS
}

/// `ROWS` rows of codes, `PLANES` of which are one row, and `VECTORS` * 16 outputs from `vector` on.
///
/// # Safety
///
/// As [`multiply_groups`] for these rows, and there are these vectors.
#[allow(
    clippy::needless_range_loop,
    reason = "places are those of arrays and of memory at once"
)]
#[inline(never)] // One function for each shape, whose registers are given out apart.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tile<const ROWS: usize, const PLANES: usize, const VECTORS: usize, const SOURCE: u8>(
    operands: ScaledGroups<u8>,
    vector: usize,
    sums: &mut FloatAccumulators,
) {
    let (group, count) = (operands.group, operands.count);
    let pairs = group.groups / 2;
    let (offsets, mut bytes) = match operands.source {
        CodeSource::Bytes => (std::ptr::null(), std::ptr::null_mut()),
        CodeSource::Nibbles { offsets } => (offsets, std::ptr::null_mut()),
        CodeSource::KeptNibbles { offsets, bytes } => (offsets, bytes),
    };
    // Bytes from the offsets of a vector, and of a group, to the next.
    let (mut offsets, offsets_of_vector, offsets_of_group) = if offsets.is_null() {
        (EIGHTS.0.as_ptr(), 0, 0)
    } else {
        let of_vector = count * INT8_LINE;
        let first = offsets.wrapping_add(vector * of_vector);
        (first, of_vector, INT8_LINE)
    };
    let weights_of_pair = match SOURCE {
        BYTES => 2 * group.group_stride,
        _ => group.group_stride,
    };
    let mut weights = group.weights.wrapping_add(vector * INT8_LINE);
    let mut activations = group.activations;
    let mut scales = operands.scales.wrapping_add(vector * count * LANES);
    let mut prefetch = group.prefetch.line;
    // A later pass over the same rows finds the lines fetched.
    let rate = match vector {
        0 => group.prefetch.rate,
        _ => 0,
    };
    let mut due = 0;
    for lines in &mut sums.0[..ROWS / PLANES] {
        lines[vector..][..VECTORS].fill([0.0; LANES]);
    }
    // Of this vector; a row has as many lines as a panel has vectors.
    let totals = (&raw mut sums.0).cast::<f32>();
    let totals = totals.wrapping_add(vector * LANES);
    let low_bits = _mm512_set1_epi8(15);
    // The registers are for the exact sums of a group. What is volatile below stays in memory between its uses; a compiler that kept it would run out of them.
    // SAFETY: in each of `count` groups, groups * 4 activations in each of the rows and VECTORS * 16 outputs of each line of weights are readable, and a scale and
    // offsets; bytes of as many outputs are writable; a prefetch reads nothing.
    unsafe {
        for _ in 0..count {
            let mut exact = [[_mm512_setzero_si512(); VECTORS]; ROWS];
            for _ in 0..pairs {
                for half in 0..2 {
                    due += rate;
                    for _ in 0..VECTORS.div_ceil(2) {
                        if due < 256 {
                            break;
                        }
                        _mm_prefetch::<_MM_HINT_T0>(prefetch);
                        prefetch = prefetch.wrapping_add(INT8_LINE);
                        due -= 256;
                    }
                    let mut codes = [_mm512_setzero_si512(); VECTORS];
                    for place in 0..VECTORS {
                        let line = place * INT8_LINE;
                        codes[place] = if SOURCE == BYTES {
                            let line = half * group.group_stride + line;
                            _mm512_load_si512(weights.add(line).cast())
                        } else {
                            let mut nibbles = weights.add(line).cast::<__m512i>().read_volatile();
                            if half == 1 {
                                nibbles = _mm512_srli_epi16::<4>(nibbles);
                            }
                            let offset = offsets.add(place * offsets_of_vector);
                            let offset = offset.cast::<__m512i>().read_volatile();
                            _mm512_sub_epi8(_mm512_and_si512(nibbles, low_bits), offset)
                        };
                        if SOURCE == KEPT_NIBBLES {
                            let line = half * VECTORS * INT8_LINE + line;
                            _mm512_store_si512(bytes.add(line).cast(), codes[place]);
                        }
                    }
                    for row in 0..ROWS {
                        let activation = activations.add(row * group.stride + half * INT8_GROUP);
                        let activation = activation.cast::<i32>().read_unaligned();
                        let activation = _mm512_set1_epi32(activation);
                        for place in 0..VECTORS {
                            let sum = &mut exact[row][place];
                            *sum = _mm512_dpbusd_epi32(*sum, activation, codes[place]);
                        }
                    }
                }
                activations = activations.wrapping_add(2 * INT8_GROUP);
                weights = weights.wrapping_add(weights_of_pair);
                bytes = bytes.wrapping_add(2 * VECTORS * INT8_LINE);
            }
            for place in 0..VECTORS {
                let scale = scales.add(place * count * LANES);
                if SOURCE != BYTES {
                    // Those of the next panel.
                    let later = scale.wrapping_add(group.vectors * count * LANES);
                    _mm_prefetch::<_MM_HINT_T0>(later.cast());
                }
                let scale = _mm512_load_ps(scale);
                for row in 0..ROWS / PLANES {
                    let mut exact_of_row = exact[row * PLANES][place];
                    if PLANES == 2 {
                        let low = exact[row * PLANES + 1][place];
                        let high = _mm512_slli_epi32::<8>(exact_of_row);
                        exact_of_row = _mm512_add_epi32(high, low);
                    }
                    let total = totals.add((row * INT8_PANEL_VECTORS + place) * LANES);
                    let total = total.cast::<__m512>();
                    let exact_of_row = _mm512_cvtepi32_ps(exact_of_row);
                    let sum = _mm512_fmadd_ps(exact_of_row, scale, total.read_volatile());
                    total.write_volatile(sum);
                }
            }
            scales = scales.wrapping_add(LANES);
            offsets = offsets.wrapping_add(offsets_of_group);
        }
    }
}
