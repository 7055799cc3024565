//! Parameters of activations that PyTorch quantizes at run time.
//!
//! The observers ([`crate::affine`]) and the run-time routine give other bits for the same range: this one computes in
//! double, has another least scale, and picks the zero point from the end of the range that loses less. Both are kept,
//! as a PyTorch user meets both: observers for static ranges and weights, this one in `quantize_dynamic` and in fused
//! quantization-aware training.
//!
//! Source: PyTorch 2.15, `aten/src/ATen/native/quantized/cpu/QuantUtils.h`, `ChooseQuantizationParams`. FBGEMM's own routine of the
//! same name rounds the scale to float32 before the zero point is computed and gives other zero points at ties.

use crate::affine::{AffineParameters, CodeRange};

/// Scales below this are raised to it: the float32 nearest to 6.1e-5, close to the least normal half-precision number.
pub const SMALL_SCALE_THRESHOLD: f32 = 6.1e-5;

/// Scale of a range so narrow that its own scale is 0 or has an infinite reciprocal.
const SCALE_OF_NOTHING: f64 = 0.1;

/// Scale and zero point of values in `min..=max`, the range extended to hold zero.
///
/// ```text
/// scale      = (max - min) / (range.max - range.min)      in double; 0.1 where its float32 is 0 or has no reciprocal
/// zero_point = range.min - min / scale    if |range.min| + |min / scale| < |range.max| + |max / scale|
///              range.max - max / scale    otherwise; clamped to the range, then rounded, ties to even
/// ```
///
/// A scale below [`SMALL_SCALE_THRESHOLD`] becomes that, and the range is widened in proportion. The scale is rounded to
/// float32 last. For `reduce_range` pass [`CodeRange::reduced`].
///
/// `preserve_sparsity` is the symmetric form: a range with both signs is widened to -(n + 1) m ..= n m, where
/// n = (range.max - range.min) / 2 rounded down, and its zero point is the middle of the codes. A range with one sign stays
/// affine, as it does in PyTorch. Where widening leaves float32 the largest float is taken (PyTorch gives an infinite scale).
///
/// `min` and `max` are finite; for NaN and infinities the result means nothing.
///
/// ```
/// use fewbit_numerics::affine::CodeRange;
/// use fewbit_numerics::choose_parameters::choose_parameters;
/// let parameters = choose_parameters(-1.0, 3.0, CodeRange::UINT8.reduced(), false);
/// assert_eq!(parameters.scale, (4.0 / 127.0) as f32);
/// assert_eq!(parameters.zero_point, 32);
/// ```
pub fn choose_parameters(
    min: f32,
    max: f32,
    range: CodeRange,
    preserve_sparsity: bool,
) -> AffineParameters {
    let steps = range.max - range.min;
    let (mut min, mut max) = (min, max);
    if preserve_sparsity && min < 0.0 && max > 0.0 {
        let above = steps / 2;
        let below = above + 1;
        let largest = f64::max(
            f64::from((min / below as f32).abs()),
            f64::from((max / above as f32).abs()),
        );
        min = ((largest * f64::from(-below)) as f32).max(f32::MIN);
        max = ((largest * f64::from(above)) as f32).min(f32::MAX);
    }
    min = min.min(0.0);
    max = max.max(0.0);
    let mut scale = (f64::from(max) - f64::from(min)) / f64::from(steps);
    if scale as f32 == 0.0 || (1.0 / scale as f32).is_infinite() {
        scale = SCALE_OF_NOTHING;
    }
    if scale < f64::from(SMALL_SCALE_THRESHOLD) {
        let amplifier = SMALL_SCALE_THRESHOLD / scale as f32;
        scale = f64::from(SMALL_SCALE_THRESHOLD);
        if min == 0.0 {
            max = SMALL_SCALE_THRESHOLD * steps as f32;
        } else if max == 0.0 {
            min = -SMALL_SCALE_THRESHOLD * steps as f32;
        } else {
            min *= amplifier;
            max *= amplifier;
        }
    }
    let (low, high) = (f64::from(range.min), f64::from(range.max));
    let (below, above) = (f64::from(min) / scale, f64::from(max) / scale);
    let exact = if preserve_sparsity && min < 0.0 && max > 0.0 {
        (low + high) / 2.0
    } else if low.abs() + below.abs() < high.abs() + above.abs() {
        low - below
    } else {
        high - above
    };
    AffineParameters {
        scale: scale as f32,
        // Within the range, which has at most 16 bits.
        zero_point: exact.clamp(low, high).round_ties_even() as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: CodeRange = CodeRange::UINT8;

    #[test]
    fn one_signed_ranges_are_extended_to_zero() {
        let positive = choose_parameters(1.0, 2.55, FULL, false);
        assert_eq!((positive.scale, positive.zero_point), (0.01, 0));
        let negative = choose_parameters(-2.55, -1.0, FULL, false);
        assert_eq!((negative.scale, negative.zero_point), (0.01, 255));
        let reduced = choose_parameters(-1.27, -1.0, FULL.reduced(), false);
        assert_eq!((reduced.scale, reduced.zero_point), (0.01, 127));
    }

    #[test]
    fn nothing_has_the_scale_of_nothing() {
        for (min, max) in [(0.0, 0.0), (-0.0, 0.0), (0.0, 1e-45), (-1e-40, 1e-40)] {
            assert_eq!(choose_parameters(min, max, FULL, false).scale, 0.1);
        }
    }

    #[test]
    fn small_scales_are_raised_and_keep_the_zero_point() {
        let parameters = choose_parameters(-1e-6, 3e-6, FULL, false);
        assert_eq!(parameters.scale, SMALL_SCALE_THRESHOLD);
        // The widened range is -1 : 3 as before: 255 / 4 codes lie below zero.
        assert_eq!(parameters.zero_point, 64);
        assert_eq!(choose_parameters(0.0, 1e-6, FULL, false).zero_point, 0);
        assert_eq!(choose_parameters(-1e-6, 0.0, FULL, false).zero_point, 255);
    }

    #[test]
    fn symmetric_ranges_have_the_middle_as_zero_point_and_one_signed_ones_do_not() {
        let symmetric = choose_parameters(-128.0, 1.0, CodeRange::INT8, true);
        assert_eq!((symmetric.scale, symmetric.zero_point), (1.0, 0));
        let wide = choose_parameters(-1.0, 2.0, CodeRange::INT8, true);
        // 2 / 127 on either side.
        assert_eq!((wide.scale, wide.zero_point), (2.0 / 127.0, 0));
        let positive = choose_parameters(0.3, 3.0, CodeRange::INT8, true);
        assert_eq!((positive.scale, positive.zero_point), (3.0 / 255.0, -128));
        let negative = choose_parameters(-4.0, -1.0, CodeRange::INT8, true);
        assert_eq!((negative.scale, negative.zero_point), (4.0 / 255.0, 127));
    }

    #[test]
    fn the_widest_range_has_a_finite_scale() {
        for preserve_sparsity in [false, true] {
            let parameters = choose_parameters(f32::MIN, f32::MAX, FULL, preserve_sparsity);
            assert!(parameters.scale.is_finite() && parameters.scale > 0.0);
            assert!((127..=128).contains(&parameters.zero_point));
        }
    }
}
