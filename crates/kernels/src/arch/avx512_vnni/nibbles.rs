//! The tile of int4 weights: nibbles become bytes in registers, on their way to `vpdpbusd`.
//!
//! With a code of `nibble - offset` the sum of a group is that of activation times nibble, less `offset` times the sum of the activations, which the sums start from.

use std::arch::x86_64::*;

use crate::int8_tile::{FloatAccumulators, INT8_GROUP, INT8_LINE, ScaledGroups};
use crate::quantized_rows::PLANES;
use crate::simd::LANES;

/// [`Int8Tile::multiply_groups`](crate::int8_tile::Int8Tile::multiply_groups)
///
/// # Safety
///
/// As there, and the CPU has AVX-512 with VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn multiply_groups(operands: ScaledGroups<u8>, sums: &mut FloatAccumulators) {
    let vectors = operands.group.vectors;
    let mut vector = 0;
    while vector < vectors {
        // SAFETY: this function's contract.
        unsafe {
            // As many as leave the integer and the float sums of all rows in registers.
            vector += match vectors - vector {
                4.. if operands.group.rows <= 3 => by_rows::<4>(operands, vector, sums),
                2.. => by_rows::<2>(operands, vector, sums),
                _ => by_rows::<1>(operands, vector, sums),
            };
        }
    }
}

/// `VECTORS` vectors from `vector` on; returns their number.
///
/// # Safety
///
/// As [`multiply_groups`], and there are these vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn by_rows<const VECTORS: usize>(
    operands: ScaledGroups<u8>,
    vector: usize,
    sums: &mut FloatAccumulators,
) -> usize {
    // SAFETY: this function's contract.
    unsafe {
        match (operands.planes, operands.group.rows) {
            (1, 1) => tile::<1, 1, VECTORS>(operands, vector, sums),
            (1, 2) => tile::<2, 1, VECTORS>(operands, vector, sums),
            (1, 3) => tile::<3, 1, VECTORS>(operands, vector, sums),
            (1, 4) => tile::<4, 1, VECTORS>(operands, vector, sums),
            (1, 5) => tile::<5, 1, VECTORS>(operands, vector, sums),
            (1, _) => tile::<6, 1, VECTORS>(operands, vector, sums),
            (_, 2) => tile::<2, PLANES, VECTORS>(operands, vector, sums),
            (_, 4) => tile::<4, PLANES, VECTORS>(operands, vector, sums),
            (_, _) => tile::<6, PLANES, VECTORS>(operands, vector, sums),
        }
    }
    VECTORS
}

