//! The int8 tile: `usmmla` adds the product of two rows of eight unsigned bytes and two outputs of eight signed bytes to 2 x 2 sums of
//! i32, without saturation.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::aligned::Scratch;
use crate::int8_tile::{
    INT8_GROUP, Int8Accumulators, Int8Operands, Int8Tile, LineOrder, PanelLayout,
};
use crate::quantized_rows::QuantizedRows;
use crate::simd::LANES;

/// The token of NEON with matrix products, see [`Int8Tile::assume_supported`].
#[derive(Clone, Copy)]
pub(crate) struct MatrixTile(());

/// Outputs whose codes of one group fill a register.
const OUTPUTS: usize = 4;

/// Registers of one group of sixteen outputs.
const REGISTERS: usize = LANES / OUTPUTS;

/// For each pair of rows and of outputs: row 0 times outputs 0 and 1, row 1 times outputs 0 and 1.
type Sums<const PAIRS: usize> = [[int32x4_t; LANES / 2]; PAIRS];

impl Int8Tile for MatrixTile {
    type Activation = u8;

    const LAYOUT: PanelLayout = PanelLayout {
        vectors: 1,
        order: LineOrder::Fours,
    };

    const VECTORS: usize = 1;

    const ACTIVATION_OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        MatrixTile(())
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
                1 | 2 => tile::<1>(operands, accumulators),
                3 | 4 => tile::<2>(operands, accumulators),
                _ => tile::<3>(operands, accumulators),
            }
        }
    }
}

/// `PAIRS` pairs of rows of sixteen outputs. Where the last row is alone, it is its own partner, and the line after it gets its sums too.
///
/// # Safety
///
/// As [`Int8Tile::multiply`] for `2 * PAIRS - 1` or `2 * PAIRS` rows.
#[inline(never)] // One copy for all epilogues.
#[target_feature(enable = "neon,i8mm")]
unsafe fn tile<const PAIRS: usize>(
    operands: Int8Operands<u8>,
    accumulators: &mut Int8Accumulators,
) {
    let mut sums: Sums<PAIRS> = [[vdupq_n_s32(0); LANES / 2]; PAIRS];
    let mut weights = operands.weights;
    // SAFETY: groups * 4 activations in each of the rows and sixteen outputs of each group are readable; a row's partner is one of the
    // rows.
    unsafe {
        let mut rows = [[operands.activations; 2]; PAIRS];
        for (pair, rows) in rows.iter_mut().enumerate() {
            let partner = (2 * pair + 1).min(operands.rows - 1);
            *rows = [2 * pair, partner].map(|row| operands.activations.add(row * operands.stride));
        }
        // Two groups at a time are the eight columns of an instruction.
        for pair_of_groups in 0..operands.groups / 2 {
            let next = weights.wrapping_add(operands.group_stride);
            let mut activations = [vdupq_n_u8(0); PAIRS];
            for (activations, rows) in activations.iter_mut().zip(&rows) {
                let offset = pair_of_groups * 2 * INT8_GROUP;
                let (first, second) = (rows[0].add(offset), rows[1].add(offset));
                *activations = vcombine_u8(vld1_u8(first), vld1_u8(second));
            }
            for register in 0..REGISTERS {
                let offset = register * OUTPUTS * INT8_GROUP;
                let codes = vld1q_s32(weights.add(offset).cast());
                let next_codes = vld1q_s32(next.add(offset).cast());
                add_products(&mut sums, register, activations, codes, next_codes);
            }
            weights = next.wrapping_add(operands.group_stride);
        }
        if !operands.groups.is_multiple_of(2) {
            let mut activations = [vdupq_n_u8(0); PAIRS];
            for (activations, rows) in activations.iter_mut().zip(&rows) {
                let mut lanes = vdupq_n_s32(0);
                let offset = (operands.groups - 1) * INT8_GROUP;
                let (first, second) = (rows[0].add(offset), rows[1].add(offset));
                lanes = vsetq_lane_s32::<0>(first.cast::<i32>().read_unaligned(), lanes);
                lanes = vsetq_lane_s32::<2>(second.cast::<i32>().read_unaligned(), lanes);
                *activations = vreinterpretq_u8_s32(lanes);
            }
            for register in 0..REGISTERS {
                let codes = vld1q_s32(weights.add(register * OUTPUTS * INT8_GROUP).cast());
                add_products(&mut sums, register, activations, codes, vdupq_n_s32(0));
            }
        }
        for (sums, lines) in sums.iter().zip(accumulators.0.as_chunks_mut::<2>().0) {
            for (register, sums) in sums.as_chunks::<2>().0.iter().enumerate() {
                let [low, high] = sums.map(|sums| vreinterpretq_s64_s32(sums));
                let (first, second) = (vzip1q_s64(low, high), vzip2q_s64(low, high));
                let offset = register * OUTPUTS;
                vst1q_s32(
                    lines[0][0].as_mut_ptr().add(offset),
                    vreinterpretq_s32_s64(first),
                );
                vst1q_s32(
                    lines[1][0].as_mut_ptr().add(offset),
                    vreinterpretq_s32_s64(second),
                );
            }
        }
    }
}

/// Adds the products of all rows and the four outputs of `register`, whose codes of two consecutive groups are given.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn add_products<const PAIRS: usize>(
    sums: &mut Sums<PAIRS>,
    register: usize,
    activations: [uint8x16_t; PAIRS],
    codes: int32x4_t,
    next_codes: int32x4_t,
) {
    // The eight codes of outputs 0 and 1, and of 2 and 3.
    let low = vreinterpretq_s8_s32(vzip1q_s32(codes, next_codes));
    let high = vreinterpretq_s8_s32(vzip2q_s32(codes, next_codes));
    for (sums, activations) in sums.iter_mut().zip(activations) {
        sums[2 * register] = matrix_product(sums[2 * register], activations, low);
        sums[2 * register + 1] = matrix_product(sums[2 * register + 1], activations, high);
    }
}

/// `sums[r][o] += sum over eight k of activations[r][k] * codes[o][k]`. By assembly, because Rust's intrinsic is not stable.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn matrix_product(mut sums: int32x4_t, activations: uint8x16_t, codes: int8x16_t) -> int32x4_t {
    // SAFETY: register to register. Not `pure`, which would let the compiler load far ahead, and then not all sums fit in the registers.
    unsafe {
        asm!(
            "usmmla {sums:v}.4s, {activations:v}.16b, {codes:v}.16b",
            sums = inout(vreg) sums,
            activations = in(vreg) activations,
            codes = in(vreg) codes,
            options(nomem, nostack, preserves_flags)
        );
    }
    sums
}
