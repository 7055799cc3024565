//! f32 to and from fp16 and bf16, as torch and numpy convert.
//!
//! Rounding is to nearest, ties to even; subnormals are kept; nothing saturates: what is too large becomes an
//! infinity and is counted. All byte slices are little-endian, as safetensors stores them.
//!
//! | | becomes infinite from | largest finite | becomes zero up to |
//! |---|---|---|---|
//! | fp16 | 65520 | 65504 | 2^-25 |
//! | bf16 | 3.3961776e38 | 3.3895314e38 | 2^-134 |
//!
//! A NaN stays a quiet NaN of the same sign; its payload is not kept.

use crate::dtype::DType;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Counts of values that the conversion changed in kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConversionLosses {
    /// finite values that became infinite
    pub overflowed: usize,
    /// non-zero values that became zero
    pub underflowed: usize,
}

/// Little-endian fp16 bytes of `values`, round to nearest even.
///
/// ```
/// use fewbit_numerics::half_precision::{ConversionLosses, f32_to_f16_bytes};
/// let mut bytes = [0; 6];
/// let losses = f32_to_f16_bytes(&[1.0, 65520.0, 1e-9], &mut bytes);
/// assert_eq!(bytes, [0x00, 0x3c, 0x00, 0x7c, 0x00, 0x00]);
/// assert_eq!(losses, ConversionLosses { overflowed: 1, underflowed: 1 });
/// ```
///
/// # Panics
///
/// If `out.len()` is not `2 * values.len()`.
pub fn f32_to_f16_bytes(values: &[f32], out: &mut [u8]) -> ConversionLosses {
    narrow(values, out, 0x7c00, |values, halves| {
        let mut converted = [f16::ZERO; CHUNK];
        let converted = &mut converted[..values.len()];
        converted.convert_from_f32_slice(values);
        for (half, converted) in halves.iter_mut().zip(converted) {
            *half = converted.to_bits();
        }
    })
}

/// Little-endian bf16 bytes of `values`, round to nearest even, NaN kept quiet.
///
/// # Panics
///
/// If `out.len()` is not `2 * values.len()`.
pub fn f32_to_bf16_bytes(values: &[f32], out: &mut [u8]) -> ConversionLosses {
    narrow(values, out, 0x7f80, |values, halves| {
        for (half, &value) in halves.iter_mut().zip(values) {
            let bits = value.to_bits();
            // Half a unit in the last place, less one where the kept part is even: a tie then carries only into an odd one.
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            // Rounding could carry a NaN into the sign bit or, truncated, make it an infinity.
            let quiet_nan = bits >> 16 | 0x40;
            *half = if value.is_nan() { quiet_nan } else { rounded } as u16;
        }
    })
}

/// Values that are converted together.
const CHUNK: usize = 64;

/// Converts to 16 bits, chunk by chunk, and counts the losses; `infinity` is the pattern of +infinity.
fn narrow(
    values: &[f32],
    out: &mut [u8],
    infinity: u16,
    convert: impl Fn(&[f32], &mut [u16]),
) -> ConversionLosses {
    assert_eq!(out.len(), 2 * values.len(), "two bytes for each value");
    let mut losses = ConversionLosses::default();
    for (bytes, values) in out.chunks_mut(2 * CHUNK).zip(values.chunks(CHUNK)) {
        let mut halves = [0u16; CHUNK];
        let halves = &mut halves[..values.len()];
        convert(values, halves);
        let (mut overflowed, mut underflowed) = (0u32, 0u32);
        for ((bytes, &half), value) in bytes.chunks_exact_mut(2).zip(&*halves).zip(values) {
            let magnitude = half & 0x7fff;
            overflowed += u32::from((magnitude == infinity) & (value.abs() < f32::INFINITY));
            underflowed += u32::from((magnitude == 0) & (*value != 0.0));
            bytes.copy_from_slice(&half.to_le_bytes());
        }
        losses.overflowed += overflowed as usize;
        losses.underflowed += underflowed as usize;
    }
    losses
}

/// Widens little-endian fp16 bytes, exactly.
///
/// # Panics
///
/// If `bytes.len()` is not `2 * out.len()`.
pub fn f16_bytes_to_f32(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), 2 * out.len(), "2 bytes for each value");
    for (bytes, out) in bytes.chunks(2 * CHUNK).zip(out.chunks_mut(CHUNK)) {
        let mut halves = [f16::ZERO; CHUNK];
        let halves = &mut halves[..out.len()];
        for (half, &bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(bytes);
        }
        halves.convert_to_f32_slice(out);
    }
}

/// Widens little-endian bf16 bytes, exactly.
///
/// # Panics
///
/// If `bytes.len()` is not `2 * out.len()`.
pub fn bf16_bytes_to_f32(bytes: &[u8], out: &mut [f32]) {
    widen(bytes, out, |bytes| {
        f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
    });
}

/// Reads little-endian f32 bytes, at any alignment.
///
/// # Panics
///
/// If `bytes.len()` is not `4 * out.len()`.
pub fn f32_bytes_to_f32(bytes: &[u8], out: &mut [f32]) {
    widen(bytes, out, f32::from_le_bytes);
}

/// Rounds little-endian f64 bytes to the nearest f32, ties to even; what is beyond its range becomes infinite.
///
/// # Panics
///
/// If `bytes.len()` is not `8 * out.len()`.
pub fn f64_bytes_to_f32(bytes: &[u8], out: &mut [f32]) {
    widen(bytes, out, |bytes| f64::from_le_bytes(bytes) as f32);
}

/// Reads little-endian floats of `dtype` by the function above that is for it.
///
/// # Panics
///
/// If `dtype` is not F16, BF16, F32 or F64, or `bytes` does not have as many elements as `out`.
pub fn float_bytes_to_f32(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F16 => f16_bytes_to_f32(bytes, out),
        DType::BF16 => bf16_bytes_to_f32(bytes, out),
        DType::F32 => f32_bytes_to_f32(bytes, out),
        DType::F64 => f64_bytes_to_f32(bytes, out),
        other => panic!("{} elements are not read as f32", other.name()),
    }
}

/// Writes little-endian floats of `dtype`, rounded to nearest, ties to even.
///
/// # Panics
///
/// If `dtype` is not F16, BF16 or F32, or `bytes` does not have room for as many elements as `values`.
pub fn f32_to_float_bytes(dtype: DType, values: &[f32], bytes: &mut [u8]) -> ConversionLosses {
    match dtype {
        DType::F16 => f32_to_f16_bytes(values, bytes),
        DType::BF16 => f32_to_bf16_bytes(values, bytes),
        DType::F32 => {
            assert_eq!(bytes.len(), 4 * values.len(), "4 bytes for each value");
            for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
            ConversionLosses::default()
        }
        other => panic!("f32 is not written as {} elements", other.name()),
    }
}

fn widen<const N: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    assert_eq!(bytes.len(), N * out.len(), "{N} bytes for each value");
    let (elements, _) = bytes.as_chunks::<N>();
    for (value, &element) in out.iter_mut().zip(elements) {
        *value = convert(element);
    }
}
