//! fp16 and bf16 conversion against PyTorch, int32 packing against compressed-tensors.

use crate::golden_input::{bytes, cases, floats, number};
use fewbit_numerics::half_precision::{
    ConversionLosses, bf16_bytes_to_f32, f16_bytes_to_f32, f32_to_bf16_bytes, f32_to_f16_bytes,
};
use fewbit_numerics::int_packing::{pack_rows, packed_words, unpack_rows};

#[test]
fn half_precision_is_that_of_torch() {
    for case in cases("half_precision.json") {
        let values = floats(&case, "values");
        let mut out = vec![0; 2 * values.len()];
        let losses = f32_to_f16_bytes(&values, &mut out);
        assert_eq!(out, bytes(&case, "f16"));
        let expected = ConversionLosses {
            overflowed: number(&case, "f16_overflowed"),
            underflowed: number(&case, "f16_underflowed"),
        };
        assert_eq!(losses, expected);

        let losses = f32_to_bf16_bytes(&values, &mut out);
        assert_eq!(out, bytes(&case, "bf16"));
        let expected = ConversionLosses {
            overflowed: number(&case, "bf16_overflowed"),
            underflowed: number(&case, "bf16_underflowed"),
        };
        assert_eq!(losses, expected);
    }
}

#[test]
fn every_half_widens_exactly_and_narrows_to_itself() {
    let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut wide = vec![0.0f32; 65536];
    let mut narrow = vec![0; 2 * 65536];

    f16_bytes_to_f32(&patterns, &mut wide);
    for (pattern, &value) in (0..=u16::MAX).zip(&wide) {
        // The value by the definition of the format, exact in f64.
        let (exponent, fraction) = (
            i32::from(pattern >> 10 & 31),
            f64::from(pattern & 1023) / 1024.0,
        );
        let magnitude = match exponent {
            0 => fraction * 2f64.powi(-14),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
        };
        let negative = pattern >> 15 == 1;
        assert_eq!(value.is_sign_negative(), negative, "{pattern:#06x}");
        let found = f64::from(value.abs());
        assert!(
            found == magnitude || found.is_nan() && magnitude.is_nan(),
            "{pattern:#06x}: {value}"
        );
    }
    let losses = f32_to_f16_bytes(&wide, &mut narrow);
    assert_eq!(losses, ConversionLosses::default());
    assert_same_but_nan(&patterns, &narrow, 0x7c00);

    bf16_bytes_to_f32(&patterns, &mut wide);
    for (pattern, value) in (0..=u16::MAX).zip(&wide) {
        assert_eq!(value.to_bits(), u32::from(pattern) << 16);
    }
    let losses = f32_to_bf16_bytes(&wide, &mut narrow);
    assert_eq!(losses, ConversionLosses::default());
    assert_same_but_nan(&patterns, &narrow, 0x7f80);
}

fn assert_same_but_nan(patterns: &[u8], narrow: &[u8], infinity: u16) {
    for (&pattern, &found) in patterns.as_chunks().0.iter().zip(narrow.as_chunks().0) {
        let (pattern, found) = (u16::from_le_bytes(pattern), u16::from_le_bytes(found));
        let quiet_bit = infinity >> 1 & !infinity;
        if pattern & 0x7fff > infinity {
            assert_eq!(
                found & quiet_bit,
                quiet_bit,
                "NaN {pattern:#06x} became {found:#06x}"
            );
            assert_eq!(
                found & infinity,
                infinity,
                "NaN {pattern:#06x} became {found:#06x}"
            );
            assert_eq!(found >> 15, pattern >> 15, "sign of {pattern:#06x}");
        } else {
            assert_eq!(found, pattern);
        }
    }
}

#[test]
fn packing_is_that_of_compressed_tensors() {
    for case in cases("int_packing.json") {
        let (rows, columns, bits) = (
            number(&case, "rows"),
            number(&case, "columns"),
            number(&case, "bits"),
        );
        let codes: Vec<i8> = bytes(&case, "codes")
            .iter()
            .map(|&byte| byte.cast_signed())
            .collect();
        let expected: Vec<i32> = bytes(&case, "words")
            .as_chunks()
            .0
            .iter()
            .map(|&b| i32::from_le_bytes(b))
            .collect();
        let words = pack_rows(&codes, rows, columns, bits);
        assert_eq!(words, expected, "{bits} bits, {rows} x {columns}");
        assert_eq!(words.len(), rows * packed_words(columns, bits));
        assert_eq!(unpack_rows(&words, rows, columns, bits), codes);
    }
}
