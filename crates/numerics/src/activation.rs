//! Per-token activation quantization to u8 codes: the reference of the kernels' row quantizer.
//!
//! # The normative order of operations
//!
//! For a row `x` of finite numbers, every operation in float32 with one rounding and none fused:
//!
//! 1. `min` = the least of 0 and all elements, `max` = the greatest of 0 and all elements. Minimum and maximum do not
//!    depend on the order of the reduction, except for the sign of a zero result, which has no effect on what follows.
//! 2. The row's parameters come from these two numbers alone, by [`row_parameters`]. It is scalar work, once a row:
//!    kernels call it rather than repeat it.
//! 3. `inverse = 1 / scale`.
//! 4. Each code is `clamp(round_ties_even(x[i] * inverse), -zero_point, 255 - zero_point) + zero_point`, the rule of
//!    [`crate::affine`]. Clamping before rounding gives the same codes.
//!
//! A row of zeros has every code equal to the zero point and dequantizes to exactly 0. The scale is at least 2^-23 and at most
//! 2 * `f32::MAX` / 255, so neither it nor its reciprocal is ever zero, infinite or NaN.

use crate::affine::{AffineParameters, CodeRange};

/// The most columns of an int8 weight matrix that a sum of products with u8 activations may run over: no partial sum of
/// `activation * weight`, nor of `(activation - zero_point) * weight`, can leave i32, as each term is at most 255 * 128 in magnitude.
///
/// ```
/// use fewbit_numerics::activation::MAX_INT8_COLUMNS;
/// assert_eq!(MAX_INT8_COLUMNS, 65_793);
/// assert!((MAX_INT8_COLUMNS as i64 + 1) * 255 * 128 > i64::from(i32::MAX));
/// ```
pub const MAX_INT8_COLUMNS: usize = i32::MAX as usize / (255 * 128);

/// Codes of twelve bits: the finest activations whose products with int8 weights take no more than one instruction for 16-bit numbers, or two
/// for bytes.
pub const TWELVE_BIT_CODES: CodeRange = CodeRange { min: 0, max: 4095 };

/// [`MAX_INT8_COLUMNS`] for activations of twelve bits.
///
/// ```
/// use fewbit_numerics::activation::MAX_TWELVE_BIT_COLUMNS;
/// assert_eq!(MAX_TWELVE_BIT_COLUMNS, 4_097);
/// assert!((MAX_TWELVE_BIT_COLUMNS as i64 + 1) * 4095 * 128 > i64::from(i32::MAX));
/// ```
pub const MAX_TWELVE_BIT_COLUMNS: usize = i32::MAX as usize / (4095 * 128);

/// The rule by which the range of one token's activations gives a scale and a zero point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationScheme {
    /// u8 codes over the zero-extended minimum..maximum of the row. The default.
    Affine,
    /// Codes -128..=127 with scale absmax/127.5, stored as u8 with zero point 128.
    Symmetric,
}

/// Scale and zero point (0..=255) of a row whose least and greatest elements, zero included, are `min` and `max`.
///
/// Affine: [`AffineParameters::affine`]; symmetric: [`AffineParameters::symmetric`] of the larger magnitude; both over
/// [`CodeRange::UINT8`]. The signs of zero arguments have no effect, and bounds that do not include zero are extended to it.
pub fn row_parameters(min: f32, max: f32, scheme: ActivationScheme) -> AffineParameters {
    match scheme {
        ActivationScheme::Affine => AffineParameters::affine(min, max, CodeRange::UINT8),
        ActivationScheme::Symmetric => {
            let absmax = (-min).max(max).max(0.0);
            AffineParameters::symmetric(absmax, CodeRange::UINT8)
        }
    }
}

