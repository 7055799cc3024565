//! The int8 tile: `vpdpbusd` sums four products into each i32 lane, without saturation.

use std::arch::x86_64::*;

use crate::aligned::Scratch;
use crate::int8_tile::{
    FloatAccumulators, INT8_GROUP, INT8_LINE, INT8_PANEL_VECTORS, Int8Accumulators, Int8Operands,
    Int8Tile, LineOrder, PanelLayout, ScaledGroups,
};
use crate::quantized_rows::{PLANES, QuantizedRows};
use crate::simd::{LANES, Simd};

/// The token of AVX-512 VNNI, see [`Int8Tile::assume_supported`].
#[derive(Clone, Copy)]
pub(crate) struct Avx512VnniTile(());

impl Int8Tile for Avx512VnniTile {
    type Activation = u8;

    const LAYOUT: PanelLayout = PanelLayout {
        vectors: INT8_PANEL_VECTORS,
        order: LineOrder::Fours,
    };

    /// Six rows of 64 outputs are 24 sums; with four registers of weights and one of activations they leave three of the 32.
    const VECTORS: usize = INT8_PANEL_VECTORS;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        Avx512VnniTile(())
    }

    #[inline(always)]
    fn activations<'a>(self, x: &'a QuantizedRows, _scratch: &'a mut Scratch) -> (&'a [u8], usize) {
        (&x.codes, x.stride)
    }

    #[inline(always)]
    unsafe fn multiply(self, operands: Int8Operands<u8>, accumulators: &mut Int8Accumulators) {
        // SAFETY: this function's contract; the token.
        unsafe {
            match operands.vectors {
                1 => rows::<1>(operands, accumulators),
                2 => rows::<2>(operands, accumulators),
                3 => rows::<3>(operands, accumulators),
                _ => rows::<4>(operands, accumulators),
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply_groups<S: Simd>(
        self,
        _s: S,
        operands: ScaledGroups<u8>,
        sums: &mut FloatAccumulators,
    ) {
        // SAFETY: this function's contract; the token.
        unsafe { grouped_rows(operands, sums) }
    }

    #[inline(always)]
    fn multiply_registers(self, rounds: usize) -> usize {
        // SAFETY: the token.
        unsafe { registers(rounds) };
        rounds * REGISTERS * INT8_LINE
    }
}

/// Sums of [`registers`].
const REGISTERS: usize = 24;

#[target_feature(enable = "avx512f,avx512vnni")]
fn registers(rounds: usize) {
    let codes = _mm512_set1_epi32(std::hint::black_box(0x0101_0101));
    let mut sums = [codes; REGISTERS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, codes, codes);
        }
    }
    std::hint::black_box(sums);
}

/// # Safety
///
/// As [`Int8Tile::multiply`] for `VECTORS` vectors.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn rows<const VECTORS: usize>(
    operands: Int8Operands<u8>,
    accumulators: &mut Int8Accumulators,
) {
    // SAFETY: this function's contract.
    unsafe {
        match operands.rows {
            1 => tile::<1, VECTORS>(operands, accumulators),
            2 => tile::<2, VECTORS>(operands, accumulators),
            3 => tile::<3, VECTORS>(operands, accumulators),
            4 => tile::<4, VECTORS>(operands, accumulators),
            5 => tile::<5, VECTORS>(operands, accumulators),
            _ => tile::<6, VECTORS>(operands, accumulators),
        }
    }
}

/// `ROWS` rows of `VECTORS` * 16 outputs.
///
/// # Safety
///
/// As [`Int8Tile::multiply`] for `ROWS` rows and `VECTORS` vectors.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile<const ROWS: usize, const VECTORS: usize>(
    operands: Int8Operands<u8>,
    accumulators: &mut Int8Accumulators,
) {
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; ROWS];
    let mut weights = operands.weights;
    let mut activations = operands.activations;
    let mut prefetch = operands.prefetch.line;
    let mut due = 0;
    // SAFETY: groups * 4 activations in each of the rows and VECTORS * 16 outputs of each group are readable; a prefetch reads nothing.
    unsafe {
        for _ in 0..operands.groups {
            // A line brings its neighbour along.
            due += operands.prefetch.rate;
            if due >= 512 {
                _mm_prefetch::<_MM_HINT_T0>(prefetch);
                prefetch = prefetch.wrapping_add(2 * INT8_LINE);
                due -= 512;
            }
            let mut codes = [_mm512_setzero_si512(); VECTORS];
            for (vector, codes) in codes.iter_mut().enumerate() {
                *codes = _mm512_load_si512(weights.add(vector * INT8_LINE).cast());
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let activation = activations.add(row * operands.stride).cast::<i32>();
                let activation = _mm512_set1_epi32(activation.read_unaligned());
                for (sum, &codes) in sums.iter_mut().zip(&codes) {
                    *sum = _mm512_dpbusd_epi32(*sum, activation, codes);
                }
            }
            activations = activations.wrapping_add(INT8_GROUP);
            weights = weights.wrapping_add(operands.group_stride);
        }
        for (sums, lines) in sums.iter().zip(accumulators.0.iter_mut()) {
            for (&sum, line) in sums.iter().zip(lines.iter_mut()) {
                _mm512_store_si512(line.as_mut_ptr().cast(), sum);
            }
        }
    }
}

