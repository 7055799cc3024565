//! Fake quantization: floats that codes stand for in the place of the floats that the codes were made of, and the gradients that training
//! passes through.
//!
//! Values are those of `dequantize(quantize(x))` of [`crate::affine`], bit for bit, so that what a model is trained with is what its codes give.
//!
//! Rounding has no useful derivative. The straight-through estimator (Bengio, Léonard and Courville 2013, arXiv:1308.3432) lets the gradient pass where
//! rounding alone changed a value, and stops it where the value was clipped: with `v = x / scale` and the codes `low..=high` less the zero point,
//!
//! ```text
//! dx     = dy                          where low - 0.5 <= v <= high + 0.5, else 0
//! dscale = sum dy * (round(v) - v)     over these, and sum dy * low or dy * high over the others
//! ```
//!
//! The second line is that of learned step sizes (Esser et al. 2020, LSQ, arXiv:1902.08153), before its factor.

use crate::affine::{AffineParameters, CodeRange};

/// 1.5 * 2^23: adding and subtracting it rounds a number of magnitude at most 2^22 to the nearest integer, ties to even.
const INTEGERS_ONLY: f32 = 12_582_912.0;

/// The codes less the zero point, as floats.
fn bounds(parameters: AffineParameters, range: CodeRange) -> (f32, f32) {
    (
        (range.min - parameters.zero_point) as f32,
        (range.max - parameters.zero_point) as f32,
    )
}

/// Writes what the codes of `x` (n) stand for to `out` (n). The zero point is within `range`. NaN has the value 0.
///
/// ```
/// use fewbit_numerics::affine::{AffineParameters, CodeRange};
/// use fewbit_numerics::fake_quantize::fake_quantize;
///
/// let parameters = AffineParameters { scale: 0.5, zero_point: 0 };
/// let mut out = [0.0; 4];
/// fake_quantize(&[0.3, -0.2, 100.0, -100.0], parameters, CodeRange::INT4, &mut out);
/// assert_eq!(out, [0.5, 0.0, 3.5, -4.0]);
/// ```
///
/// # Panics
/// If the lengths differ.
pub fn fake_quantize(x: &[f32], parameters: AffineParameters, range: CodeRange, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "one value for each element");
    let (low, high) = bounds(parameters, range);
    let (scale, inverse) = (parameters.scale, parameters.inverse_scale());
    for (out, &x) in out.iter_mut().zip(x) {
        let clamped = (x * inverse).clamp(low, high);
        let code = clamped + INTEGERS_ONLY - INTEGERS_ONLY;
        *out = if code.is_nan() { 0.0 } else { code } * scale;
    }
}

/// [`fake_quantize`] of a row with the affine parameters of its own range over `range`, as [`quantize_row`](crate::activation::quantize_row) has them over
/// the codes of a byte. Returns whether all elements are finite; where they are not, `out` means nothing.
///
/// ```
/// use fewbit_numerics::affine::CodeRange;
/// use fewbit_numerics::fake_quantize::fake_quantize_row;
///
/// let mut out = [0.0; 3];
/// assert!(fake_quantize_row(&[-100.0, 410.0, 3.0], CodeRange::UINT8, &mut out));
/// assert_eq!(out, [-100.0, 410.0, 4.0]);
/// assert!(!fake_quantize_row(&[1.0, f32::NAN, 3.0], CodeRange::UINT8, &mut out));
/// ```
///
/// # Panics
/// If the lengths differ.
pub fn fake_quantize_row(x: &[f32], range: CodeRange, out: &mut [f32]) -> bool {
    const LANES: usize = 8;
    let (mut least, mut greatest) = ([0.0f32; LANES], [0.0f32; LANES]);
    // A sum of zeros, unless something is not finite: then it is NaN.
    let mut not_finite = [0.0f32; LANES];
    for chunk in x.chunks(LANES) {
        for (lane, &value) in chunk.iter().enumerate() {
            least[lane] = least[lane].min(value);
            greatest[lane] = greatest[lane].max(value);
            not_finite[lane] += 0.0 * value;
        }
    }
    let least = least.into_iter().fold(0.0, f32::min);
    let greatest = greatest.into_iter().fold(0.0, f32::max);
    let parameters = AffineParameters::affine(least, greatest, range);
    fake_quantize(x, parameters, range, out);
    not_finite.iter().all(|sum| *sum == 0.0)
}

/// Whether the gradient passes each element of `x` (n), into `passes` (n) as 1 or 0.
///
/// # Panics
/// If the lengths differ.
pub fn straight_through(
    x: &[f32],
    parameters: AffineParameters,
    range: CodeRange,
    passes: &mut [u8],
) {
    assert_eq!(x.len(), passes.len(), "one for each element");
    let (low, high) = bounds(parameters, range);
    let inverse = parameters.inverse_scale();
    for (passes, &x) in passes.iter_mut().zip(x) {
        let steps = x * inverse;
        *passes = u8::from(steps >= low - 0.5 && steps <= high + 0.5);
    }
}

