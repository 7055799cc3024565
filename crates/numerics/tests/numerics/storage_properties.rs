//! Properties of packed codes, 4-bit blocks and half-precision conversion for any numbers.

use fewbit_numerics::four_bit::{FourBitType, dequantize_range, quantize_blocks};
use fewbit_numerics::half_precision::{
    bf16_bytes_to_f32, f16_bytes_to_f32, f32_bytes_to_f32, f32_to_bf16_bytes, f32_to_f16_bytes,
};
use fewbit_numerics::int_packing::{pack_rows, packed_words, unpack_rows};
use proptest::prelude::*;

/// Rows, columns and as many codes of a width.
fn matrix(bits: u32) -> impl Strategy<Value = (usize, usize, Vec<i8>)> {
    let codes = (-(1i16 << (bits - 1)) as i8)..=((1i16 << (bits - 1)) - 1) as i8;
    (0usize..6, 0usize..40).prop_flat_map(move |(rows, columns)| {
        (
            Just(rows),
            Just(columns),
            prop::collection::vec(codes.clone(), rows * columns),
        )
    })
}

proptest! {
    #[test]
    fn packed_codes_come_back((four, eight) in (matrix(4), matrix(8))) {
        for (bits, (rows, columns, codes)) in [(4, four), (8, eight)] {
            let words = pack_rows(&codes, rows, columns, bits);
            prop_assert_eq!(words.len(), rows * packed_words(columns, bits));
            prop_assert_eq!(unpack_rows(&words, rows, columns, bits), codes);
        }
    }

    /// The largest gap of a table is from one value to the next, and a value is never further than half of it, but for the
    /// roundings of the reciprocal, the product, the threshold and the dequantized value: each at most 2^-24 of absmax.
    #[test]
    fn four_bit_blocks_are_restored_within_half_a_gap(
        values in prop::collection::vec(-1.0f32..1.0, 0..200), exponent in -100i32..100, fp4 in any::<bool>(), half_block in 1usize..40,
    ) {
        let kind = if fp4 { FourBitType::Fp4 } else { FourBitType::Nf4 };
        let block_size = 2 * half_block;
        let values: Vec<f32> = values.iter().map(|x| x * 2f32.powi(exponent)).collect();
        let blocks = quantize_blocks(&values, block_size, kind);
        prop_assert_eq!(blocks.packed.len(), values.len().div_ceil(2));
        prop_assert_eq!(blocks.absmax.len(), values.len().div_ceil(block_size));
        let mut restored = vec![0.0; values.len()];
        dequantize_range(&blocks.packed, &blocks.absmax, block_size, kind, 0, &mut restored);
        let sorted = kind.ascending_codes().map(|code| kind.table()[usize::from(code)]);
        let gap = sorted.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f32::max);
        for (i, (&x, &restored)) in values.iter().zip(&restored).enumerate() {
            let absmax = f64::from(blocks.absmax[i / block_size]);
            let error = (f64::from(x) - f64::from(restored)).abs();
            prop_assert!(error <= (f64::from(gap) / 2.0 + 4.0 * 2f64.powi(-24)) * absmax, "{x:e} became {restored:e}");
        }
    }

    /// To nearest: within half a unit in the last place, which is at most 2^-11 (fp16) or 2^-8 (bf16) of the value, or half of
    /// the least subnormal.
    #[test]
    fn halves_are_the_nearest(values in prop::collection::vec(-65504.0f32..65504.0, 0..150), exponent in -30i32..1) {
        let values: Vec<f32> = values.iter().map(|x| x * 2f32.powi(exponent)).collect();
        let mut bytes = vec![0; 2 * values.len()];
        let mut restored = vec![0.0; values.len()];
        for (relative, absolute) in [(2f32.powi(-11), 2f32.powi(-25)), (2f32.powi(-8), 0.0)] {
            if absolute > 0.0 {
                f32_to_f16_bytes(&values, &mut bytes);
                f16_bytes_to_f32(&bytes, &mut restored);
            } else {
                f32_to_bf16_bytes(&values, &mut bytes);
                bf16_bytes_to_f32(&bytes, &mut restored);
            }
            for (&x, &restored) in values.iter().zip(&restored) {
                prop_assert!((x - restored).abs() <= (x.abs() * relative).max(absolute), "{x:e} became {restored:e}");
            }
        }
    }

    #[test]
    fn f32_bytes_keep_every_bit(patterns in prop::collection::vec(any::<u32>(), 0..50)) {
        let bytes: Vec<u8> = patterns.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let mut values = vec![0.0f32; patterns.len()];
        f32_bytes_to_f32(&bytes, &mut values);
        prop_assert_eq!(values.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), patterns);
    }
}
