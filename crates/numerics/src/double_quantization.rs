//! Double quantization: the block absmax values, themselves quantized to 8 bits in blocks of 256.
//!
//! `absmax - offset` of 256 consecutive blocks is divided by its own largest magnitude, the nested absmax, and replaced by an
//! index into the [`dynamic_map`]. A block of 64 weights then costs 8 bits of absmax instead of 32.
//!
//! Codes are chosen as bitsandbytes 0.50.2 chooses them on a CPU. It does not look for the nearest value of the map: it rounds
//! `(v + 1) / 2 * 65535` to an integer and looks the code up in a table of that many entries. About one value in 700 gets a
//! neighbour of the nearest code, and zero gets code 131 (2.125e-5) rather than 127. A file may hold any codes; the
//! same choice is made here so that the same weights give the same file.

use std::sync::LazyLock;

use crate::absmax::absmax as largest_magnitude;
use crate::dynamic_map::dynamic_map;

/// Blocks of absmax values that share one nested absmax.
pub const NESTED_BLOCK_SIZE: usize = 256;

/// 8-bit dynamic codes of `absmax - offset`.
#[derive(Debug, Clone, PartialEq)]
pub struct DoubleQuantized {
    /// (n) indices into [`dynamic_map`].
    pub codes: Vec<u8>,
    /// (ceil(n / [`NESTED_BLOCK_SIZE`]))
    pub nested_absmax: Vec<f32>,
    /// Subtracted before quantizing, added after dequantizing.
    pub offset: f32,
}

impl DoubleQuantized {
    /// The absmax values that the codes stand for: [`dequantize`] with the map that they are indices of.
    pub fn dequantize(&self) -> Vec<f32> {
        dequantize(
            &self.codes,
            dynamic_map(),
            &self.nested_absmax,
            NESTED_BLOCK_SIZE,
            self.offset,
        )
    }
}

/// Quantizes absmax values (finite, not negative) around their mean.
///
/// The mean is summed in f64 in order and rounded to f32 once; 0 for no values. bitsandbytes takes PyTorch's f32 mean, whose
/// last bits depend on how PyTorch splits the sum; the offset travels in the file, so any loader dequantizes with this one.
///
/// ```
/// use fewbit_numerics::{double_quantization, dynamic_map::dynamic_map};
/// let absmax = [0.25, 0.5, 0.125, 0.625];
/// let quantized = double_quantization::quantize(&absmax);
/// assert_eq!(quantized.offset, 0.375);
/// let restored = double_quantization::dequantize(
///     &quantized.codes, dynamic_map(), &quantized.nested_absmax, 256, quantized.offset);
/// // The map's values near 1 are 0.0141 apart and scaled by the nested absmax, here 0.25.
/// for (restored, absmax) in restored.iter().zip(absmax) {
///     assert!((restored - absmax).abs() < 0.25 * 0.0141 / 2.0 + 1e-5);
/// }
/// ```
pub fn quantize(absmax: &[f32]) -> DoubleQuantized {
    let sum: f64 = absmax.iter().map(|&a| f64::from(a)).sum();
    let mean = sum / absmax.len().max(1) as f64;
    quantize_with_offset(absmax, mean as f32)
}

/// Quantizes `absmax - offset` with a given offset; the difference is rounded to f32 once.
///
/// A block whose values all equal the offset has the nested absmax 0 and the codes 0, as bitsandbytes writes it.
pub fn quantize_with_offset(absmax: &[f32], offset: f32) -> DoubleQuantized {
    let mut codes = Vec::with_capacity(absmax.len());
    let mut nested_absmax = Vec::with_capacity(absmax.len().div_ceil(NESTED_BLOCK_SIZE));
    let mut centred = [0.0f32; NESTED_BLOCK_SIZE];
    for block in absmax.chunks(NESTED_BLOCK_SIZE) {
        let centred = &mut centred[..block.len()];
        for (centred, &a) in centred.iter_mut().zip(block) {
            *centred = a - offset;
        }
        let nested = largest_magnitude(centred);
        nested_absmax.push(nested);
        let inverse = 1.0 / nested;
        codes.extend(centred.iter().map(|&value| code_of(value * inverse)));
    }
    DoubleQuantized {
        codes,
        nested_absmax,
        offset,
    }
}

/// `map[code] * nested_absmax[i / nested_block_size] + offset`, two roundings, no FMA. `map` is the file's own nested_quant_map.
///
/// # Panics
///
/// If `nested_block_size` is 0 or `nested_absmax` has fewer than `ceil(codes.len() / nested_block_size)` values.
pub fn dequantize(
    codes: &[u8],
    map: &[f32; 256],
    nested_absmax: &[f32],
    nested_block_size: usize,
    offset: f32,
) -> Vec<f32> {
    assert!(
        nested_block_size > 0,
        "a nested block holds at least one value"
    );
    assert!(
        nested_absmax.len() >= codes.len().div_ceil(nested_block_size),
        "one nested absmax for each block"
    );
    let mut absmax = Vec::with_capacity(codes.len());
    for (block, &nested) in codes.chunks(nested_block_size).zip(nested_absmax) {
        absmax.extend(
            block
                .iter()
                .map(|&code| map[usize::from(code)] * nested + offset),
        );
    }
    absmax
}

