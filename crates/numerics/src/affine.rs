//! Affine quantization and the one rounding rule.
//!
//! A code `q` stands for the number `(q - zero_point) * scale`. Everything here is IEEE float32 arithmetic with
//! one rounding an operation and no fused multiply-add, in the order written, so that PyTorch's eager observers
//! and `quantize_per_tensor` give the same bits.
//!
//! # The rounding rule
//!
//! ```text
//! q = clamp(round_ties_even(x * (1 / scale)), min - zero_point, max - zero_point) + zero_point
//! ```
//!
//! - **The reciprocal is computed first and multiplied.** A division gives other codes at ties: with scale
//!   0.00214854861 and x 0.273939937, `x * (1/scale)` is 127.5 exactly and rounds to 128, while `x / scale` is
//!   127.499992 and rounds to 127. PyTorch multiplies, and so does every kernel here.
//! - **Ties go to the even integer**, which is what the vector instructions do.
//! - **The zero point is added after rounding**, as an integer: adding it before would move the ties.
//! - **Clamping is done in float**, before the conversion to an integer: the vector conversions turn 3e9 into
//!   `i32::MIN`, and adding a zero point to a saturated integer would wrap. As both bounds are integers, clamping
//!   before the rounding gives the same code as clamping after it.
//!
//! Non-finite numbers have no code. Callers refuse them first ([`crate::finite::first_non_finite`]); should a NaN
//! come here all the same it gets the code of zero, and an infinity gets the code at the end of the range.

/// Inclusive range of integer codes, `min <= max`, both within 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeRange {
    /// The least code.
    pub min: i32,
    /// The greatest code.
    pub max: i32,
}

impl CodeRange {
    /// -128..=127
    pub const INT8: CodeRange = CodeRange {
        min: -128,
        max: 127,
    };
    /// 0..=255
    pub const UINT8: CodeRange = CodeRange { min: 0, max: 255 };
    /// -8..=7
    pub const INT4: CodeRange = CodeRange { min: -8, max: 7 };

    /// The range of PyTorch's `reduce_range`: each bound halved and rounded down, 0..=127 and -64..=63 for 8 bits.
    ///
    /// It serves instructions that saturate sums of 8-bit products. fewbit's kernels do not saturate, so it is never needed
    /// here: it exists to give PyTorch's parameters.
    ///
    /// ```
    /// use fewbit_numerics::affine::CodeRange;
    /// assert_eq!(CodeRange::UINT8.reduced(), CodeRange { min: 0, max: 127 });
    /// assert_eq!(CodeRange::INT8.reduced(), CodeRange { min: -64, max: 63 });
    /// ```
    pub fn reduced(self) -> CodeRange {
        CodeRange {
            min: self.min.div_euclid(2),
            max: self.max.div_euclid(2),
        }
    }

    /// Number of steps between the least and the greatest code, 255 for 8 bits.
    fn steps(self) -> f32 {
        (self.max - self.min) as f32
    }

    /// `absmax / ((max - min) / 2)`, the symmetric scale before any floor.
    pub(crate) fn symmetric_scale(self, absmax: f32) -> f32 {
        absmax / (self.steps() / 2.0)
    }
}

/// The least scale of [`AffineParameters::symmetric`] and [`AffineParameters::affine`]: 2^-23, the float32 machine epsilon,
/// as PyTorch's observers have it. It keeps `1 / scale` finite for zero and denormal ranges.
pub const MINIMUM_SCALE: f32 = f32::EPSILON;

/// `x ~ (q - zero_point) * scale`
///
/// ```
/// use fewbit_numerics::affine::{AffineParameters, CodeRange};
/// let parameters = AffineParameters::affine(-1.0, 3.0, CodeRange::UINT8);
/// assert_eq!(parameters.zero_point, 64);
/// let code = parameters.quantize(2.5, CodeRange::UINT8);
/// assert_eq!(code, 223);
/// assert!((parameters.dequantize(code) - 2.5).abs() <= parameters.scale / 2.0);
/// assert_eq!(parameters.dequantize(parameters.quantize(0.0, CodeRange::UINT8)), 0.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffineParameters {
    /// Distance of two neighbouring codes; positive.
    pub scale: f32,
    /// The code of 0.
    pub zero_point: i32,
}

impl AffineParameters {
    /// Symmetric: `scale = absmax / ((max - min) / 2)`, at least [`MINIMUM_SCALE`]. For -128..=127 that is
    /// absmax / 127.5: the element +absmax maps to 127.5 and is clamped to 127.
    ///
    /// The zero point is 0 for signed ranges, 128 for 0..=255 and the middle rounded down for other unsigned ranges
    /// (PyTorch `per_tensor_symmetric`, `per_channel_symmetric`). `absmax` is a magnitude, finite and not negative.
    pub fn symmetric(absmax: f32, range: CodeRange) -> Self {
        let scale = range.symmetric_scale(absmax).max(MINIMUM_SCALE);
        let zero_point = match range {
            CodeRange { min, .. } if min < 0 => 0,
            CodeRange::UINT8 => 128,
            CodeRange { min, max } => (min + max).div_euclid(2),
        };
        AffineParameters { scale, zero_point }
    }