/// Quantizes one row of finite numbers. The order of float operations is normative (see the module): every kernel gives the
/// same bits.
///
/// NaN elements do not take part in the range and get the zero point; a row with an infinity gets meaningless codes.
/// Callers refuse both first.
///
/// ```
/// use fewbit_numerics::activation::{ActivationScheme, quantize_row};
/// let mut codes = [0; 4];
/// let parameters = quantize_row(&[-1.0, 0.0, 0.5, 3.0], ActivationScheme::Affine, &mut codes);
/// assert_eq!(parameters.zero_point, 64);
/// assert_eq!(codes, [0, 64, 96, 255]);
/// ```
///
/// # Panics
///
/// If `x` and `codes` have different lengths.
pub fn quantize_row(x: &[f32], scheme: ActivationScheme, codes: &mut [u8]) -> AffineParameters {
    assert_eq!(x.len(), codes.len(), "one code for each element");
    let (min, max) = range_with_zero(x);
    let parameters = row_parameters(min, max, scheme);
    for (code, quantized) in codes
        .iter_mut()
        .zip(parameters.quantize_each(x, CodeRange::UINT8))
    {
        // In 0..=255 by the clamp of the rule.
        *code = quantized as u8;
    }
    parameters
}

/// [`row_parameters`] of an affine row over [`TWELVE_BIT_CODES`].
pub fn twelve_bit_row_parameters(min: f32, max: f32) -> AffineParameters {
    AffineParameters::affine(min, max, TWELVE_BIT_CODES)
}

/// [`quantize_row`] to affine codes of twelve bits: the same order of operations over [`TWELVE_BIT_CODES`].
///
/// ```
/// use fewbit_numerics::activation::quantize_row_twelve_bit;
/// let mut codes = [0; 4];
/// let parameters = quantize_row_twelve_bit(&[-1.0, 0.0, 0.5, 3.0], &mut codes);
/// assert_eq!(parameters.zero_point, 1024);
/// assert_eq!(codes, [0, 1024, 1536, 4095]);
/// ```
///
/// # Panics
///
/// If `x` and `codes` have different lengths.
pub fn quantize_row_twelve_bit(x: &[f32], codes: &mut [u16]) -> AffineParameters {
    assert_eq!(x.len(), codes.len(), "one code for each element");
    let (min, max) = range_with_zero(x);
    let parameters = twelve_bit_row_parameters(min, max);
    let quantized = parameters.quantize_each(x, TWELVE_BIT_CODES);
    for (code, quantized) in codes.iter_mut().zip(quantized) {
        // In 0..=4095 by the clamp of the rule.
        *code = quantized as u16;
    }
    parameters
}