/// [`grouped_tile`] for the rows and vectors of the operands: four vectors at a time where their sums fit in registers, else two.
///
/// # Safety
///
/// As [`Int8Tile::multiply_groups`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn grouped_rows(operands: ScaledGroups<u8>, sums: &mut FloatAccumulators) {
    let vectors = operands.group.vectors;
    let few = operands.group.rows <= 3 && operands.planes == 1;
    let mut vector = 0;
    // SAFETY: this function's contract.
    unsafe {
        while vector < vectors {
            vector += match vectors - vector {
                4.. if few => by_rows::<4>(operands, vector, sums),
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
/// As [`Int8Tile::multiply_groups`], and there are these vectors.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn by_rows<const VECTORS: usize>(
    operands: ScaledGroups<u8>,
    vector: usize,
    sums: &mut FloatAccumulators,
) -> usize {
    // SAFETY: this function's contract.
    unsafe {
        match (operands.planes, operands.group.rows / operands.planes) {
            (1, 1) => grouped_tile::<1, 1, VECTORS>(operands, vector, sums),
            (1, 2) => grouped_tile::<2, 1, VECTORS>(operands, vector, sums),
            (1, 3) => grouped_tile::<3, 1, VECTORS>(operands, vector, sums),
            (1, 4) => grouped_tile::<4, 1, VECTORS>(operands, vector, sums),
            (1, 5) => grouped_tile::<5, 1, VECTORS>(operands, vector, sums),
            (1, _) => grouped_tile::<6, 1, VECTORS>(operands, vector, sums),
            (_, 1) => grouped_tile::<1, PLANES, VECTORS>(operands, vector, sums),
            (_, 2) => grouped_tile::<2, PLANES, VECTORS>(operands, vector, sums),
            (_, _) => grouped_tile::<3, PLANES, VECTORS>(operands, vector, sums),
        }
    }
    VECTORS
}

/// `ROWS` rows of `PLANES` rows of codes each, and `VECTORS` * 16 outputs from `vector` on: integer sums of a group and float sums of all groups stay in registers.
///
/// # Safety
///
/// As [`Int8Tile::multiply_groups`] for these rows, and there are these vectors.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn grouped_tile<const ROWS: usize, const PLANES: usize, const VECTORS: usize>(
    operands: ScaledGroups<u8>,
    vector: usize,
    sums: &mut FloatAccumulators,
) {
    let group = operands.group;
    let mut totals = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    let mut weights = group.weights.wrapping_add(vector * INT8_LINE);
    let mut activations = group.activations;
    let mut scales = operands
        .scales
        .wrapping_add(vector * operands.count * LANES);
    let mut prefetch = group.prefetch.line;
    // A later pass over the same rows finds the lines fetched.
    let rate = if vector == 0 { group.prefetch.rate } else { 0 };
    let mut due = 0;
    // SAFETY: in each of `count` groups, groups * 4 activations in each of the rows and VECTORS * 16 outputs of each line are readable, and a scale for each
    // output; a prefetch reads nothing.
    unsafe {
        for _ in 0..operands.count {
            let mut exact = [[[_mm512_setzero_si512(); VECTORS]; PLANES]; ROWS];
            for _ in 0..group.groups {
                due += rate;
                if due >= 512 {
                    _mm_prefetch::<_MM_HINT_T0>(prefetch);
                    prefetch = prefetch.wrapping_add(2 * INT8_LINE);
                    due -= 512;
                }
                let mut codes = [_mm512_setzero_si512(); VECTORS];
                for (vector, codes) in codes.iter_mut().enumerate() {
                    *codes = _mm512_load_si512(weights.add(vector * INT8_LINE).cast());
                }
                for (row, planes) in exact.iter_mut().enumerate() {
                    for (plane, exact) in planes.iter_mut().enumerate() {
                        let row_of_codes = (row * PLANES + plane) * group.stride;
                        let activation = activations.add(row_of_codes).cast::<i32>();
                        let activation = _mm512_set1_epi32(activation.read_unaligned());
                        for (sum, &codes) in exact.iter_mut().zip(&codes) {
                            *sum = _mm512_dpbusd_epi32(*sum, activation, codes);
                        }
                    }
                }
                activations = activations.wrapping_add(INT8_GROUP);
                weights = weights.wrapping_add(group.group_stride);
            }
            for vector in 0..VECTORS {
                let scale = _mm512_load_ps(scales.add(vector * operands.count * LANES));
                for (totals, planes) in totals.iter_mut().zip(&exact) {
                    let mut exact = planes[0][vector];
                    for low in &planes[1..] {
                        exact = _mm512_add_epi32(_mm512_slli_epi32::<8>(exact), low[vector]);
                    }
                    let exact = _mm512_cvtepi32_ps(exact);
                    totals[vector] = _mm512_fmadd_ps(exact, scale, totals[vector]);
                }
            }
            scales = scales.wrapping_add(LANES);
        }
        for (totals, lines) in totals.iter().zip(sums.0.iter_mut()) {
            for (&total, line) in totals.iter().zip(&mut lines[vector..]) {
                _mm512_store_ps(line.as_mut_ptr(), total);
            }
        }
    }
}
