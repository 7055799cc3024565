//! Properties of affine codes for any finite numbers.

use fewbit_numerics::activation::{ActivationScheme, quantize_row};
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_numerics::rows::quantize_rows_int8;
use proptest::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
use proptest::prelude::*;

/// Any finite number.
fn finite() -> impl Strategy<Value = f32> {
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO
}

/// Numbers of one order of magnitude, so that many codes are used, or any at all.
fn row() -> impl Strategy<Value = Vec<f32>> {
    let even = (-120i32..120, prop::collection::vec(-1.0f32..1.0, 0..70))
        .prop_map(|(exponent, row)| row.iter().map(|x| x * 2f32.powi(exponent)).collect());
    prop_oneof![even, prop::collection::vec(finite(), 0..20)]
}

/// The most that a number inside the quantized range may be from the number that its 8-bit code stands for, in steps.
///
/// With u = 2^-24, the rounding unit of float32: without clipping the error is half a step, plus the roundings of the
/// reciprocal and of the product, 2u of at most 256 steps, plus the rounding of the dequantized value, u of at most 255 steps: 0.5 +
/// 767u. At a clipped end, the zero point is off by half a step and the rounding of its quotient, 255u; the width of the range is
/// 255 steps but for the two roundings of the scale (of each half of it, where the width overflows), 510u; and again 255u for
/// dequantizing: 0.5 + 1020u, the larger. 2^-14 is 1024u; the products of roundings are below the remaining 4u.
fn bound(scale: f32) -> f64 {
    (0.5 + 2f64.powi(-14)) * f64::from(scale)
}

/// The number that a code stands for with the last rounding in f32, unless that overflows: half a step beyond the largest floats.
fn restored(parameters: &AffineParameters, code: i32) -> f64 {
    let value = parameters.dequantize(code);
    if value.is_finite() {
        f64::from(value)
    } else {
        f64::from(code - parameters.zero_point) * f64::from(parameters.scale)
    }
}

proptest! {
    #[test]
    fn values_inside_the_range_are_restored_within_half_a_step(row in row(), signed in any::<bool>()) {
        let range = if signed { CodeRange::INT8 } else { CodeRange::UINT8 };
        let min = row.iter().copied().fold(0.0, f32::min);
        let max = row.iter().copied().fold(0.0, f32::max);
        for parameters in [
            AffineParameters::affine(min, max, range),
            AffineParameters::symmetric(max.max(-min), range),
        ] {
            prop_assert!((range.min..=range.max).contains(&parameters.zero_point));
            prop_assert_eq!(parameters.dequantize(parameters.quantize(0.0, range)), 0.0);
            for &x in &row {
                let code = parameters.quantize(x, range);
                prop_assert!((range.min..=range.max).contains(&code));
                let error = (f64::from(x) - restored(&parameters, code)).abs();
                prop_assert!(error <= bound(parameters.scale), "{x:e}: {error:e} with {parameters:?}");
            }
        }
    }

    #[test]
    fn codes_do_not_decrease(x in finite(), y in finite(), scale in 1e-7f32..1e30, zero_point in 0..=255) {
        let parameters = AffineParameters { scale, zero_point };
        let (low, high) = (x.min(y), x.max(y));
        prop_assert!(parameters.quantize(low, CodeRange::UINT8) <= parameters.quantize(high, CodeRange::UINT8));
    }

    #[test]
    fn dequantized_codes_quantize_to_themselves(scale in 1e-7f32..1e30, zero_point in -128..=127, code in -128..=127) {
        let parameters = AffineParameters { scale, zero_point };
        prop_assert_eq!(parameters.quantize(parameters.dequantize(code), CodeRange::INT8), code);
    }

    #[test]
    fn activation_rows_follow_the_rule(row in row(), symmetric in any::<bool>()) {
        let scheme = if symmetric { ActivationScheme::Symmetric } else { ActivationScheme::Affine };
        let mut codes = vec![0; row.len()];
        let parameters = quantize_row(&row, scheme, &mut codes);
        prop_assert!(parameters.scale >= f32::EPSILON && parameters.scale.is_finite());
        for (&x, &code) in row.iter().zip(&codes) {
            prop_assert_eq!(i32::from(code), parameters.quantize(x, CodeRange::UINT8));
            let error = (f64::from(x) - restored(&parameters, i32::from(code))).abs();
            prop_assert!(error <= bound(parameters.scale));
        }
    }

    #[test]
    fn the_order_of_a_row_has_no_effect_on_its_parameters(row in row(), symmetric in any::<bool>()) {
        let scheme = if symmetric { ActivationScheme::Symmetric } else { ActivationScheme::Affine };
        let mut codes = vec![0; row.len()];
        let parameters = quantize_row(&row, scheme, &mut codes);
        let reversed: Vec<f32> = row.iter().rev().copied().collect();
        let mut reversed_codes = vec![0; row.len()];
        prop_assert_eq!(quantize_row(&reversed, scheme, &mut reversed_codes), parameters);
        reversed_codes.reverse();
        prop_assert_eq!(reversed_codes, codes);
    }

    #[test]
    fn weight_rows_are_restored_within_half_a_step(rows in prop::collection::vec(prop::array::uniform7(finite()), 0..9)) {
        let weights = rows.as_flattened();
        let quantized = quantize_rows_int8(weights, rows.len(), 7);
        for (i, (&weight, &code)) in weights.iter().zip(&quantized.codes).enumerate() {
            let scale = quantized.scales[i / 7];
            let error = (f64::from(weight) - f64::from(code) * f64::from(scale)).abs();
            prop_assert!(error <= bound(scale), "{weight:e} in row {}", i / 7);
        }
    }
}
