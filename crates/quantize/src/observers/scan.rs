//! One pass over values: the least, the greatest, and whether all are finite.

use fewbit_numerics::finite::first_non_finite;

use super::{ObserverError, ValueRange};

/// Running results that are independent of one another, so that they fit vector registers.
const LANES: usize = 16;

/// The range of the values; `None` of no values.
///
/// # Errors
/// [`ObserverError::NonFinite`] naming the first NaN or infinity.
pub(super) fn value_range(values: &[f32]) -> Result<Option<ValueRange>, ObserverError> {
    let mut min = [f32::INFINITY; LANES];
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut sum = [0.0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        accumulate(chunk, &mut min, &mut max, &mut sum);
    }
    accumulate(rest, &mut min, &mut max, &mut sum);
    refuse_non_finite(values, &sum)?;
    if values.is_empty() {
        return Ok(None);
    }
    let min = min.into_iter().fold(f32::INFINITY, f32::min);
    let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
    Ok(Some(ValueRange::between(min, max)))
}

/// The range of each channel of `values` (rows, channels), row-major, at least one row and one channel.
///
/// # Errors
/// [`ObserverError::NonFinite`] naming the first NaN or infinity.
pub(super) fn column_ranges(
    values: &[f32],
    channels: usize,
) -> Result<Vec<ValueRange>, ObserverError> {
    let mut min = vec![f32::INFINITY; channels];
    let mut max = vec![f32::NEG_INFINITY; channels];
    let mut sum = vec![0.0; channels];
    for row in values.chunks_exact(channels) {
        accumulate(row, &mut min, &mut max, &mut sum);
    }
    refuse_non_finite(values, &sum)?;
    let bounds = min.into_iter().zip(max);
    Ok(bounds
        .map(|(min, max)| ValueRange::between(min, max))
        .collect())
}

/// Takes one value into each lane.
///
/// The comparisons are written so that each is one instruction; they skip a NaN, which the sum keeps.
#[inline(always)]
fn accumulate(values: &[f32], min: &mut [f32], max: &mut [f32], sum: &mut [f32]) {
    for (((&x, min), max), sum) in values.iter().zip(min).zip(max).zip(sum) {
        *min = if x < *min { x } else { *min };
        *max = if x > *max { x } else { *max };
        *sum += x;
    }
}

/// A sum is finite only if all its terms are. As finite terms can overflow, a sum that is not finite proves nothing: the
/// values are searched.
fn refuse_non_finite(values: &[f32], sums: &[f32]) -> Result<(), ObserverError> {
    if sums.iter().all(|sum| sum.is_finite()) {
        return Ok(());
    }
    first_non_finite(values).map_or(Ok(()), |(index, value)| {
        Err(ObserverError::NonFinite { index, value })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_ends_at_every_place_of_every_length() {
        for length in 1..50 {
            for place in 0..length {
                let mut values: Vec<f32> = (0..length).map(|i| (i % 5) as f32 - 2.0).collect();
                values[place] = 7.5;
                assert_eq!(value_range(&values).unwrap().unwrap().max(), 7.5);
                values[place] = -7.5;
                assert_eq!(value_range(&values).unwrap().unwrap().min(), -7.5);
            }
        }
        assert_eq!(value_range(&[]), Ok(None));
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for index in [0, 15, 16, 31, 39] {
                let mut values = vec![1.0; 40];
                values[index] = bad;
                values[39] = bad;
                for error in [
                    value_range(&values).unwrap_err(),
                    column_ranges(&values, 8).unwrap_err(),
                ] {
                    let ObserverError::NonFinite {
                        index: found,
                        value,
                    } = error
                    else {
                        panic!("{error}");
                    };
                    assert_eq!((found, value.to_bits()), (index, bad.to_bits()));
                }
            }
        }
    }

    #[test]
    fn sums_that_overflow_are_no_error() {
        let values = [f32::MAX, f32::MIN].repeat(64);
        let range = value_range(&values).unwrap().unwrap();
        assert_eq!((range.min(), range.max()), (f32::MIN, f32::MAX));
        let values = [f32::MAX; 64];
        assert_eq!(value_range(&values).unwrap().unwrap().max(), f32::MAX);
        assert_eq!(column_ranges(&values, 2).unwrap()[1].max(), f32::MAX);
    }

    #[test]
    fn columns_have_ranges_of_their_own() {
        let ranges = column_ranges(&[1.0, -5.0, 0.0, 3.0, 2.0, -1.0], 3).unwrap();
        assert_eq!(
            ranges,
            [
                ValueRange::between(1.0, 3.0),
                ValueRange::between(-5.0, 2.0),
                ValueRange::between(-1.0, 0.0)
            ]
        );
    }
}
