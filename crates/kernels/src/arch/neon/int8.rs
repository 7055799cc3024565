//! The int8 tile without dot products: products of signed bytes in i16 (at most 128 * 128), added in pairs to i32.

use std::arch::aarch64::*;

use super::lanes::Neon;
use crate::aligned::Scratch;
use crate::int8_tile::{
    INT8_GROUP, Int8Accumulators, Int8Operands, Int8Tile, LineOrder, PanelLayout,
};
use crate::quantized_rows::QuantizedRows;
use crate::simd::{LANES, Simd};

/// Outputs of a panel whose codes fill one register: four outputs of four codes.
const OUTPUTS: usize = 4;

/// The codes of all rows less 128, so that instructions for signed bytes take them.
#[inline(always)]
pub(crate) fn lowered_activations<'a>(
    x: &'a QuantizedRows,
    scratch: &'a mut Scratch,
) -> (&'a [i8], usize) {
    let lowered = scratch.slice::<i8>(x.codes.len());
    for (lowered, &code) in lowered.iter_mut().zip(&x.codes) {
        *lowered = (code ^ 0x80) as i8;
    }
    (lowered, x.stride)
}

impl Int8Tile for Neon {
    type Activation = i8;

    const LAYOUT: PanelLayout = PanelLayout {
        vectors: 1,
        order: LineOrder::Fours,
    };

    const VECTORS: usize = 1;

    const ACTIVATION_OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        // SAFETY: this function's contract.
        unsafe { <Self as Simd>::assume_supported() }
    }

    #[inline(always)]
    fn activations<'a>(self, x: &'a QuantizedRows, scratch: &'a mut Scratch) -> (&'a [i8], usize) {
        lowered_activations(x, scratch)
    }

    #[inline(always)]
    unsafe fn multiply(self, operands: Int8Operands<i8>, accumulators: &mut Int8Accumulators) {
        // SAFETY: this function's contract; the token. One or two rows take the sixteen outputs at once; more rows take eight at a time, so
        // that sums, weights and one activation fit in the 32 registers.
        unsafe {
            match operands.rows {
                1 => tile::<1, 4>(operands, accumulators),
                2 => tile::<2, 4>(operands, accumulators),
                3 => tile::<3, 2>(operands, accumulators),
                4 => tile::<4, 2>(operands, accumulators),
                5 => tile::<5, 2>(operands, accumulators),
                _ => tile::<6, 2>(operands, accumulators),
            }
        }
    }
}

/// `ROWS` rows of sixteen outputs, `REGISTERS` * [`OUTPUTS`] outputs at a time.
///
/// # Safety
///
/// As [`Int8Tile::multiply`] for `ROWS` rows.
#[inline(never)] // One copy for all epilogues.
#[target_feature(enable = "neon")]
unsafe fn tile<const ROWS: usize, const REGISTERS: usize>(
    operands: Int8Operands<i8>,
    accumulators: &mut Int8Accumulators,
) {
    for first in (0..LANES).step_by(REGISTERS * OUTPUTS) {
        // Two registers of two outputs with two partial sums each.
        let mut sums = [[[vdupq_n_s32(0); 2]; REGISTERS]; ROWS];
        // SAFETY: groups * 4 activations in each of the rows and sixteen outputs of each group are readable, and the outputs
        // first..first + REGISTERS * OUTPUTS are within the accumulators.
        unsafe {
            let mut weights = operands.weights.add(first * INT8_GROUP);
            for group in 0..operands.groups {
                let mut codes = [vdupq_n_s8(0); REGISTERS];
                for (register, codes) in codes.iter_mut().enumerate() {
                    *codes = vld1q_s8(weights.add(register * OUTPUTS * INT8_GROUP));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let offset = row * operands.stride + group * INT8_GROUP;
                    let activation = operands.activations.add(offset).cast::<i32>();
                    let activation = vdupq_n_s32(activation.read_unaligned());
                    let activation = vreinterpretq_s8_s32(activation);
                    for (sum, &codes) in sums.iter_mut().zip(&codes) {
                        let low = vmull_s8(vget_low_s8(codes), vget_low_s8(activation));
                        let high = vmull_high_s8(codes, activation);
                        *sum = [vpadalq_s16(sum[0], low), vpadalq_s16(sum[1], high)];
                    }
                }
                weights = weights.wrapping_add(operands.group_stride);
            }
            for (sums, line) in sums.iter().zip(accumulators.0.iter_mut()) {
                let line = line[0].as_mut_ptr().add(first);
                for (register, sum) in sums.iter().enumerate() {
                    vst1q_s32(line.add(register * OUTPUTS), vpaddq_s32(sum[0], sum[1]));
                }
            }
        }
    }
}
