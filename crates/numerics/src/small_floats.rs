//! Floats of 8 and of 4 bits, and powers of two as scales: FP8 E4M3, FP4 E2M1, E8M0, and the weights that are made of them.
//!
//! | | largest | least | infinities | NaN |
//! |---|---|---|---|---|
//! | E4M3 (`float8_e4m3fn`) | 448 | 2^-9 | none | 0x7f, 0xff |
//! | E2M1 | 6 | 0.5 | none | none |
//! | E8M0 | 2^127 | 2^-127 | none | 0xff |
//!
//! Rounding is to nearest, ties to even (of E2M1 the code whose lowest bit is 0); what is too large becomes the largest number of its sign. The scales of weights are chosen as compressed-tensors chooses
//! them (`calculate_qparams`, `generate_gparam`, `generate_mx_scales`), for float32 weights.
//!
//! | weight | value of a code | group |
//! |---|---|---|
//! | FP8 | `E4M3 * scale` | a row, or all |
//! | NVFP4 | `E2M1 * (E4M3 scale / global scale)` | 16 columns |
//! | MXFP4 | `E2M1 * E8M0 scale` | 32 columns |

/// The largest E4M3 number.
pub const MAX_E4M3: f32 = 448.0;
/// The largest E2M1 number.
pub const MAX_E2M1: f32 = 6.0;
/// Columns that share a scale in NVFP4.
pub const NVFP4_GROUP: usize = 16;
/// Columns that share a scale in MXFP4.
pub const MXFP4_GROUP: usize = 32;

/// The magnitudes of the E2M1 codes 0 to 7; those of 8 to 15 are the same, negated.
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The number that an E4M3 code stands for.
///
/// ```
/// use fewbit_numerics::small_floats::e4m3_to_f32;
/// assert_eq!((e4m3_to_f32(0x7e), e4m3_to_f32(0x81)), (448.0, -2f32.powi(-9)));
/// assert!(e4m3_to_f32(0x7f).is_nan());
/// ```
pub fn e4m3_to_f32(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 0xf), f32::from(code & 7));
    let magnitude = match (exponent, code & 7) {
        (0xf, 7) => f32::NAN,
        (0, _) => mantissa * power_of_two(-9),
        _ => (8.0 + mantissa) * power_of_two(exponent - 10),
    };
    match code >> 7 {
        0 => magnitude,
        _ => -magnitude,
    }
}

/// The E4M3 code nearest to a number; NaN gives a NaN of its sign.
///
/// ```
/// use fewbit_numerics::small_floats::f32_to_e4m3;
/// assert_eq!([448.0, 464.0, f32::INFINITY, 1.0, -0.0].map(f32_to_e4m3), [0x7e, 0x7e, 0x7e, 0x38, 0x80]);
/// // Between 1 and 1.125, and between 1.125 and 1.25.
/// assert_eq!([1.0625, 1.1875].map(f32_to_e4m3), [0x38, 0x3a]);
/// ```
pub fn f32_to_e4m3(value: f32) -> u8 {
    let sign = (value.to_bits() >> 24) as u8 & 0x80;
    if value.is_nan() {
        return sign | 0x7f;
    }
    let magnitude = value.abs().min(MAX_E4M3);
    // Eighths of the power of two below; those of the least normal number are the steps of what is smaller, too.
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(-6);
    let eighths = (magnitude / power_of_two(exponent - 3)).round_ties_even() as u8;
    // 8 to 16 eighths; a sixteenth carries into the exponent, as it should.
    sign | match eighths {
        0..8 => eighths,
        _ => (((exponent + 7) as u8) << 3) + (eighths - 8),
    }
}

/// The number that an E2M1 code stands for; the four highest bits are ignored.
///
/// ```
/// use fewbit_numerics::small_floats::e2m1_to_f32;
/// assert_eq!((e2m1_to_f32(7), e2m1_to_f32(9)), (6.0, -0.5));
/// ```
pub fn e2m1_to_f32(code: u8) -> f32 {
    let magnitude = E2M1[usize::from(code & 7)];
    match code & 8 {
        0 => magnitude,
        _ => -magnitude,
    }
}

/// The E2M1 code nearest to a number; NaN, which has none, gives 6 with its sign. The sign of what rounds to zero is kept.
///
/// ```
/// use fewbit_numerics::small_floats::f32_to_e2m1;
/// // Ties go to the even code.
/// assert_eq!([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0].map(f32_to_e2m1), [0, 2, 2, 4, 4, 6, 6]);
/// assert_eq!([-0.1, 100.0, -7.0].map(f32_to_e2m1), [8, 7, 15]);
/// ```
pub fn f32_to_e2m1(value: f32) -> u8 {
    let sign = (value.to_bits() >> 28) as u8 & 8;
    let magnitude = value.abs();
    if magnitude.is_nan() {
        return sign | 7;
    }
    let code = (0..7u8).find(|code| {
        let middle = (E2M1[usize::from(*code)] + E2M1[usize::from(*code) + 1]) / 2.0;
        match code % 2 {
            0 => magnitude <= middle,
            _ => magnitude < middle,
        }
    });
    sign | code.unwrap_or(7)
}

