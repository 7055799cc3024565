//! Scales of NF4 and FP4 blocks with the least squared error, plain or with an importance for each element.
//!
//! Whoever dequantizes a block multiplies values of the code table with the number that is stored as its absmax, and does not ask whether that is the largest
//! magnitude of the block. With a smaller scale the few weights at the ends of the table are clipped, and all others have finer steps.

use std::ops::RangeInclusive;

use crate::four_bit::{FourBitType, MINIMUM_ABSMAX};

/// Scales that are tried, in 64ths of the largest magnitude. Those above it put the largest weight on another value than the last of the table.
pub const SHARES: RangeInclusive<u8> = 40..=80;

/// The scale with which a block (finite, of the largest magnitude `absmax`) has the least squared error, among shares of `absmax` and what least squares fit to
/// the codes that each of them gives. No worse than `absmax`, which it is where nothing is better.
///
/// The error is a sum in f32 in the order of the elements, of what [`encode_with_scale`] gives.
///
/// ```
/// use fewbit_numerics::four_bit::FourBitType;
/// use fewbit_numerics::four_bit_scales::least_error_scale;
///
/// // Most weights are half of the largest, for which NF4 has no value.
/// let mut block = [0.5; 64];
/// block[0] = 1.0;
/// let scale = least_error_scale(&block, 1.0, FourBitType::Nf4);
/// assert!(scale < 1.0);
/// ```
pub fn least_error_scale(block: &[f32], absmax: f32, kind: FourBitType) -> f32 {
    least(block, |_| 1.0, absmax, kind)
}

/// [`least_error_scale`] where the squared error of element i counts `importance[i]` times (finite, not negative, of a size whose sums with squares of the
/// block are finite). With the mean square of the input that an element is multiplied by, the error is that of the outputs, had the inputs nothing to do
/// with one another.
///
/// A block of no importance keeps `absmax`.
///
/// ```
/// use fewbit_numerics::four_bit::FourBitType;
/// use fewbit_numerics::four_bit_scales::least_weighted_error_scale;
///
/// // The first element alone counts, and NF4 has a value for it.
/// let (block, importance) = ([0.4, 1.0], [1.0, 0.0]);
/// let scale = least_weighted_error_scale(&block, &importance, 1.0, FourBitType::Nf4);
/// let nearest = FourBitType::Nf4.table().map(|value| (value * scale - 0.4).abs());
/// assert!(nearest.into_iter().fold(1.0, f32::min) < 1e-7);
/// ```
///
/// # Panics
///
/// If there is not one importance for each element.
pub fn least_weighted_error_scale(
    block: &[f32],
    importance: &[f32],
    absmax: f32,
    kind: FourBitType,
) -> f32 {
    assert_eq!(block.len(), importance.len(), "one for each element");
    least(block, |index| importance[index], absmax, kind)
}

fn least(block: &[f32], importance: impl Fn(usize) -> f32, absmax: f32, kind: FourBitType) -> f32 {
    let fit = |scale| fit(block, &importance, scale, kind);
    let mut best = (absmax, fit(absmax).error);
    for share in SHARES {
        let scale = absmax * (f32::from(share) / 64.0);
        let found = fit(scale);
        for (scale, error) in [
            (scale, found.error),
            (found.best_scale, fit(found.best_scale).error),
        ] {
            if error < best.1 && scale.is_finite() && scale > 0.0 {
                best = (scale, error);
            }
        }
    }
    best.0
}

/// The codes of a block with a scale, two a byte, as a whole block of [`quantize_blocks`](crate::four_bit::quantize_blocks) has them with its largest magnitude.
///
/// # Panics
///
/// If `packed` does not have half as many bytes as `block` has elements.
pub fn encode_with_scale(block: &[f32], scale: f32, kind: FourBitType, packed: &mut [u8]) {
    assert_eq!(block.len(), 2 * packed.len(), "two codes a byte");
    let inverse = reciprocal(scale);
    for (byte, pair) in packed.iter_mut().zip(block.as_chunks::<2>().0) {
        let [high, low] = pair.map(|x| kind.encode(x * inverse));
        *byte = high << 4 | low;
    }
}

/// What a value is multiplied with to become one of the code table under a scale, which double quantization can make negative: 1 / scale, with at least
/// [`MINIMUM_ABSMAX`] as its magnitude.
///
/// ```
/// use fewbit_numerics::four_bit_scales::reciprocal;
/// assert_eq!([0.5, -0.25].map(reciprocal), [2.0, -4.0]);
/// assert_eq!(reciprocal(0.0), 1.0 / 1e-38);
/// ```
pub fn reciprocal(scale: f32) -> f32 {
    match scale.abs() < MINIMUM_ABSMAX {
        true => 1.0 / MINIMUM_ABSMAX,
        false => 1.0 / scale,
    }
}

/// What the codes of a block with some scale amount to.
struct Fit {
    error: f32,
    /// The scale that these codes have the least error with.
    best_scale: f32,
}

