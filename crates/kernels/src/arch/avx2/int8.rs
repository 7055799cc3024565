//! The int8 tile: both codes widened to i16 and multiplied pairwise into i32, which is exact (a pair is at most 2 * 255 * 128).

use std::arch::x86_64::*;

use super::lanes::Avx2;
use crate::aligned::Scratch;
use crate::int8_tile::{
    INT8_GROUP, INT8_LINE, Int8Accumulators, Int8Operands, Int8Tile, LineOrder, PanelLayout,
};
use crate::quantized_rows::{PLANES, QuantizedRows};
use crate::simd::{LANES, Simd};

/// Outputs of one register of sums.
pub(super) const OUTPUTS: usize = 8;

/// Registers of a vector of sixteen outputs: with six rows, sums, weights, an activation and a product fill the sixteen registers.
pub(super) const REGISTERS: usize = LANES / OUTPUTS;

impl Int8Tile for Avx2 {
    /// Widened once a call, so that the tile broadcasts pairs.
    type Activation = i16;

    /// Panels as wide as the tile: they are read from start to end.
    const LAYOUT: PanelLayout = PanelLayout {
        vectors: 1,
        order: LineOrder::Pairs,
    };

    const VECTORS: usize = 1;

    const ROW_BYTES: usize = 256 << 10;

    const PREFETCH_DISTANCE: usize = 0;

    const PREFETCH_ROWS: usize = 1;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        // SAFETY: this function's contract.
        unsafe { <Self as Simd>::assume_supported() }
    }

    #[inline(always)]
    fn activations<'a>(self, x: &'a QuantizedRows, scratch: &'a mut Scratch) -> (&'a [i16], usize) {
        let widened = scratch.slice::<i16>(x.codes.len() / x.planes.max(1));
        if x.planes == PLANES {
            let planes = x.codes.chunks_exact(PLANES * x.stride.max(1));
            for (widened, planes) in widened.chunks_exact_mut(x.stride.max(1)).zip(planes) {
                let (high, low) = planes.split_at(x.stride);
                for ((widened, &high), &low) in widened.iter_mut().zip(high).zip(low) {
                    *widened = i16::from(high) << 8 | i16::from(low);
                }
            }
        } else {
            for (widened, &code) in widened.iter_mut().zip(&x.codes) {
                *widened = i16::from(code);
            }
        }
        (widened, x.stride)
    }

    #[inline(always)]
    unsafe fn multiply(self, operands: Int8Operands<i16>, accumulators: &mut Int8Accumulators) {
        // SAFETY: this function's contract; the token.
        unsafe {
            match operands.rows {
                1 => tile::<1>(operands, accumulators),
                2 => tile::<2>(operands, accumulators),
                3 => tile::<3>(operands, accumulators),
                4 => tile::<4>(operands, accumulators),
                5 => tile::<5>(operands, accumulators),
                _ => tile::<6>(operands, accumulators),
            }
        }
    }

    #[inline(always)]
    fn multiply_registers(self, rounds: usize) -> usize {
        // SAFETY: the token.
        unsafe { registers(rounds) };
        rounds * SUMS * OUTPUTS * 2
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

/// `ROWS` rows of sixteen outputs.
///
/// # Safety
///
/// As [`Int8Tile::multiply`] for `ROWS` rows.
#[inline(never)] // One copy for all epilogues.
#[target_feature(enable = "avx2")]
unsafe fn tile<const ROWS: usize>(
    operands: Int8Operands<i16>,
    accumulators: &mut Int8Accumulators,
) {
    let mut sums = [[_mm256_setzero_si256(); REGISTERS]; ROWS];
    let mut weights = operands.weights;
    let mut activations = operands.activations;
    let mut prefetch = operands.prefetch.line;
    let mut due = 0;
    // SAFETY: groups * 4 activations in each of the rows and sixteen outputs of each group are readable; a prefetch reads nothing.
    unsafe {
        // One pair of columns at a time: with more, sums would leave the registers. A panel of one vector has no gaps.
        for _ in 0..operands.groups * (INT8_GROUP / 2) {
            due += operands.prefetch.rate;
            if due >= 512 {
                _mm_prefetch::<_MM_HINT_T0>(prefetch);
                prefetch = prefetch.wrapping_add(INT8_LINE);
                due -= 512;
            }
            let mut codes = [_mm256_setzero_si256(); REGISTERS];
            for (register, codes) in codes.iter_mut().enumerate() {
                let start = register * 2 * OUTPUTS;
                *codes = _mm256_cvtepi8_epi16(_mm_load_si128(weights.add(start).cast()));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let activation = activations.add(row * operands.stride).cast::<i32>();
                let activation = _mm256_set1_epi32(activation.read_unaligned());
                for (sum, &codes) in sums.iter_mut().zip(&codes) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(activation, codes));
                }
            }
            activations = activations.wrapping_add(2);
            weights = weights.wrapping_add(INT8_LINE / 2);
        }
        store_sums(&sums, accumulators);
    }
}

/// Puts the sums of a tile where [`Int8Tile::multiply`] has them.
///
/// # Safety
///
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn store_sums<const ROWS: usize>(
    sums: &[[__m256i; REGISTERS]; ROWS],
    accumulators: &mut Int8Accumulators,
) {
    for (sums, line) in sums.iter().zip(accumulators.0.iter_mut()) {
        let line = line[0].as_mut_ptr();
        for (register, &sum) in sums.iter().enumerate() {
            // SAFETY: this function's contract; the line has room for the registers, and starts at a cache line.
            unsafe { _mm256_store_si256(line.add(register * OUTPUTS).cast(), sum) };
        }
    }
}