/// The number that an E8M0 code stands for: `2^(code - 127)`, NaN of 255.
///
/// ```
/// use fewbit_numerics::small_floats::e8m0_to_f32;
/// assert_eq!((e8m0_to_f32(127), e8m0_to_f32(0)), (1.0, 2f32.powi(-127)));
/// assert!(e8m0_to_f32(255).is_nan());
/// ```
pub fn e8m0_to_f32(code: u8) -> f32 {
    match code {
        255 => f32::NAN,
        _ => power_of_two(i32::from(code) - 127),
    }
}

/// The E8M0 scale of a group of E2M1 codes with this largest magnitude (finite): with it 6 is reached, or is at most 1/8 too small. At least code 0.
///
/// ```
/// use fewbit_numerics::small_floats::mxfp4_scale;
/// assert_eq!([4.0, 6.0, 6.99, 7.0, 0.0].map(mxfp4_scale), [127, 127, 127, 128, 0]);
/// ```
pub fn mxfp4_scale(absmax: f32) -> u8 {
    // From 1.75 times a power of two on the next power.
    let exponent = (absmax.abs().to_bits() + (1 << 21)) >> 23;
    // At most 253, as the magnitude is finite.
    exponent.saturating_sub(2) as u8
}

/// The global scale of an NVFP4 weight with this largest magnitude (finite): what makes its largest group scale 448. 1 where that is infinite.
///
/// ```
/// use fewbit_numerics::small_floats::nvfp4_global_scale;
/// assert_eq!((nvfp4_global_scale(2688.0), nvfp4_global_scale(0.0)), (1.0, 1.0));
/// ```
pub fn nvfp4_global_scale(absmax: f32) -> f32 {
    let scale = MAX_E4M3 * MAX_E2M1 / absmax.max(f32::MIN_POSITIVE);
    match scale.is_finite() {
        true => scale,
        false => 1.0,
    }
}

/// The E4M3 scale of an NVFP4 group with this largest magnitude (finite); never 0, for which it is 1/8.
///
/// ```
/// use fewbit_numerics::small_floats::nvfp4_scale;
/// assert_eq!((nvfp4_scale(6.0, 448.0), nvfp4_scale(0.0, 448.0)), (0x7e, 0x20));
/// ```
pub fn nvfp4_scale(absmax: f32, global_scale: f32) -> u8 {
    match f32_to_e4m3(global_scale * (absmax / MAX_E2M1)) {
        0 => 0x20,
        code => code,
    }
}

/// The scale of FP8 weights with this largest magnitude (finite), a normal number: `absmax / 448`, 2^-23 of zeros.
///
/// ```
/// use fewbit_numerics::small_floats::fp8_scale;
/// assert_eq!((fp8_scale(896.0), fp8_scale(0.0)), (2.0, f32::EPSILON));
/// ```
pub fn fp8_scale(absmax: f32) -> f32 {
    match absmax {
        0.0 => f32::EPSILON,
        _ => (absmax / MAX_E4M3).max(f32::MIN_POSITIVE),
    }
}

/// E4M3 codes of values under a scale: `value / scale`, rounded.
///
/// ```
/// use fewbit_numerics::small_floats::quantize_e4m3;
/// let mut codes = [0; 2];
/// quantize_e4m3(&[2.0, -896.0], 2.0, &mut codes);
/// assert_eq!(codes, [0x38, 0xfe]);
/// ```
///
/// # Panics
/// If there is not one code for each value.
pub fn quantize_e4m3(values: &[f32], scale: f32, codes: &mut [u8]) {
    assert_eq!(values.len(), codes.len(), "one code for each value");
    for (code, value) in codes.iter_mut().zip(values) {
        *code = f32_to_e4m3(value / scale);
    }
}

/// E2M1 codes of values under a scale, two a byte, the first in the low nibble.
///
/// ```
/// use fewbit_numerics::small_floats::{dequantize_e2m1, quantize_e2m1};
/// let mut packed = [0; 1];
/// quantize_e2m1(&[3.0, -1.0], 0.5, &mut packed);
/// assert_eq!(packed, [0xc7]);
/// let mut values = [0.0; 2];
/// dequantize_e2m1(&packed, 0.5, &mut values);
/// assert_eq!(values, [3.0, -1.0]);
/// ```
///
/// # Panics
/// If there is not one byte for each pair of values.
pub fn quantize_e2m1(values: &[f32], scale: f32, packed: &mut [u8]) {
    assert_eq!(values.len(), 2 * packed.len(), "two codes a byte");
    for (byte, pair) in packed.iter_mut().zip(values.as_chunks::<2>().0) {
        let [low, high] = pair.map(|value| f32_to_e2m1(value / scale));
        *byte = high << 4 | low;
    }
}

