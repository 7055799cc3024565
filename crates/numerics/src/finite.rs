//! NaN and infinity are never quantized.

/// Index and value of the first NaN or infinity.
///
/// ```
/// use fewbit_numerics::finite::first_non_finite;
/// assert_eq!(first_non_finite(&[1.0, -2.0, f32::MAX]), None);
/// assert_eq!(first_non_finite(&[1.0, f32::INFINITY, f32::NAN]), Some((1, f32::INFINITY)));
/// ```
pub fn first_non_finite(values: &[f32]) -> Option<(usize, f32)> {
    first(values.iter().copied())
}

/// [`first_non_finite`] of little-endian values, at any alignment.
///
/// ```
/// use fewbit_numerics::finite::first_non_finite_of_bytes;
/// assert_eq!(first_non_finite_of_bytes(&[0, 0, 128, 63, 0, 0, 128, 127]), Some((1, f32::INFINITY)));
/// ```
///
/// # Panics
///
/// If the number of bytes is not a multiple of 4.
pub fn first_non_finite_of_bytes(bytes: &[u8]) -> Option<(usize, f32)> {
    let (values, rest) = bytes.as_chunks();
    assert!(rest.is_empty(), "4 bytes for each value");
    first(values.iter().map(|&bytes| f32::from_le_bytes(bytes)))
}

fn first(values: impl Iterator<Item = f32> + Clone) -> Option<(usize, f32)> {
    // Without an early exit this becomes vector code; the search runs only when there is something to find.
    let all_finite = values
        .clone()
        .fold(true, |all, value| all & value.is_finite());
    if all_finite {
        return None;
    }
    values.enumerate().find(|(_, value)| !value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_of_each_kind_at_each_place() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for index in [0, 1, 63, 64, 99] {
                let mut values = vec![f32::MAX; 100];
                values[index] = bad;
                values[99] = bad;
                let (found, value) = first_non_finite(&values).expect("there is one");
                assert_eq!((found, value.to_bits()), (index, bad.to_bits()));
                // One byte further, no value is aligned to its size.
                let bytes: Vec<u8> = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                let shifted = [&[0], bytes.as_slice()].concat();
                for bytes in [&bytes[..], &shifted[1..]] {
                    let (found, value) = first_non_finite_of_bytes(bytes).expect("there is one");
                    assert_eq!((found, value.to_bits()), (index, bad.to_bits()));
                }
            }
        }
    }

    #[test]
    fn extremes_are_finite() {
        let values = [
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            1e-45,
            -1e-45,
            0.0,
            -0.0,
        ];
        assert_eq!(first_non_finite(&values), None);
        assert_eq!(first_non_finite(&[]), None);
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        assert_eq!(first_non_finite_of_bytes(&bytes), None);
        assert_eq!(first_non_finite_of_bytes(&[]), None);
    }
}
