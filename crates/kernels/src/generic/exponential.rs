//! Exponential functions.

use crate::generic::coefficients::{EXP, EXP2, EXP2_OF_CODES};
use crate::simd::Simd;

/// Evaluates a polynomial, coefficients from the constant term up, by Horner's rule with fused multiply-adds.
#[inline(always)]
pub(crate) fn polynomial<S: Simd, const N: usize>(
    s: S,
    x: S::F32,
    coefficients: &[f32; N],
) -> S::F32 {
    let mut value = s.splat(coefficients[N - 1]);
    for index in (0..N - 1).rev() {
        value = s.fma(value, x, s.splat(coefficients[index]));
    }
    value
}

/// ln(2) to nine significant bits: n times it is exact.
const LN_2_HIGH: f32 = 355.0 / 512.0;

/// ln(2) - [`LN_2_HIGH`]
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// exp(x) with a relative error of at most 2^-23 where the result is normal, within one place where it is subnormal; 0 and infinity in the
/// far tails, NaN for NaN.
///
/// x = n ln(2) + r with |r| <= ln(2) / 2 (ln(2) in two parts, so that r is exact to well below its last place), a polynomial of degree 6 in
/// r, and a multiplication by 2^n that rounds once.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // The bounds give 0 and infinity; min and max in this operand order keep NaN.
    let x = s.min(s.splat(89.0), s.max(s.splat(-104.0), x));
    let n = s.round_ties_even(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    let r = s.fma(n, s.splat(-LN_2_LOW), r);
    let tail = polynomial(s, r, &EXP);
    let value = s.add(s.fma(s.mul(r, r), tail, r), s.splat(1.0));
    s.scale_by_power_of_two(value, n)
}

/// 2^x for x that is at most 0 or hardly more, with a relative error of at most 2^-22, and half a place more where the result is subnormal;
/// 0 in the far tail, NaN for NaN.
///
/// x = n + f with |f| <= 1 / 2, which is exact, a polynomial of degree 5 in f, and a multiplication by 2^n that rounds once.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // The bound gives 0; max in this operand order keeps NaN.
    let x = s.max(s.splat(-151.0), x);
    let f = s.fraction(x);
    let value = s.fma(polynomial(s, f, &EXP2), f, s.splat(1.0));
    s.scale_by_power_of_two(value, s.sub(x, f))
}

/// 2^x for x of at most 100, to be rounded to a code: with a relative error of at most 2^-13, which is far below half a step of any code that
/// matters; at least 2^-100. NaN for NaN.
///
/// As [`exp2`], with a polynomial of degree 3.
#[inline(always)]
pub(crate) fn exp2_of_codes<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // Far from subnormal numbers, which would be slow; max in this operand order keeps NaN.
    let x = s.max(s.splat(-100.0), x);
    let f = s.fraction(x);
    s.scale_by_power_of_two(polynomial(s, f, &EXP2_OF_CODES), s.sub(x, f))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::scalar::Scalar;

    fn exp_of(x: f32) -> f32 {
        exp(Scalar, Scalar.splat(x))[0]
    }

    /// In units of the polynomial's value, 0.7 to 1.42: the last addition is wrong by 3e-8 below 1 and 6e-8 above, r by 2.1e-8 times the
    /// value, the addition of r by 1.5e-8, the rest by 1e-8. That is at most 1.1e-7 of the value.
    #[test]
    fn relative_error_is_at_most_epsilon() {
        // From the least normal result to the greatest finite one.
        let steps = 1_000_000;
        for step in 0..=steps {
            let x = (-87.33 + 176.05 * f64::from(step) / f64::from(steps)) as f32;
            let (found, exact) = (exp_of(x), f64::from(x).exp());
            let error = (f64::from(found) - exact).abs() / exact;
            assert!(
                error <= f64::from(f32::EPSILON),
                "exp({x}) = {found}: {error:e}"
            );
        }
    }

    #[test]
    fn subnormal_results_are_within_one_place() {
        for step in 0..1700 {
            let x = -87.0 - step as f32 / 100.0;
            let error = (f64::from(exp_of(x)) - f64::from(x).exp()).abs();
            let bound = f64::from(f32::from_bits(1)) + 1.2e-7 * f64::from(x).exp();
            assert!(error <= bound, "exp({x}) = {:e}", exp_of(x));
        }
    }

    /// The polynomial is wrong by 1.1e-7, its evaluation by 6e-8 from the last rounding and 2e-8 from those before, of a value of at least
    /// 0.7: 2.7e-7 against 2^-22 = 2.4e-7, which the worst cases of the parts, being at different places, do not reach together.
    #[test]
    fn exp2_is_within_its_bounds() {
        let exp2_of = |x: f32| exp2(Scalar, Scalar.splat(x))[0];
        for step in 0..=1_500_000 {
            let x = -step as f32 / 10_000.0;
            let (found, exact) = (f64::from(exp2_of(x)), f64::from(x).exp2());
            let relative = exact * 2f64.powi(-22);
            let bound = relative + f64::from(f32::from_bits(1)) / 2.0;
            assert!((found - exact).abs() <= bound, "2^{x} = {found:e}");
        }
        for (x, expected) in [
            (0.0, 1.0),
            (-0.0, 1.0),
            (f32::NEG_INFINITY, 0.0),
            (-1e30, 0.0),
        ] {
            assert_eq!(exp2_of(x), expected, "2^{x}");
        }
        assert!(exp2_of(f32::NAN).is_nan());
    }

    /// The polynomial is within 7.6e-5 of a value of at least 0.7, its evaluation far closer.
    #[test]
    fn exp2_of_codes_is_within_its_bound() {
        let exp2_of = |x: f32| exp2_of_codes(Scalar, Scalar.splat(x))[0];
        for step in -17_000..=100_000 {
            let x = -step as f32 / 1_000.0;
            let (found, exact) = (f64::from(exp2_of(x)), f64::from(x).exp2());
            let relative = (found - exact).abs() / exact;
            assert!(
                relative <= 2f64.powi(-13),
                "2^{x} = {found:e}: {relative:e}"
            );
        }
        // Rounded to a code they are all zero.
        for x in [-101.0, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exp2_of(x), exp2_of(-100.0), "2^{x}");
        }
        assert!(exp2_of(f32::NAN).is_nan());
    }

    #[test]
    fn tails_and_special_values() {
        for (x, expected) in [
            (0.0, 1.0),
            (-0.0, 1.0),
            (-104.0, 0.0),
            (-1e30, 0.0),
            (f32::NEG_INFINITY, 0.0),
            (88.73, f32::INFINITY),
            (1e30, f32::INFINITY),
            (f32::INFINITY, f32::INFINITY),
        ] {
            assert_eq!(exp_of(x), expected, "exp({x})");
        }
        assert!(exp_of(f32::NAN).is_nan());
    }
}