/// The least and the greatest of 0 and all elements.
fn range_with_zero(x: &[f32]) -> (f32, f32) {
    x.iter().fold((0.0f32, 0.0f32), |(min, max), &value| {
        (min.min(value), max.max(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: [ActivationScheme; 2] = [ActivationScheme::Affine, ActivationScheme::Symmetric];

    fn quantized(x: &[f32], scheme: ActivationScheme) -> (AffineParameters, Vec<u8>) {
        let mut codes = vec![99; x.len()];
        let parameters = quantize_row(x, scheme, &mut codes);
        (parameters, codes)
    }

    #[test]
    fn zero_rows_are_the_zero_point_and_dequantize_to_zero() {
        for (scheme, zero_point) in SCHEMES.into_iter().zip([0, 128]) {
            for row in [&[][..], &[0.0; 5], &[-0.0; 5], &[0.0, -0.0], &[-0.0, 0.0]] {
                let (parameters, codes) = quantized(row, scheme);
                assert_eq!(
                    parameters,
                    AffineParameters {
                        scale: f32::EPSILON,
                        zero_point
                    }
                );
                assert!(codes.iter().all(|&code| i32::from(code) == zero_point));
                assert_eq!(parameters.dequantize(zero_point).to_bits(), 0);
            }
        }
    }

    #[test]
    fn the_sign_of_a_zero_bound_has_no_effect() {
        for scheme in SCHEMES {
            for row in [[0.0, 2.0, 5.0], [0.0, -2.0, -5.0]] {
                let negative_zero = [-0.0, row[1], row[2]];
                assert_eq!(quantized(&row, scheme), quantized(&negative_zero, scheme));
            }
            let parameters = row_parameters(0.0, 0.0, scheme);
            assert_eq!(row_parameters(-0.0, 0.0, scheme), parameters);
            assert_eq!(row_parameters(0.0, -0.0, scheme), parameters);
            assert_eq!(row_parameters(-0.0, -0.0, scheme), parameters);
        }
    }

    #[test]
    fn hand_computed_rows() {
        // Affine: scale 510 / 255 = 2, zero point 100 / 2.
        let (parameters, codes) = quantized(
            &[-100.0, 410.0, 1.0, 3.0, 5.0, 0.0],
            ActivationScheme::Affine,
        );
        assert_eq!(
            parameters,
            AffineParameters {
                scale: 2.0,
                zero_point: 50
            }
        );
        // 0.5, 1.5 and 2.5 steps are ties: 0, 2, 2.
        assert_eq!(codes, [0, 255, 50, 52, 52, 50]);
        // Symmetric: scale 255 / 127.5 = 2; the positive end, 127.5 steps, is clamped to 127.
        let (parameters, codes) =
            quantized(&[255.0, -255.0, 1.0, -3.0], ActivationScheme::Symmetric);
        assert_eq!(
            parameters,
            AffineParameters {
                scale: 2.0,
                zero_point: 128
            }
        );
        assert_eq!(codes, [255, 0, 128, 126]);
    }

    #[test]
    fn one_signed_rows_use_all_codes() {
        let (parameters, codes) = quantized(&[1.0, 255.0], ActivationScheme::Affine);
        assert_eq!(
            (parameters.scale, parameters.zero_point, codes),
            (1.0, 0, vec![1, 255])
        );
        let (parameters, codes) = quantized(&[-1.0, -255.0], ActivationScheme::Affine);
        assert_eq!(
            (parameters.scale, parameters.zero_point, codes),
            (1.0, 255, vec![254, 0])
        );
    }

    #[test]
    fn extreme_rows_have_usable_parameters() {
        let big = f32::MAX;
        for scheme in SCHEMES {
            for row in [
                &[big, -big, big / 2.0, 1.0][..],
                &[3e38, -3e38],
                &[big, 0.0],
                &[-big],
                &[1e-45, -1e-45],
                &[1e-40, f32::MIN_POSITIVE],
                &[1e-45, big],
            ] {
                let (parameters, codes) = quantized(row, scheme);
                assert!(
                    parameters.scale >= f32::EPSILON && parameters.scale.is_finite(),
                    "{row:?}"
                );
                assert!(
                    parameters.inverse_scale() > 0.0 && parameters.inverse_scale().is_finite(),
                    "{row:?}"
                );
                assert!((0..=255).contains(&parameters.zero_point), "{row:?}");
                for (&x, code) in row.iter().zip(codes) {
                    let step = f64::from(parameters.scale);
                    // The bound that tests/affine_properties.rs derives, in f64 because code 255 may dequantize beyond f32.
                    let value = f64::from(i32::from(code) - parameters.zero_point) * step;
                    let bound = (0.5 + 2f64.powi(-14)) * step;
                    assert!((f64::from(x) - value).abs() <= bound, "{x:e} in {row:?}");
                }
            }
        }
    }

    #[test]
    fn nan_elements_get_the_zero_point_and_infinities_do_not_panic() {
        let (parameters, codes) = quantized(&[f32::NAN, -100.0, 410.0], ActivationScheme::Affine);
        assert_eq!(
            parameters,
            AffineParameters {
                scale: 2.0,
                zero_point: 50
            }
        );
        assert_eq!(codes, [50, 0, 255]);
        for scheme in SCHEMES {
            quantized(&[f32::INFINITY, f32::NEG_INFINITY, 1.0], scheme);
        }
    }

    #[test]
    fn twelve_bits_are_the_same_rule_over_more_codes() {
        // Scale 8190 / 4095 = 2, zero point 100 / 2; 0.5, 1.5 and 2.5 steps are ties.
        let x = [-100.0, 8090.0, 1.0, 3.0, 5.0, 0.0, f32::NAN];
        let mut codes = [9; 7];
        let parameters = quantize_row_twelve_bit(&x, &mut codes);
        assert_eq!((parameters.scale, parameters.zero_point), (2.0, 50));
        assert_eq!(codes, [0, 4095, 50, 52, 52, 50, 50]);
        let parameters = quantize_row_twelve_bit(&[0.0; 3], &mut codes[..3]);
        assert_eq!((parameters.scale, parameters.zero_point), (f32::EPSILON, 0));
        assert_eq!(codes[..3], [0; 3]);
    }

    #[test]
    #[should_panic(expected = "one code for each element")]
    fn lengths_differ() {
        quantize_row(&[1.0, 2.0], ActivationScheme::Affine, &mut [0]);
    }
}