/// The gradient with respect to `x` (n) into `out` (n), and that with respect to the scale, of values whose gradient is `gradient` (n).
///
/// ```
/// use fewbit_numerics::affine::{AffineParameters, CodeRange};
/// use fewbit_numerics::fake_quantize::gradients;
///
/// let parameters = AffineParameters { scale: 1.0, zero_point: 0 };
/// let mut out = [0.0; 3];
/// // Rounded up by a quarter, and clipped at either end.
/// let of_scale = gradients(&[1.75, 9.0, -9.0], &[4.0, 1.0, 2.0], parameters, CodeRange::INT4, &mut out);
/// assert_eq!(out, [4.0, 0.0, 0.0]);
/// assert_eq!(of_scale, 4.0 * 0.25 + 7.0 - 2.0 * 8.0);
/// ```
///
/// # Panics
/// If the lengths differ.
pub fn gradients(
    x: &[f32],
    gradient: &[f32],
    parameters: AffineParameters,
    range: CodeRange,
    out: &mut [f32],
) -> f32 {
    assert_eq!(
        (x.len(), x.len()),
        (gradient.len(), out.len()),
        "one for each element"
    );
    const LANES: usize = 8;
    let (low, high) = bounds(parameters, range);
    let inverse = parameters.inverse_scale();
    let mut sums = [0.0f32; LANES];
    let chunks = x.chunks(LANES).zip(gradient.chunks(LANES));
    for ((x, gradient), out) in chunks.zip(out.chunks_mut(LANES)) {
        for (lane, ((&x, &gradient), out)) in x.iter().zip(gradient).zip(out).enumerate() {
            let steps = x * inverse;
            let passes = steps >= low - 0.5 && steps <= high + 0.5;
            let clamped = steps.clamp(low, high);
            let code = clamped + INTEGERS_ONLY - INTEGERS_ONLY;
            let slope = if passes { code - steps } else { code };
            sums[lane] += gradient * slope;
            *out = if passes { gradient } else { 0.0 };
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: [CodeRange; 4] = [
        CodeRange::INT4,
        CodeRange::INT8,
        CodeRange::UINT8,
        CodeRange { min: 0, max: 4095 },
    ];

    /// Ties, ends, zeros of both signs, subnormal numbers and the largest.
    fn values() -> Vec<f32> {
        let ties = (-600..600).map(|half| half as f32 * 0.25);
        let others = [0.0, -0.0, 1e-45, -1e-45, 1e-38, f32::MAX, f32::MIN, 3e9];
        ties.chain(others).collect()
    }

    #[test]
    fn values_are_those_of_the_codes() {
        let x = values();
        let mut out = vec![f32::NAN; x.len()];
        for range in RANGES {
            for zero_point in [range.min, 0, range.max] {
                for scale in [0.5, 1.0, 0.37, -0.37, f32::EPSILON, 1e30] {
                    let parameters = AffineParameters { scale, zero_point };
                    fake_quantize(&x, parameters, range, &mut out);
                    for (&x, &found) in x.iter().zip(&out) {
                        let expected = parameters.dequantize(parameters.quantize(x, range));
                        assert_eq!(found.to_bits(), expected.to_bits(), "{x:e} {parameters:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn rows_have_the_values_of_quantize_row() {
        let x: Vec<f32> = (0..1003)
            .map(|i| ((i * 7919 % 2003) as f32).sin())
            .collect();
        for columns in [1, 7, 8, 9, 64, 1003] {
            let row = &x[..columns];
            let mut codes = vec![0; columns];
            let scheme = crate::activation::ActivationScheme::Affine;
            let parameters = crate::activation::quantize_row(row, scheme, &mut codes);
            let mut out = vec![f32::NAN; columns];
            assert!(fake_quantize_row(row, CodeRange::UINT8, &mut out));
            for (&code, found) in codes.iter().zip(out) {
                assert_eq!(found, parameters.dequantize(i32::from(code)));
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_found_anywhere() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 7, 8, 19] {
                let mut x = [1.0; 20];
                x[place] = bad;
                assert!(!fake_quantize_row(&x, CodeRange::UINT8, &mut [0.0; 20]));
            }
        }
        assert!(fake_quantize_row(
            &[f32::MAX, f32::MIN],
            CodeRange::UINT8,
            &mut [0.0; 2]
        ));
        assert!(fake_quantize_row(&[], CodeRange::UINT8, &mut []));
    }

    #[test]
    fn the_mask_is_that_of_the_gradients() {
        let x = values();
        for parameters in
            [(0.5, 3), (-0.25, 0)].map(|(scale, zero_point)| AffineParameters { scale, zero_point })
        {
            let (mut passes, mut out) = (vec![9; x.len()], vec![9.0; x.len()]);
            straight_through(&x, parameters, CodeRange::INT4, &mut passes);
            gradients(
                &x,
                &vec![1.0; x.len()],
                parameters,
                CodeRange::INT4,
                &mut out,
            );
            assert!(
                passes
                    .iter()
                    .zip(&out)
                    .all(|(&passes, &out)| f32::from(passes) == out)
            );
        }
    }
}
