//! The int8 tile: `vpdpbusd` sums four products into each i32 lane, without saturation.

use std::arch::x86_64::*;

use super::nibbles;
use crate::aligned::Scratch;
use crate::int8_tile::{
    FloatAccumulators, INT8_GROUP, INT8_LINE, INT8_PANEL_VECTORS, Int8Accumulators, Int8Operands,
    Int8Tile, LineOrder, PanelLayout, ScaledGroups,
};
use crate::quantized_rows::QuantizedRows;
use crate::simd::Simd;

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

    const PREFETCH_ROWS: usize = 3;

    const READS_NIBBLES: bool = true;

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
        unsafe { nibbles::multiply_groups(operands, sums) }
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
            due += operands.prefetch.rate;
            for _ in 0..VECTORS {
                if due < 256 {
                    break;
                }
                _mm_prefetch::<_MM_HINT_T0>(prefetch);
                prefetch = prefetch.wrapping_add(INT8_LINE);
                due -= 256;
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