/// Greatest index of the code table.
const LAST_STEP: u32 = 65535;

/// For each of the 65536 steps from -1 to 1 the first code whose midpoint to the next one is not below the step.
static CODE_OF_STEP: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let map = dynamic_map();
    let mut code = 0;
    (0..=LAST_STEP)
        .map(|step| {
            let value = -1.0 + 2.0 * step as f32 / LAST_STEP as f32;
            while code < 255 && (map[code] + map[code + 1]) / 2.0 < value {
                code += 1;
            }
            code as u8
        })
        .collect()
});

/// Code of `value`, which is in -1..=1 but for rounding. A NaN, from a nested absmax so small that its reciprocal is
/// infinite, gets code 0.
fn code_of(value: f32) -> u8 {
    let step = (value.clamp(-1.0, 1.0) + 1.0) * 0.5 * LAST_STEP as f32 + 0.5;
    // Truncates; at most 65535.5, and a NaN becomes 0.
    CODE_OF_STEP[step as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_the_mean_in_f64() {
        // In f32 the ones would be lost one by one.
        let mut absmax = vec![1.0f32; 1025];
        absmax[0] = 16_777_216.0;
        let expected = ((16_777_216.0f64 + 1024.0) / 1025.0) as f32;
        assert_eq!(quantize(&absmax).offset, expected);
        assert_ne!(absmax.iter().sum::<f32>() / 1025.0, expected);
    }

    #[test]
    fn equal_values_come_back_exactly() {
        let quantized = quantize(&[0.7; 300]);
        assert_eq!(quantized.nested_absmax, [0.0, 0.0]);
        assert_eq!(quantized.codes, [0; 300]);
        let restored = dequantize(&quantized.codes, dynamic_map(), &[0.0, 0.0], 256, 0.7);
        assert_eq!(restored, [0.7; 300]);
    }

    #[test]
    fn no_values() {
        let expected = DoubleQuantized {
            codes: vec![],
            nested_absmax: vec![],
            offset: 0.0,
        };
        assert_eq!(quantize(&[]), expected);
        assert_eq!(dequantize(&[], dynamic_map(), &[], 256, 0.0), []);
    }

    #[test]
    fn zero_gets_the_code_of_the_library_not_the_nearest() {
        assert_eq!(code_of(0.0), 131);
        assert_eq!((code_of(-1.0), code_of(1.0)), (0, 255));
        assert_eq!(
            (code_of(-2.0), code_of(2.0), code_of(f32::NAN)),
            (0, 255, 0)
        );
    }

    #[test]
    fn codes_are_within_one_step_of_the_nearest_value() {
        let map = dynamic_map();
        for i in -30_000..=30_000 {
            let value = i as f32 / 30_000.0;
            let chosen = (map[usize::from(code_of(value))] - value).abs();
            let nearest = map
                .iter()
                .map(|m| (m - value).abs())
                .fold(f32::MAX, f32::min);
            // The step that a value is rounded to is at most 1/65535 away, so the choice is worse than the nearest by at most
            // twice that; 1e-6 is for the float32 roundings of the step, of numbers up to 65535.5 * 2^-24 / 65535.
            assert!(chosen <= nearest + 2.0 / 65535.0 + 1e-6, "{value}");
        }
    }

    #[test]
    fn each_nested_block_has_its_own_absmax() {
        let mut absmax = vec![0.0; 513];
        absmax[3] = 4.0;
        absmax[256] = 0.5;
        absmax[512] = 0.25;
        let quantized = quantize_with_offset(&absmax, 0.0);
        assert_eq!(quantized.nested_absmax, [4.0, 0.5, 0.25]);
        assert_eq!([3, 256, 512].map(|i| quantized.codes[i]), [255; 3]);
    }

    #[test]
    fn dequantization_rounds_twice() {
        // The square of 1 + 2^-22 is 1 + 2^-21 + 2^-44: the last term is lost when the product is rounded.
        let factor = 1.0 + 2.0 * f32::EPSILON;
        let mut map = [0.0; 256];
        map[9] = factor;
        let restored = dequantize(&[9], &map, &[factor], 1, -1.0);
        assert_eq!(restored, [2f32.powi(-21)]);
        assert_ne!(restored[0], factor.mul_add(factor, -1.0));
    }

    #[test]
    #[should_panic(expected = "one nested absmax for each block")]
    fn too_few_nested_values_panic() {
        dequantize(&[0; 257], dynamic_map(), &[1.0], 256, 0.0);
    }
}