fn fit(block: &[f32], importance: impl Fn(usize) -> f32, scale: f32, kind: FourBitType) -> Fit {
    let table = kind.table();
    let inverse = reciprocal(scale);
    let (mut error, mut products, mut squares) = (0.0f32, 0.0f32, 0.0f32);
    for (index, &x) in block.iter().enumerate() {
        let value = table[usize::from(kind.encode(x * inverse))];
        let difference = x - value * scale;
        let importance = importance(index);
        error += importance * (difference * difference);
        products += importance * (x * value);
        squares += importance * (value * value);
    }
    Fit {
        error,
        best_scale: products / squares,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::four_bit::{dequantize_range, quantize_blocks};

    const KINDS: [FourBitType; 2] = [FourBitType::Nf4, FourBitType::Fp4];

    /// Roughly normal numbers.
    fn weights(count: usize, mut state: u64) -> Vec<f32> {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
        };
        (0..count).map(|_| (0..6).map(|_| next()).sum()).collect()
    }

    fn largest(block: &[f32]) -> f32 {
        block.iter().fold(0.0, |largest, x| x.abs().max(largest))
    }

    fn error_of(block: &[f32], scale: f32, kind: FourBitType) -> f32 {
        let mut packed = vec![0; block.len() / 2];
        encode_with_scale(block, scale, kind, &mut packed);
        let mut restored = vec![0.0; block.len()];
        dequantize_range(&packed, &[scale], block.len(), kind, 0, &mut restored);
        let differences = block.iter().zip(&restored).map(|(x, y)| x - y);
        differences.map(|difference| difference * difference).sum()
    }

    #[test]
    fn no_block_gets_worse_and_most_get_better() {
        for kind in KINDS {
            let mut better = 0;
            for seed in 0..200 {
                let block = weights(64, seed);
                let absmax = largest(&block);
                let scale = least_error_scale(&block, absmax, kind);
                let (found, before) = (
                    error_of(&block, scale, kind),
                    error_of(&block, absmax, kind),
                );
                assert!(found <= before, "{kind:?}, block {seed}: {found}, {before}");
                better += usize::from(found < before);
                // A grid that is sixteen times as fine finds little more: the error is smooth but where a code changes.
                let fine = (640..=1280).map(|share| absmax * (share as f32 / 1024.0));
                let least = fine
                    .map(|scale| error_of(&block, scale, kind))
                    .fold(f32::INFINITY, f32::min);
                assert!(
                    found <= 1.1 * least,
                    "{kind:?}, block {seed}: {found}, {least}"
                );
            }
            assert!(better > 190, "{kind:?}: {better}");
        }
    }

    #[test]
    fn what_counts_more_gets_the_smaller_error() {
        for kind in KINDS {
            for seed in 0..100 {
                let block = weights(64, seed);
                let importance: Vec<f32> = weights(64, seed + 1000)
                    .iter()
                    .map(|x| (4.0 * x).exp())
                    .collect();
                let absmax = largest(&block);
                let error = |scale: f32| -> f32 {
                    let mut packed = vec![0; 32];
                    encode_with_scale(&block, scale, kind, &mut packed);
                    let mut restored = vec![0.0; 64];
                    dequantize_range(&packed, &[scale], 64, kind, 0, &mut restored);
                    let pairs = block.iter().zip(&restored).zip(&importance);
                    pairs.map(|((x, y), w)| w * ((x - y) * (x - y))).sum()
                };
                let plain = least_error_scale(&block, absmax, kind);
                let weighted = least_weighted_error_scale(&block, &importance, absmax, kind);
                assert!(error(weighted) <= error(absmax), "{kind:?}, block {seed}");
                // Both searches try the same shares, so that only what least squares fit to them can tell the plain scale apart.
                assert!(
                    error(weighted) <= 1.1 * error(plain),
                    "{kind:?}, block {seed}"
                );
                let ones = least_weighted_error_scale(&block, &[1.0; 64], absmax, kind);
                assert_eq!(ones, plain);
                let none = least_weighted_error_scale(&block, &[0.0; 64], absmax, kind);
                assert_eq!(none, absmax);
            }
        }
    }

    #[test]
    fn codes_with_the_largest_magnitude_are_those_of_blocks() {
        for kind in KINDS {
            let block = weights(64, 3);
            let expected = quantize_blocks(&block, 64, kind);
            let mut packed = [0; 32];
            encode_with_scale(&block, expected.absmax[0], kind, &mut packed);
            assert_eq!(packed[..], expected.packed);
        }
    }

    #[test]
    fn extremes_keep_a_scale_that_can_be_stored() {
        for kind in KINDS {
            assert_eq!(least_error_scale(&[0.0; 64], 0.0, kind), 0.0);
            assert_eq!(least_error_scale(&[2.5; 64], 2.5, kind), 2.5);
            // Squares that overflow, and such as vanish: nothing is found to be better.
            for size in [f32::MAX, f32::MIN_POSITIVE] {
                let mut block = [0.3 * size; 64];
                block[0] = size;
                assert_eq!(least_error_scale(&block, size, kind), size);
            }
        }
    }
}
