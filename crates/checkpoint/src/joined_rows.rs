//! Rows of a stored weight that do not follow one another.

use crate::{CheckpointError, StoredWeight};
use std::ops::Range;

impl<'a> StoredWeight<'a> {
    /// The outputs `ranges`, one range after the other, of a weight of `columns` inputs, in the same form; 4-bit codes whose blocks begin or
    /// end elsewhere become floats, which products take them for anyhow.
    ///
    /// # Errors
    /// As [`StoredWeight::rows`].
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn joined_rows(
        &self,
        ranges: &[Range<usize>],
        columns: usize,
    ) -> Result<Self, CheckpointError> {
        let parts = ranges
            .iter()
            .map(|rows| self.rows(rows.clone(), columns))
            .collect::<Result<Vec<_>, _>>()?;
        let ends_with_block = |(part, rows): (&Self, &Range<usize>)| match part {
            Self::FourBit { block_size, .. } => {
                (rows.len() * columns).is_multiple_of((*block_size).max(2))
            }
            _ => false,
        };
        let mut four_bit = parts.iter().zip(ranges);
        if matches!(self, Self::FourBit { .. }) && !four_bit.all(ends_with_block) {
            let mut values = Vec::new();
            for (part, rows) in parts.iter().zip(ranges) {
                values.extend(part.dequantize([rows.len(), columns])?);
            }
            return Ok(Self::of_values(&values));
        }
        let mut parts = parts.into_iter();
        let Some(mut joined) = parts.next() else {
            return Ok(Self::of_values(&[]));
        };
        parts.for_each(|part| joined.append(part));
        Ok(joined)
    }

    /// Adds the rows of another part of the same weight.
    fn append(&mut self, part: Self) {
        match (self, part) {
            (Self::FloatBytes { bytes, .. }, Self::FloatBytes { bytes: more, .. }) => {
                bytes.to_mut().extend_from_slice(&more);
            }
            (
                Self::Int8 { codes, scales, .. },
                Self::Int8 {
                    codes: more,
                    scales: more_scales,
                    ..
                },
            ) => {
                codes.to_mut().extend_from_slice(&more);
                scales.extend(more_scales);
            }
            (
                Self::Groups {
                    codes,
                    scales,
                    zero_points,
                    ..
                },
                Self::Groups {
                    codes: more,
                    scales: more_scales,
                    zero_points: more_zero_points,
                    ..
                },
            ) => {
                codes.to_mut().extend_from_slice(&more);
                scales.extend(more_scales);
                if let (Some(points), Some(more)) = (zero_points, more_zero_points) {
                    points.extend(more);
                }
            }
            (
                Self::FourBit { packed, absmax, .. },
                Self::FourBit {
                    packed: more,
                    absmax: more_absmax,
                    ..
                },
            ) => {
                packed.to_mut().extend_from_slice(&more);
                absmax.extend(more_absmax);
            }
            _ => unreachable!("parts of one weight have one form"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored_weight::Int8Activations;
    use fewbit_numerics::activation::ActivationScheme;
    use fewbit_numerics::dtype::DType;
    use fewbit_numerics::four_bit::FourBitType;

    /// A weight (6, 4) in every form, whose rows differ.
    fn weights() -> Vec<StoredWeight<'static>> {
        let codes: Vec<i8> = (0..24).collect();
        let scales = |count: i8| (1..=count).map(f32::from).collect::<Vec<_>>();
        let packed: Vec<u8> = (0..12).map(|byte| byte * 17 + 3).collect();
        let four_bit = |block_size: usize| StoredWeight::FourBit {
            packed: packed.clone().into(),
            absmax: scales(24usize.div_ceil(block_size) as i8),
            nested: None,
            block_size,
            kind: FourBitType::Nf4,
            dtype: DType::F32,
        };
        vec![
            StoredWeight::of_values(
                &codes
                    .iter()
                    .map(|code| f32::from(*code))
                    .collect::<Vec<_>>(),
            ),
            StoredWeight::Int8 {
                codes: codes.clone().into(),
                scales: scales(6),
                activations: Int8Activations::Dynamic(ActivationScheme::Symmetric),
            },
            StoredWeight::Groups {
                codes: codes.into(),
                scales: scales(12),
                zero_points: Some((-6..6).collect()),
                group_size: 2,
                bits: 8,
                activations: None,
            },
            four_bit(4),
            // Blocks of one and a half rows.
            four_bit(6),
        ]
    }

    #[test]
    fn rows_of_every_form_are_joined() {
        for weight in weights() {
            let all = weight.dequantize([6, 4]).unwrap();
            let joined = weight.joined_rows(&[4..6, 0..1], 4).unwrap();
            let expected = [&all[16..24], &all[0..4]].concat();
            assert_eq!(joined.dequantize([3, 4]).unwrap(), expected, "{weight:?}");
        }
    }
}
