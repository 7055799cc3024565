//! The largest magnitude: what every symmetric scale and every block is measured by.

/// Running maxima that are independent of one another, so that they fit vector registers.
const LANES: usize = 16;

/// The largest `|x|`; 0 for no values. NaN does not take part; an infinity gives infinity.
///
/// ```
/// use fewbit_numerics::absmax::absmax;
/// assert_eq!(absmax(&[1.0, -3.0, 2.5]), 3.0);
/// assert_eq!(absmax(&[]), 0.0);
/// ```
pub fn absmax(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            // Unlike `f32::max`, one instruction.
            *lane = if x.abs() > *lane { x.abs() } else { *lane };
        }
    }
    lanes
        .into_iter()
        .chain(rest.iter().map(|x| x.abs()))
        .fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_largest_at_every_place_of_every_length() {
        for length in 1..70 {
            for place in 0..length {
                for largest in [7.5, -7.5, f32::MAX, f32::INFINITY] {
                    let mut values: Vec<f32> = (0..length).map(|i| (i % 7) as f32 - 3.0).collect();
                    values[place] = largest;
                    assert_eq!(absmax(&values), largest.abs());
                }
            }
        }
    }

    #[test]
    fn zeros_nan_and_denormals() {
        assert_eq!(absmax(&[-0.0; 40]).to_bits(), 0);
        assert_eq!(absmax(&[f32::NAN, 2.0, f32::NAN]), 2.0);
        assert_eq!(absmax(&[f32::NAN; 40]), 0.0);
        assert_eq!(absmax(&[-1e-45, 0.0]), 1e-45);
    }
}
