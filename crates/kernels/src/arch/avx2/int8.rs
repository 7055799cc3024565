//! The int8 tile: both codes widened to i16 and multiplied pairwise into i32, which is exact (a pair is at most 2 * 255 * 128).

use std::arch::x86_64::*;

use super::lanes::Avx2;
use crate::simd::{INT8_GROUP, Int8Accumulators, Int8Tile, LANES};

/// Outputs of a panel whose codes fill one register when widened: four outputs of four codes.
const OUTPUTS: usize = 4;

/// Bytes of one group of a panel.
const GROUP_BYTES: usize = LANES * INT8_GROUP;

impl Int8Tile for Avx2 {
    /// Widened once a call, so that the tile broadcasts a whole group of four.
    type Activation = i16;

    #[inline(always)]
    fn prepare_activations(self, codes: &[u8], to: &mut [i16]) {
        let (head, rest) = to.split_at_mut(codes.len());
        for (to, &code) in head.iter_mut().zip(codes) {
            *to = i16::from(code);
        }
        rest.fill(0);
    }

    #[inline(always)]
    unsafe fn int8_tile(
        self,
        activations: *const i16,
        stride: usize,
        rows: usize,
        weights: *const i8,
        groups: usize,
        accumulators: &mut Int8Accumulators,
    ) {
        // SAFETY: this function's contract. One or two rows take the sixteen outputs at once; more rows take eight at a time, so that sums,
        // weights and one activation fit in the sixteen registers.
        unsafe {
            match rows {
                1 => tile::<1, 4>(self, activations, stride, weights, groups, accumulators),
                2 => tile::<2, 4>(self, activations, stride, weights, groups, accumulators),
                3 => tile::<3, 2>(self, activations, stride, weights, groups, accumulators),
                4 => tile::<4, 2>(self, activations, stride, weights, groups, accumulators),
                5 => tile::<5, 2>(self, activations, stride, weights, groups, accumulators),
                _ => tile::<6, 2>(self, activations, stride, weights, groups, accumulators),
            }
        }
    }
}

/// `ROWS` rows of sixteen outputs, `REGISTERS` * [`OUTPUTS`] outputs at a time.
///
/// # Safety
///
/// As [`Int8Tile::int8_tile`] for `ROWS` rows.
#[inline(always)]
unsafe fn tile<const ROWS: usize, const REGISTERS: usize>(
    _: Avx2,
    activations: *const i16,
    stride: usize,
    weights: *const i8,
    groups: usize,
    accumulators: &mut Int8Accumulators,
) {
    for first in (0..LANES).step_by(REGISTERS * OUTPUTS) {
        // SAFETY: the token; groups * 4 activations in each of the rows and groups * 64 weights are readable, and the outputs
        // first..first + REGISTERS * OUTPUTS are within the accumulators.
        unsafe {
            let weights = weights.add(first * INT8_GROUP);
            // Each register has two partial sums for each of its four outputs.
            let mut sums = [[_mm256_setzero_si256(); REGISTERS]; ROWS];
            for group in 0..groups {
                let mut widened = [_mm256_setzero_si256(); REGISTERS];
                for (register, widened) in widened.iter_mut().enumerate() {
                    let codes = weights.add(group * GROUP_BYTES + register * OUTPUTS * INT8_GROUP);
                    *widened = _mm256_cvtepi8_epi16(_mm_loadu_si128(codes.cast()));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let activation = activations.add(row * stride + group * INT8_GROUP);
                    let activation = _mm256_set1_epi64x(activation.cast::<i64>().read_unaligned());
                    for (sum, &widened) in sums.iter_mut().zip(&widened) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(activation, widened));
                    }
                }
            }
            for (sums, line) in sums.iter().zip(accumulators.iter_mut()) {
                let line = line.as_mut_ptr().add(first);
                for pair in 0..REGISTERS / 2 {
                    // The horizontal addition takes the outputs 0 1 4 5 | 2 3 6 7.
                    let added = _mm256_hadd_epi32(sums[2 * pair], sums[2 * pair + 1]);
                    let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(added);
                    _mm256_storeu_si256(line.add(pair * 2 * OUTPUTS).cast(), ordered);
                }
            }
        }
    }
}
