//! int8 weights whose products cannot saturate in 16 bits.
//!
//! The instruction `vpmaddubsw` of AVX2 multiplies u8 activations by s8 weights and adds the products of neighbouring inputs, 2i and
//! 2i + 1, in 16 bits, where sums beyond -32768..=32767 are cut off. The largest activation is 255, so that a pair of weights `a`, `b` with
//!
//! ```text
//! |a| + |b| <= 128        255 * 128 = 32640 <= 32767
//! ```
//!
//! is exact with all activations. Such codes are no format of their own: a reader sees int8 weights with one scale a row. The scale is
//! [`SCALE_FACTOR`] times that of ordinary codes, as wide pairs become rare with it, and the pairs that are still too wide are moved to
//! the nearest ones that are not. What this costs in accuracy is made up for by a method that lets later columns take over the error of earlier ones.

use crate::affine::{AffineParameters, CodeRange, MINIMUM_SCALE};

/// The largest sum of the magnitudes of two neighbouring codes.
pub const PAIR_LIMIT: i32 = 128;

/// By how much scales are wider than `largest / 127`. Found by trials on all-MiniLM-L6-v2: with 1, codes are fine and many pairs
/// are cut, with 2 no pair is cut and steps are coarse; from 1.4 to 1.7 the accuracy hardly differs.
pub const SCALE_FACTOR: f32 = 1.5;

/// The largest magnitude of a code. -128 is left out, so that a sum of two magnitudes is at most 254.
const LARGEST_CODE: i32 = 127;

/// The scale of a row with this largest magnitude: `1.5 * absmax / 127`, at least the least normal float; 2^-23 for a row of zeros.
///
/// ```
/// use fewbit_numerics::saturation::saturation_proof_scale;
/// assert_eq!(saturation_proof_scale(254.0), 3.0);
/// ```
pub fn saturation_proof_scale(absmax: f32) -> f32 {
    if absmax == 0.0 {
        MINIMUM_SCALE
    } else {
        (absmax / LARGEST_CODE as f32 * SCALE_FACTOR).max(f32::MIN_POSITIVE)
    }
}

/// The code of the first weight of a pair, where the second is to be quantized next; both are finite.
///
/// In units of the scale, a pair with `|first| + |second| > 128` is moved to the nearest point of that limit: each magnitude gives up half
/// of the excess. The first is rounded there; [`second_code`] then has what is left.
///
/// ```
/// use fewbit_numerics::affine::AffineParameters;
/// use fewbit_numerics::saturation::{first_code, second_code};
/// let parameters = AffineParameters { scale: 0.5, zero_point: 0 };
/// // 100 and -60: 32 too much.
/// let first = first_code(50.0, -30.0, parameters);
/// assert_eq!((first, second_code(-30.0, first, parameters)), (84, -44));
/// ```
pub fn first_code(first: f64, second: f64, parameters: AffineParameters) -> i32 {
    let scale = f64::from(parameters.scale);
    let largest = f64::from(LARGEST_CODE) * scale;
    let magnitude = first.abs().min(largest);
    let excess = magnitude + second.abs().min(largest) - f64::from(PAIR_LIMIT) * scale;
    let kept = (magnitude - excess.max(0.0) / 2.0).max(0.0);
    parameters.quantize(kept.copysign(first) as f32, codes(LARGEST_CODE))
}

/// The code of the second weight of a pair whose first has the code `first`, -127..=127.
pub fn second_code(second: f64, first: i32, parameters: AffineParameters) -> i32 {
    let free = (PAIR_LIMIT - first.abs()).clamp(0, LARGEST_CODE);
    parameters.quantize(second as f32, codes(free))
}

/// The code of a last weight that has no neighbour.
pub fn single_code(weight: f64, parameters: AffineParameters) -> i32 {
    parameters.quantize(weight as f32, codes(LARGEST_CODE))
}

fn codes(largest: i32) -> CodeRange {
    CodeRange {
        min: -largest,
        max: largest,
    }
}

