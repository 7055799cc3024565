//! The int8 tile: both codes widened to i16 and multiplied pairwise into i32, which is exact (a pair is at most 2 * 255 * 128).

use std::arch::x86_64::*;

use super::lanes::Avx2;
use crate::aligned::Scratch;
use crate::int8_tile::{INT8_GROUP, Int8Accumulators, Int8Operands, Int8Tile};
use crate::quantized_rows::QuantizedRows;
use crate::simd::{LANES, Simd};

/// Outputs of a panel whose codes fill one register when widened: four outputs of four codes.
const OUTPUTS: usize = 4;

impl Int8Tile for Avx2 {
    /// Widened once a call, so that the tile broadcasts a whole group of four.
    type Activation = i16;

    const VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        // SAFETY: this function's contract.
        unsafe { <Self as Simd>::assume_supported() }
    }

    #[inline(always)]
    fn activations<'a>(self, x: &'a QuantizedRows, scratch: &'a mut Scratch) -> (&'a [i16], usize) {
        let widened = scratch.slice::<i16>(x.codes.len());
        for (widened, &code) in widened.iter_mut().zip(&x.codes) {
            *widened = i16::from(code);
        }
        (widened, x.stride)
    }

    #[inline(always)]
    unsafe fn multiply(self, operands: Int8Operands<i16>, accumulators: &mut Int8Accumulators) {
        // SAFETY: this function's contract. One or two rows take the sixteen outputs at once; more rows take eight at a time, so that sums,
        // weights and one activation fit in the sixteen registers.
        unsafe {
            match operands.rows {
                1 => tile::<1, 4>(self, operands, accumulators),
                2 => tile::<2, 4>(self, operands, accumulators),
                3 => tile::<3, 2>(self, operands, accumulators),
                4 => tile::<4, 2>(self, operands, accumulators),
                5 => tile::<5, 2>(self, operands, accumulators),
                _ => tile::<6, 2>(self, operands, accumulators),
            }
        }
    }

    #[inline(always)]
    fn multiply_registers(self, rounds: usize) -> usize {
        // SAFETY: the token.
        unsafe { registers(rounds) };
        rounds * SUMS * OUTPUTS * INT8_GROUP
    }
}

/// Sums of [`registers`].
const SUMS: usize = 12;

#[target_feature(enable = "avx2")]
fn registers(rounds: usize) {
    let codes = _mm256_set1_epi32(std::hint::black_box(0x0001_0001));
    let mut sums = [codes; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            // The factor depends on the sum, as otherwise one product would do for all.
            *sum = _mm256_add_epi32(codes, _mm256_madd_epi16(*sum, codes));
        }
    }
    std::hint::black_box(sums);
}

/// `ROWS` rows of sixteen outputs, `REGISTERS` * [`OUTPUTS`] outputs at a time.
///
/// # Safety
///
/// As [`Int8Tile::multiply`] for `ROWS` rows.
#[inline(always)]
unsafe fn tile<const ROWS: usize, const REGISTERS: usize>(
    _: Avx2,
    operands: Int8Operands<i16>,
    accumulators: &mut Int8Accumulators,
) {
    for first in (0..LANES).step_by(REGISTERS * OUTPUTS) {
        // SAFETY: the token; groups * 4 activations in each of the rows and sixteen outputs of each group are readable, and the
        // outputs first..first + REGISTERS * OUTPUTS are within the accumulators.
        unsafe {
            let mut weights = operands.weights.add(first * INT8_GROUP);
            // Each register has two partial sums for each of its four outputs.
            let mut sums = [[_mm256_setzero_si256(); REGISTERS]; ROWS];
            for group in 0..operands.groups {
                let mut widened = [_mm256_setzero_si256(); REGISTERS];
                for (register, widened) in widened.iter_mut().enumerate() {
                    let codes = weights.add(register * OUTPUTS * INT8_GROUP);
                    *widened = _mm256_cvtepi8_epi16(_mm_loadu_si128(codes.cast()));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let offset = row * operands.stride + group * INT8_GROUP;
                    let activation = operands.activations.add(offset).cast::<i64>();
                    let activation = _mm256_set1_epi64x(activation.read_unaligned());
                    for (sum, &widened) in sums.iter_mut().zip(&widened) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(activation, widened));
                    }
                }
                weights = weights.wrapping_add(operands.group_stride);
            }
            for (sums, line) in sums.iter().zip(accumulators.0.iter_mut()) {
                let line = line[0].as_mut_ptr().add(first);
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