/// The values of what [`quantize_e2m1`] packs.
///
/// # Panics
/// If there is not one byte for each pair of values.
pub fn dequantize_e2m1(packed: &[u8], scale: f32, values: &mut [f32]) {
    assert_eq!(values.len(), 2 * packed.len(), "two codes a byte");
    for (byte, pair) in packed.iter().zip(values.as_chunks_mut::<2>().0) {
        *pair = [*byte & 0xf, *byte >> 4].map(|code| e2m1_to_f32(code) * scale);
    }
}

/// 2 to a power of -149 to 127, subnormal numbers included.
fn power_of_two(exponent: i32) -> f32 {
    match exponent {
        -126.. => f32::from_bits(((exponent + 127) as u32) << 23),
        _ => f32::from_bits(1 << (exponent + 149)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code whose number is nearest, the even one of two, by looking at all.
    fn nearest(value: f64, numbers: &[(u8, f64)]) -> u8 {
        let mut best = numbers[0];
        for &(code, number) in numbers {
            let (error, known) = ((number - value).abs(), (best.1 - value).abs());
            if error < known || error == known && code % 2 == 0 {
                best = (code, number);
            }
        }
        best.0
    }

    /// Numbers on, between and just beside all the numbers of a type.
    fn probes(numbers: &[(u8, f64)]) -> Vec<f32> {
        let mut probes = vec![0.0, f32::MIN_POSITIVE, 1e-30];
        for pair in numbers.windows(2) {
            for value in [pair[0].1, (pair[0].1 + pair[1].1) / 2.0] {
                let value = value as f32;
                probes.extend([value.next_down(), value, value.next_up()]);
            }
        }
        let last = numbers[numbers.len() - 1].1 as f32;
        probes.extend([last, last * 1.01, last * 2.0, f32::MAX, f32::INFINITY]);
        probes.retain(|probe| *probe >= 0.0);
        probes
    }

    fn expect_nearest(numbers: &[(u8, f64)], sign: u8, convert: impl Fn(f32) -> u8) {
        let largest = numbers[numbers.len() - 1].1;
        for probe in probes(numbers) {
            let expected = nearest(f64::from(probe).min(largest), numbers);
            assert_eq!(convert(probe), expected, "{probe:e}");
            assert_eq!(convert(-probe), expected | sign, "-{probe:e}");
        }
    }

    #[test]
    fn every_e4m3_number_and_what_lies_between() {
        let numbers: Vec<(u8, f64)> = (0..0x7f)
            .map(|code| (code, f64::from(e4m3_to_f32(code))))
            .collect();
        assert!(numbers.windows(2).all(|pair| pair[0].1 < pair[1].1));
        assert_eq!((numbers[8].1, numbers[0x7e].1), (2f64.powi(-6), 448.0));
        expect_nearest(&numbers, 0x80, f32_to_e4m3);
        assert_eq!([f32::NAN, -f32::NAN].map(f32_to_e4m3), [0x7f, 0xff]);
        assert!([0x7f, 0xff].iter().all(|code| e4m3_to_f32(*code).is_nan()));
    }

    #[test]
    fn every_e2m1_number_and_what_lies_between() {
        let numbers: Vec<(u8, f64)> = (0..8)
            .map(|code| (code, f64::from(e2m1_to_f32(code))))
            .collect();
        expect_nearest(&numbers, 8, f32_to_e2m1);
    }

    #[test]
    fn powers_of_two() {
        for code in 0..255u8 {
            let expected = 2f64.powi(i32::from(code) - 127);
            assert_eq!(f64::from(e8m0_to_f32(code)), expected);
        }
    }

    #[test]
    fn scales_of_groups_reach_the_largest_weight() {
        for absmax in [f32::MIN_POSITIVE, 1e-6, 0.1, 1.0, 5.9, 1e30, f32::MAX] {
            let scale = e8m0_to_f32(mxfp4_scale(absmax));
            assert!(absmax <= 7.0 * scale, "{absmax:e}: {scale:e}");
            assert!(
                absmax >= 3.5 * scale || scale == e8m0_to_f32(0),
                "{absmax:e}: {scale:e}"
            );
            let fp8 = fp8_scale(absmax);
            assert!(fp8.is_normal() && f32_to_e4m3(absmax / fp8) <= 0x7e);
        }
        let global = nvfp4_global_scale(3.0);
        assert_eq!(nvfp4_scale(3.0, global), 0x7e);
    }
}
