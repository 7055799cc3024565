//! The int8 tile for weights that cannot saturate: `vpmaddubsw` sums two products of bytes in 16 bits, and saturates where they do not fit.
//!
//! An activation is at most 255. Where two neighbouring weights of an output have magnitudes that sum to at most 128, their products sum to
//! at most 255 * 128, which fits: for such weights, and only for them, the tile is exact.

use std::arch::x86_64::*;

use super::int8::{OUTPUTS, REGISTERS, store_sums};
use super::lanes::Avx2;
use crate::aligned::Scratch;
use crate::generic::linear_int4::{self, LinearInt4};
use crate::generic::linear_int8::{self, LinearInt8, Output, Requantize};
use crate::int8_tile::{
    INT8_GROUP, INT8_LINE, Int8Accumulators, Int8Operands, Int8Tile, LineOrder, PanelLayout,
};
use crate::isa::Isa;
use crate::kernels::{Exactness, Operation, Routine, SaturationProof};
use crate::quantized_rows::QuantizedRows;
use crate::simd::Simd;

/// The token of AVX2, see [`Int8Tile::assume_supported`].
#[derive(Clone, Copy)]
struct SaturationProofTile(());

impl Int8Tile for SaturationProofTile {
    type Activation = u8;

    const LAYOUT: PanelLayout = PanelLayout {
        vectors: 1,
        order: LineOrder::Fours,
    };

    const VECTORS: usize = 1;

    const ROW_BYTES: usize = <Avx2 as Int8Tile>::ROW_BYTES;

    const PREFETCH_DISTANCE: usize = <Avx2 as Int8Tile>::PREFETCH_DISTANCE;

    const PREFETCH_ROWS: usize = <Avx2 as Int8Tile>::PREFETCH_ROWS;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        SaturationProofTile(())
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
}

/// `ROWS` rows of sixteen outputs.
///
/// # Safety
///
/// As [`Int8Tile::multiply`] for `ROWS` rows.
#[inline(never)] // One copy for all epilogues.
#[target_feature(enable = "avx2")]
unsafe fn tile<const ROWS: usize>(operands: Int8Operands<u8>, accumulators: &mut Int8Accumulators) {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); REGISTERS]; ROWS];
    let mut weights = operands.weights;
    let mut activations = operands.activations;
    let mut prefetch = operands.prefetch.line;
    let mut due = 0;
    // SAFETY: groups * 4 activations in each of the rows and sixteen outputs of each group are readable; a prefetch reads nothing.
    unsafe {
        for _ in 0..operands.groups {
            due += operands.prefetch.rate;
            if due >= 256 {
                _mm_prefetch::<_MM_HINT_T0>(prefetch);
                prefetch = prefetch.wrapping_add(INT8_LINE);
                due -= 256;
            }
            let mut codes = [_mm256_setzero_si256(); REGISTERS];
            for (register, codes) in codes.iter_mut().enumerate() {
                *codes = _mm256_load_si256(weights.add(register * OUTPUTS * INT8_GROUP).cast());
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let activation = activations.add(row * operands.stride).cast::<i32>();
                let activation = _mm256_set1_epi32(activation.read_unaligned());
                for (sum, &codes) in sums.iter_mut().zip(&codes) {
                    let pairs = _mm256_maddubs_epi16(activation, codes);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                }
            }
            activations = activations.wrapping_add(INT8_GROUP);
            weights = weights.wrapping_add(operands.group_stride);
        }
        store_sums(&sums, accumulators);
    }
}

/// # Safety
///
/// The CPU has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn linear(call: LinearInt8<'_>, output: Output<'_>) {
    // SAFETY: this function's contract.
    let s = unsafe { <Avx2 as Simd>::assume_supported() };
    linear_int8::linear_int8(s, SaturationProofTile(()), call, output);
}

/// # Safety
///
/// As [`linear`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn linear_of_int4(call: LinearInt4<'_>, output: Output<'_>) {
    // SAFETY: this function's contract.
    let s = unsafe { <Avx2 as Simd>::assume_supported() };
    linear_int4::linear_int4(s, SaturationProofTile(()), call, output);
}

/// # Safety
///
/// As [`linear`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn linear_requantize(call: LinearInt8<'_>, output: Requantize<'_>) {
    // SAFETY: this function's contract.
    let s = unsafe { <Avx2 as Simd>::assume_supported() };
    linear_int8::linear_requantize(s, SaturationProofTile(()), call, output);
}

/// The routines, for the kernel table.
pub(super) const ROUTINES: SaturationProof = SaturationProof {
    routines: [
        Routine {
            name: "avx2_linear_saturation_proof_u8s8i32_6x16",
            isa: Isa::Avx2,
            operation: Operation::LinearInt8SaturationProof,
            operation_name: "linear_saturation_proof",
            types: "u8s8i32",
            tile: "6x16",
            exactness: Exactness::SameBits,
        },
        Routine {
            name: "avx2_linear_saturation_proof_u8s4f32_6x16",
            isa: Isa::Avx2,
            operation: Operation::LinearInt4SaturationProof,
            operation_name: "linear_saturation_proof",
            types: "u8s4f32",
            tile: "6x16",
            exactness: Exactness::SameBits,
        },
        Routine {
            name: "avx2_linear_requantize_saturation_proof_u8s8u8_6x16",
            isa: Isa::Avx2,
            operation: Operation::LinearRequantizeSaturationProof,
            operation_name: "linear_requantize_saturation_proof",
            types: "u8s8u8",
            tile: "6x16",
            exactness: Exactness::SameBits,
        },
    ],
    layout: SaturationProofTile::LAYOUT,
    linear_int8: linear,
    linear_int4: linear_of_int4,
    linear_requantize,
};