/// How many pairs of a row-major matrix of codes can saturate: those with `|a| + |b| > 128`. The last of an odd number of columns has no
/// neighbour, and cannot.
///
/// ```
/// use fewbit_numerics::saturation::saturating_pairs;
/// assert_eq!(saturating_pairs(&[127, -1, -128, 127, -2, 0], 3), 1);
/// ```
///
/// # Panics
///
/// If `columns` is 0.
pub fn saturating_pairs(codes: &[i8], columns: usize) -> usize {
    let magnitude = |code: i8| i32::from(code).abs();
    codes
        .chunks(columns)
        .flat_map(|row| row.as_chunks::<2>().0)
        .filter(|[a, b]| magnitude(*a) + magnitude(*b) > PAIR_LIMIT)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: AffineParameters = AffineParameters {
        scale: 1.0,
        zero_point: 0,
    };

    #[test]
    fn the_limit_is_the_largest_that_cannot_saturate() {
        let largest_sum = |limit: i32| u8::MAX as i32 * limit;
        assert!(largest_sum(PAIR_LIMIT) <= i16::MAX.into());
        assert!(largest_sum(PAIR_LIMIT + 1) > i16::MAX.into());
    }

    /// Every pair of values on a grid that is finer than the codes and wider than their range.
    #[test]
    fn every_pair_is_within_the_limit_and_near_pairs_are_rounded() {
        let values = || (-1200..=1200).map(|i| f64::from(i) / 7.0);
        for first in values() {
            for second in values() {
                let a = first_code(first, second, ONE);
                let b = second_code(second, a, ONE);
                assert!(a.abs() + b.abs() <= PAIR_LIMIT, "{first} {second}: {a} {b}");
                if first.abs() + second.abs() <= 127.0 {
                    assert!((first - f64::from(a)).abs() <= 0.5, "{first} {second}: {a}");
                    assert!(
                        (second - f64::from(b)).abs() <= 0.5,
                        "{first} {second}: {b}"
                    );
                }
                // A sign is never turned round.
                assert!(f64::from(a) * first >= 0.0 && f64::from(b) * second >= 0.0);
            }
        }
    }

    /// No pair of codes within the limit is nearer than the one chosen by more than the rounding of its first code gives away.
    #[test]
    fn wide_pairs_go_to_the_nearest_point_of_the_limit() {
        for (first, second) in [
            (100.0, 100.0),
            (127.0, 60.0),
            (-127.0, 3.0),
            (2.0, -127.0),
            (90.4, -70.7),
        ] {
            let distance = |a: i32, b: i32| (first - f64::from(a)).hypot(second - f64::from(b));
            let a = first_code(first, second, ONE);
            let b = second_code(second, a, ONE);
            let nearest = (-127i32..=127)
                .flat_map(|a| (-127i32..=127).map(move |b| (a, b)))
                .filter(|(a, b)| a.abs() + b.abs() <= PAIR_LIMIT)
                .map(|(a, b)| distance(a, b))
                .fold(f64::INFINITY, f64::min);
            // Along the limit one step is sqrt(2) long, and rounding misses by half a step at most.
            assert!(
                distance(a, b) <= nearest + 2f64.sqrt() / 2.0,
                "{first} {second}: {a} {b}"
            );
        }
    }

    #[test]
    fn scales_are_usable() {
        assert_eq!(saturation_proof_scale(0.0), MINIMUM_SCALE);
        for absmax in [1e-45, f32::MIN_POSITIVE, 1e-30, 1.0, f32::MAX] {
            let scale = saturation_proof_scale(absmax);
            assert!(
                scale >= f32::MIN_POSITIVE && (1.0 / scale).is_finite(),
                "{absmax:e}"
            );
        }
    }

    #[test]
    fn values_far_outside_do_not_panic() {
        for first in [f64::MAX, f64::MIN, f64::INFINITY, f64::NAN, 0.0] {
            for second in [f64::MAX, f64::NEG_INFINITY, f64::NAN] {
                let a = first_code(first, second, ONE);
                let b = second_code(second, a, ONE);
                assert!(a.abs() + b.abs() <= PAIR_LIMIT);
                assert!(single_code(second, ONE).abs() <= LARGEST_CODE);
            }
        }
    }

    #[test]
    fn pairs_do_not_reach_over_rows() {
        assert_eq!(saturating_pairs(&[100, 28, 100, 100, 29, 100], 3), 1);
        assert_eq!(saturating_pairs(&[100, 100, 100, 100], 1), 0);
        assert_eq!(saturating_pairs(&[-128, 0, -128, -1], 2), 1);
        assert_eq!(saturating_pairs(&[], 4), 0);
    }
}
