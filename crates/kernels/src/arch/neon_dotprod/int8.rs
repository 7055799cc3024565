//! The int8 tile: `sdot` sums four products of signed bytes into each i32 lane, without saturation.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::aligned::Scratch;
use crate::arch::neon::lowered_activations;
use crate::int8_tile::{
    INT8_GROUP, Int8Accumulators, Int8Operands, Int8Tile, LineOrder, PanelLayout,
};
use crate::quantized_rows::QuantizedRows;
use crate::simd::LANES;

/// The token of NEON with dot products, see [`Int8Tile::assume_supported`].
#[derive(Clone, Copy)]
pub(crate) struct DotProductTile(());

/// Outputs of one register.
const OUTPUTS: usize = 4;

/// Registers of a vector of sixteen outputs.
const REGISTERS: usize = LANES / OUTPUTS;

impl Int8Tile for DotProductTile {
    type Activation = i8;

    const LAYOUT: PanelLayout = PanelLayout {
        vectors: 1,
        order: LineOrder::Fours,
    };

    const VECTORS: usize = 1;

    const ACTIVATION_OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        DotProductTile(())
    }

    #[inline(always)]
    fn activations<'a>(self, x: &'a QuantizedRows, scratch: &'a mut Scratch) -> (&'a [i8], usize) {
        lowered_activations(x, scratch)
    }

    #[inline(always)]
    unsafe fn multiply(self, operands: Int8Operands<i8>, accumulators: &mut Int8Accumulators) {
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
}

/// `ROWS` rows of sixteen outputs.
///
/// # Safety
///
/// As [`Int8Tile::multiply`] for `ROWS` rows.
#[inline(never)] // One copy for all epilogues.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<const ROWS: usize>(operands: Int8Operands<i8>, accumulators: &mut Int8Accumulators) {
    let mut sums = [[vdupq_n_s32(0); REGISTERS]; ROWS];
    let mut weights = operands.weights;
    // SAFETY: groups * 4 activations in each of the rows and sixteen outputs of each group are readable.
    unsafe {
        for group in 0..operands.groups {
            let mut codes = [vdupq_n_s8(0); REGISTERS];
            for (register, codes) in codes.iter_mut().enumerate() {
                *codes = vld1q_s8(weights.add(register * OUTPUTS * INT8_GROUP));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let offset = row * operands.stride + group * INT8_GROUP;
                let activation = operands.activations.add(offset).cast::<i32>();
                let activation = vsetq_lane_s32::<0>(activation.read_unaligned(), vdupq_n_s32(0));
                for (sum, &codes) in sums.iter_mut().zip(&codes) {
                    *sum = dot_product(*sum, codes, activation);
                }
            }
            weights = weights.wrapping_add(operands.group_stride);
        }
        for (sums, line) in sums.iter().zip(accumulators.0.iter_mut()) {
            let line = line[0].as_mut_ptr();
            for (register, &sum) in sums.iter().enumerate() {
                vst1q_s32(line.add(register * OUTPUTS), sum);
            }
        }
    }
}

/// `sums[o] += sum over four k of codes[o][k] * activation[k]`, the activations being in the first lane. By assembly, because Rust's
/// intrinsic is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_product(mut sums: int32x4_t, codes: int8x16_t, activation: int32x4_t) -> int32x4_t {
    // SAFETY: register to register.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {codes:v}.16b, {activation:v}.4b[0]",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            activation = in(vreg) activation,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}