    /// Affine over `min..=max` extended to hold zero, so that zero has a code of its own (PyTorch
    /// `per_tensor_affine`, `per_channel_affine`):
    ///
    /// ```text
    /// scale      = max((max - min) / (range.max - range.min), MINIMUM_SCALE)
    /// zero_point = clamp(range.min - round_ties_even(min / scale), range.min, range.max)
    /// ```
    ///
    /// Where `max - min` overflows float32 the scale is `max / steps - min / steps` instead, which is finite for
    /// every finite range (PyTorch gives an infinite scale there). The sign of a zero bound has no effect.
    pub fn affine(min: f32, max: f32, range: CodeRange) -> Self {
        let (min, max) = (min.min(0.0), max.max(0.0));
        let width = max - min;
        let scale = if width <= f32::MAX {
            width / range.steps()
        } else {
            max / range.steps() - min / range.steps()
        }
        .max(MINIMUM_SCALE);
        let offset = (min / scale).round_ties_even() as i32;
        let zero_point = range.min.saturating_sub(offset).clamp(range.min, range.max);
        AffineParameters { scale, zero_point }
    }

    /// The reciprocal that [`quantize`](Self::quantize) multiplies by: `1 / scale`, rounded to float32.
    pub fn inverse_scale(&self) -> f32 {
        1.0 / self.scale
    }

    /// THE rounding rule: `clamp(round_ties_even(x * (1/scale)), min - zero_point, max - zero_point) + zero_point`.
    /// The module's documentation says why each part is as it is.
    pub fn quantize(&self, x: f32, range: CodeRange) -> i32 {
        let (low, high) = shifted_bounds(self.zero_point, range);
        // `clamp` keeps a NaN, which `as` makes 0.
        let rounded = (x * self.inverse_scale()).round_ties_even();
        rounded.clamp(low, high) as i32 + self.zero_point
    }

    /// [`quantize`](Self::quantize) for each element of a slice, the same codes at a higher speed. The zero point is within
    /// `range`, which has at most 16 bits.
    pub(crate) fn quantize_each(
        &self,
        x: &[f32],
        range: CodeRange,
    ) -> impl ExactSizeIterator<Item = i32> {
        /// 1.5 * 2^23. Adding it to a number of magnitude at most 2^22 leaves no bits for a fraction, so the sum is rounded to
        /// the nearest integer, ties to even; subtracting it again is exact. Without SSE4.1 `round_ties_even` is a function call.
        const INTEGERS_ONLY: f32 = 12_582_912.0;
        let (low, high) = shifted_bounds(self.zero_point, range);
        let (inverse, zero_point) = (self.inverse_scale(), self.zero_point);
        x.iter().map(move |&x| {
            let clamped = (x * inverse).clamp(low, high);
            (clamped + INTEGERS_ONLY - INTEGERS_ONLY) as i32 + zero_point
        })
    }

    /// `(code - zero_point) * scale`, one rounding. The ends of a range that reaches the largest floats may be half a step
    /// beyond them, which is an infinity.
    pub fn dequantize(&self, code: i32) -> f32 {
        code.saturating_sub(self.zero_point) as f32 * self.scale
    }
}