/// `ROWS` rows of codes, `PLANES` of which are one row, and `VECTORS` * 16 outputs from `vector` on.
///
/// # Safety
///
/// As [`multiply_groups`] for these rows, and there are these vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tile<const ROWS: usize, const PLANES: usize, const VECTORS: usize>(
    operands: ScaledGroups<u8>,
    vector: usize,
    sums: &mut FloatAccumulators,
) {
    let (group, count) = (operands.group, operands.count);
    let low_bits = _mm512_set1_epi8(15);
    let (pairs, odd) = (group.groups / 2, group.groups % 2 == 1);
    let mut weights = group.weights.wrapping_add(vector * INT8_LINE);
    let mut activations = group.activations;
    let mut scales = operands.scales.wrapping_add(vector * count * LANES);
    let mut prefetch = group.prefetch.line;
    // A later pass over the same rows finds the lines fetched.
    let rate = if vector == 0 {
        2 * group.prefetch.rate
    } else {
        0
    };
    let mut due = 0;
    // Those of the first ROWS / PLANES are used.
    let mut totals = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    // SAFETY: in each of `count` groups, groups * 4 activations in each of the rows and VECTORS * 16 outputs of each line of nibbles are readable, and a scale, offsets and a
    // sum of activations; a prefetch reads nothing.
    unsafe {
        for index in 0..count {
            let mut exact = [[_mm512_setzero_si512(); VECTORS]; ROWS];
            for (row, exact) in exact.iter_mut().enumerate() {
                let sum = *operands.nibbles.activation_sums.add(row * count + index);
                if operands.nibbles.offsets.is_null() {
                    *exact = [_mm512_set1_epi32(-8 * sum); VECTORS];
                } else {
                    for (place, exact) in exact.iter_mut().enumerate() {
                        let line = ((vector + place) * count + index) * INT8_LINE;
                        let offsets = _mm512_load_si512(operands.nibbles.offsets.add(line).cast());
                        let offsets = _mm512_and_si512(offsets, _mm512_set1_epi32(15));
                        *exact = _mm512_mullo_epi32(offsets, _mm512_set1_epi32(-sum));
                    }
                }
            }
            for _ in 0..pairs {
                due += rate;
                if due >= 512 {
                    _mm_prefetch::<_MM_HINT_T0>(prefetch);
                    prefetch = prefetch.wrapping_add(2 * INT8_LINE);
                    due -= 512;
                }
                multiply(
                    &mut exact,
                    nibbles::<0, VECTORS>(weights, low_bits),
                    activations,
                    group.stride,
                );
                let next = activations.wrapping_add(INT8_GROUP);
                multiply(
                    &mut exact,
                    nibbles::<4, VECTORS>(weights, low_bits),
                    next,
                    group.stride,
                );
                activations = next.wrapping_add(INT8_GROUP);
                weights = weights.wrapping_add(group.group_stride);
            }
            if odd {
                multiply(
                    &mut exact,
                    nibbles::<0, VECTORS>(weights, low_bits),
                    activations,
                    group.stride,
                );
            }
            for place in 0..VECTORS {
                let scale = _mm512_load_ps(scales.add(place * count * LANES));
                for (totals, planes) in totals.iter_mut().zip(exact.chunks_exact(PLANES)) {
                    let mut exact = planes[0][place];
                    for low in &planes[1..] {
                        exact = _mm512_add_epi32(_mm512_slli_epi32::<8>(exact), low[place]);
                    }
                    totals[place] =
                        _mm512_fmadd_ps(_mm512_cvtepi32_ps(exact), scale, totals[place]);
                }
            }
            scales = scales.wrapping_add(LANES);
        }
        for (totals, lines) in totals.iter().zip(&mut sums.0[..ROWS / PLANES]) {
            for (&total, line) in totals.iter().zip(&mut lines[vector..]) {
                _mm512_store_ps(line.as_mut_ptr(), total);
            }
        }
    }
}

/// The codes of a line of a pair, of each vector: of the first line with a `SHIFT` of 0, of the second with 4.
///
/// # Safety
///
/// The lines are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn nibbles<const SHIFT: u32, const VECTORS: usize>(
    weights: *const i8,
    low_bits: __m512i,
) -> [__m512i; VECTORS] {
    let mut codes = [_mm512_setzero_si512(); VECTORS];
    for (vector, codes) in codes.iter_mut().enumerate() {
        // SAFETY: this function's contract.
        let nibbles = unsafe { _mm512_load_si512(weights.add(vector * INT8_LINE).cast()) };
        *codes = _mm512_and_si512(_mm512_srli_epi16::<SHIFT>(nibbles), low_bits);
    }
    codes
}

/// Adds the products of one line of each vector.
///
/// # Safety
///
/// Four activations are readable in each row.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn multiply<const ROWS: usize, const VECTORS: usize>(
    exact: &mut [[__m512i; VECTORS]; ROWS],
    codes: [__m512i; VECTORS],
    activations: *const u8,
    stride: usize,
) {
    for (row, exact) in exact.iter_mut().enumerate() {
        // SAFETY: this function's contract.
        let activation = unsafe { activations.add(row * stride).cast::<i32>().read_unaligned() };
        let activation = _mm512_set1_epi32(activation);
        for (sum, codes) in exact.iter_mut().zip(codes) {
            *sum = _mm512_dpbusd_epi32(*sum, activation, codes);
        }
    }
}
