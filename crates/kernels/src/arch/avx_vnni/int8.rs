//! The int8 tile: `vpdpbusd` sums four products into each i32 lane, without saturation.

use std::arch::x86_64::*;

use crate::aligned::Scratch;
use crate::int8_tile::{
    INT8_GROUP, INT8_PANEL_VECTORS, Int8Accumulators, Int8Operands, Int8Tile, LineOrder,
    PanelLayout,
};
use crate::quantized_rows::QuantizedRows;
use crate::simd::LANES;

/// The token of AVX2 and AVX-VNNI, see [`Int8Tile::assume_supported`].
#[derive(Clone, Copy)]
pub(crate) struct AvxVnniTile(());

/// Outputs of one register.
const OUTPUTS: usize = 8;

/// Registers of a vector of sixteen outputs.
const REGISTERS: usize = LANES / OUTPUTS;

impl Int8Tile for AvxVnniTile {
    type Activation = u8;

    const LAYOUT: PanelLayout = PanelLayout {
        vectors: INT8_PANEL_VECTORS,
        order: LineOrder::Fours,
    };

    const VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        AvxVnniTile(())
    }

    #[inline(always)]
    fn activations<'a>(self, x: &'a QuantizedRows, _scratch: &'a mut Scratch) -> (&'a [u8], usize) {
        (&x.codes, x.stride)
    }

    #[inline(always)]
    unsafe fn multiply(self, operands: Int8Operands<u8>, accumulators: &mut Int8Accumulators) {
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
        rounds * SUMS * OUTPUTS * INT8_GROUP
    }
}

/// Sums of [`registers`].
const SUMS: usize = 12;

#[target_feature(enable = "avx2,avxvnni")]
fn registers(rounds: usize) {
    let codes = _mm256_set1_epi32(std::hint::black_box(0x0101_0101));
    let mut sums = [codes; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_dpbusd_avx_epi32(*sum, codes, codes);
        }
    }
    std::hint::black_box(sums);
}

/// `ROWS` rows of sixteen outputs.
///
/// # Safety
///
/// As [`Int8Tile::multiply`] for `ROWS` rows.
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn tile<const ROWS: usize>(operands: Int8Operands<u8>, accumulators: &mut Int8Accumulators) {
    let mut sums = [[_mm256_setzero_si256(); REGISTERS]; ROWS];
    let mut weights = operands.weights;
    // SAFETY: groups * 4 activations in each of the rows and sixteen outputs of each group are readable.
    unsafe {
        for group in 0..operands.groups {
            let mut codes = [_mm256_setzero_si256(); REGISTERS];
            for (register, codes) in codes.iter_mut().enumerate() {
                *codes = _mm256_load_si256(weights.add(register * OUTPUTS * INT8_GROUP).cast());
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let offset = row * operands.stride + group * INT8_GROUP;
                let activation = operands.activations.add(offset).cast::<i32>();
                let activation = _mm256_set1_epi32(activation.read_unaligned());
                for (sum, &codes) in sums.iter_mut().zip(&codes) {
                    *sum = _mm256_dpbusd_avx_epi32(*sum, activation, codes);
                }
            }
            weights = weights.wrapping_add(operands.group_stride);
        }
        for (sums, line) in sums.iter().zip(accumulators.0.iter_mut()) {
            let line = line[0].as_mut_ptr();
            for (register, &sum) in sums.iter().enumerate() {
                _mm256_storeu_si256(line.add(register * OUTPUTS).cast(), sum);
            }
        }
    }
}