/// The range of `code - zero_point` as floats. Saturating, so that no zero point can overflow.
fn shifted_bounds(zero_point: i32, range: CodeRange) -> (f32, f32) {
    (
        range.min.saturating_sub(zero_point) as f32,
        range.max.saturating_sub(zero_point) as f32,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reciprocal_is_multiplied_not_the_scale_divided() {
        let parameters = AffineParameters {
            scale: 0.002_148_548_6,
            zero_point: 0,
        };
        let x = 0.273_939_94;
        assert_eq!(x * parameters.inverse_scale(), 127.5);
        assert_eq!((x / parameters.scale).round_ties_even(), 127.0);
        assert_eq!(parameters.quantize(x, CodeRange::UINT8), 128);
    }

    #[test]
    fn ties_go_to_the_even_integer_before_the_zero_point_is_added() {
        let parameters = AffineParameters {
            scale: 1.0,
            zero_point: 3,
        };
        let codes =
            [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5].map(|x| parameters.quantize(x, CodeRange::INT8));
        // Adding 3 first would give the even neighbours 0, 2, 2, 4, 4, 6.
        assert_eq!(codes, [1, 1, 3, 3, 5, 5]);
    }

    #[test]
    fn values_far_outside_get_the_ends_of_the_range() {
        for zero_point in [-128, 0, 127] {
            let parameters = AffineParameters {
                scale: 1e-3,
                zero_point,
            };
            for x in [1e3, 3e9, 1e30, f32::MAX, f32::INFINITY] {
                assert_eq!(parameters.quantize(x, CodeRange::INT8), 127, "{x}");
                assert_eq!(parameters.quantize(-x, CodeRange::INT8), -128, "{x}");
            }
            assert_eq!(parameters.quantize(f32::NAN, CodeRange::INT8), zero_point);
            assert_eq!(parameters.quantize(-0.0, CodeRange::INT8), zero_point);
        }
    }

    #[test]
    fn symmetric_zero_points() {
        let zero_point = |range| AffineParameters::symmetric(1.0, range).zero_point;
        assert_eq!(zero_point(CodeRange::INT8), 0);
        assert_eq!(zero_point(CodeRange::INT4), 0);
        assert_eq!(zero_point(CodeRange::UINT8), 128);
        assert_eq!(zero_point(CodeRange { min: 0, max: 127 }), 63);
        assert_eq!(
            AffineParameters::symmetric(15.0, CodeRange::INT4).scale,
            2.0
        );
    }

    #[test]
    fn ranges_without_zero_are_extended_to_it() {
        let extended = AffineParameters::affine(0.0, 3.0, CodeRange::UINT8);
        assert_eq!(
            AffineParameters::affine(1.0, 3.0, CodeRange::UINT8),
            extended
        );
        assert_eq!(
            AffineParameters::affine(-0.0, 3.0, CodeRange::UINT8),
            extended
        );
        assert_eq!(extended.zero_point, 0);
        let below = AffineParameters::affine(-3.0, -1.0, CodeRange::UINT8);
        assert_eq!((below.scale, below.zero_point), (extended.scale, 255));
        let signed = AffineParameters::affine(-3.0, -1.0, CodeRange::INT8);
        assert_eq!((signed.scale, signed.zero_point), (extended.scale, 127));
    }

    #[test]
    fn zero_and_denormal_ranges_get_the_least_scale() {
        for (min, max) in [
            (0.0, 0.0),
            (-0.0, -0.0),
            (-1e-45, 1e-45),
            (0.0, 1e-38),
            (-1e-7, 1e-7),
        ] {
            let parameters = AffineParameters::affine(min, max, CodeRange::UINT8);
            assert_eq!(parameters.scale, MINIMUM_SCALE);
            assert!(parameters.inverse_scale().is_finite());
            assert_eq!(
                parameters.dequantize(parameters.quantize(0.0, CodeRange::UINT8)),
                0.0
            );
        }
    }

    #[test]
    fn widths_beyond_float32_have_a_finite_scale() {
        let parameters = AffineParameters::affine(-3e38, 3e38, CodeRange::UINT8);
        assert_eq!(parameters.scale, 3e38 / 255.0 + 3e38 / 255.0);
        assert_eq!(parameters.zero_point, 128);
        let codes =
            [-3e38, -1e38, 0.0, 1e38, 3e38].map(|x| parameters.quantize(x, CodeRange::UINT8));
        // 3e38 / scale is 127.5: half to even, 128, clamped to 255 - 128.
        assert_eq!(codes, [0, 86, 128, 170, 255]);
        let widest = AffineParameters::affine(f32::MIN, f32::MAX, CodeRange::UINT8);
        assert!(widest.scale.is_finite() && widest.inverse_scale() > 0.0);
    }

    #[test]
    fn damaged_parameters_do_not_panic() {
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-45] {
            for zero_point in [i32::MIN, -1, i32::MAX] {
                let parameters = AffineParameters { scale, zero_point };
                for x in [0.0, -1.0, f32::MAX, f32::NAN] {
                    parameters.quantize(x, CodeRange::UINT8);
                }
                parameters.dequantize(i32::MIN);
                parameters.dequantize(i32::MAX);
            }
        }
    }

    #[test]
    fn slices_get_the_codes_of_single_values() {
        // Every 4099th bit pattern: all exponents, both signs, infinities and NaN; and all quarters of the least code steps.
        let patterns = (0..=u32::MAX / 4099).map(|i| f32::from_bits(i * 4099));
        let quarters = (-2000..2000).map(|i| i as f32 / 4.0);
        let values: Vec<f32> = patterns.chain(quarters).collect();
        for (scale, zero_point, range) in [
            (1.0, 0, CodeRange::INT8),
            (0.25, 77, CodeRange::UINT8),
            (3.1e-5, -8, CodeRange::INT4),
            (1.7e30, 255, CodeRange::UINT8),
            (
                0.5,
                0,
                CodeRange {
                    min: -32768,
                    max: 32767,
                },
            ),
        ] {
            let parameters = AffineParameters { scale, zero_point };
            for (&x, code) in values.iter().zip(parameters.quantize_each(&values, range)) {
                assert_eq!(
                    code,
                    parameters.quantize(x, range),
                    "{x:e} with {parameters:?}"
                );
            }
        }
    }
}
