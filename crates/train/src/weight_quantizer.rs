//! What the codes of a weight stand for, in every step of training.

use fewbit_checkpoint::StoredWeight;
use fewbit_kernels::Kernels;
use fewbit_numerics::affine::CodeRange;
use fewbit_numerics::four_bit::FourBitType;
use fewbit_numerics::int4_groups::Int4Groups;
use fewbit_numerics::rows::Int8Rows;
use fewbit_quantize::GivenCodes;
use fewbit_quantize::fake_quantize::{self, Groups};

/// The quantization of one weight (out, in).
#[derive(Debug, Clone)]
pub(crate) enum WeightQuantizer {
    /// None.
    Float,
    /// Integer codes whose scales are trained, too.
    Groups(GroupScales),
    /// Blocks of the flattened weight, each with the absmax that it has.
    FourBit {
        kind: FourBitType,
        block_size: usize,
        /// Whether absmax values are in 8 bits.
        double_quantization: bool,
    },
}

/// Scales of neighbouring columns.
#[derive(Debug, Clone)]
pub(crate) struct GroupScales {
    /// Columns of a group; divides those of the weight.
    group_size: usize,
    range: CodeRange,
    /// (out, in / group size)
    pub(crate) scales: Vec<f32>,
    /// As many; none of symmetric codes.
    zero_points: Option<Vec<i8>>,
}

impl WeightQuantizer {
    /// The quantization that `stored`, a weight of so many columns, has, and the values to begin with: `weights`, what was quantized, where their codes are those of `stored`, and
    /// else the nearest ones within the reach of its codes. None of a form that is not trained.
    pub(crate) fn of(
        stored: &StoredWeight<'_>,
        columns: usize,
        weights: &mut [f32],
    ) -> Option<Self> {
        let (codes, scales, zero_points, group_size, range) = match stored {
            StoredWeight::Float(_) | StoredWeight::FloatBytes { .. } => return Some(Self::Float),
            StoredWeight::Int8 { codes, scales, .. } => {
                (codes, scales, None, columns, CodeRange::INT8)
            }
            StoredWeight::Groups {
                codes,
                scales,
                zero_points,
                group_size,
                bits,
                ..
            } => {
                let range = match bits {
                    4 => CodeRange::INT4,
                    // What training writes is int8 by row.
                    8 if *group_size == columns && zero_points.is_none() => CodeRange::INT8,
                    _ => return None,
                };
                (codes, scales, zero_points.clone(), *group_size, range)
            }
            StoredWeight::FourBit {
                nested,
                block_size,
                kind,
                ..
            } => {
                return Some(Self::FourBit {
                    kind: *kind,
                    block_size: *block_size,
                    double_quantization: nested.is_some(),
                });
            }
            StoredWeight::SmallFloats(_) => return None,
        };
        let quantizer = GroupScales {
            group_size,
            range,
            scales: scales.clone(),
            zero_points,
        };
        quantizer.move_within_reach(codes, weights);
        Some(Self::Groups(quantizer))
    }

    /// The scales that are trained; none where they follow from the weight.
    pub(crate) fn scales(&self) -> &[f32] {
        match self {
            Self::Groups(groups) => &groups.scales,
            Self::Float | Self::FourBit { .. } => &[],
        }
    }

    /// Writes what the codes of `weights` (n) stand for to `out` (n). Returns whether all weights are finite.
    pub(crate) fn values(&self, kernels: &Kernels, weights: &[f32], out: &mut [f32]) -> bool {
        match self {
            Self::Float => {
                out.copy_from_slice(weights);
                weights.iter().all(|value| value.is_finite())
            }
            Self::Groups(groups) => fake_quantize::with_groups(weights, groups.groups(), out),
            Self::FourBit {
                kind,
                block_size,
                double_quantization,
            } => fake_quantize::four_bit_blocks(
                kernels,
                weights,
                *block_size,
                *kind,
                *double_quantization,
                out,
            ),
        }
    }

    /// Turns the `gradient` (n) of the [`values`](Self::values) into that of the weights, and returns that of the scales.
    pub(crate) fn gradients(&self, weights: &[f32], gradient: &mut Vec<f32>) -> Vec<f32> {
        let Self::Groups(groups) = self else {
            return Vec::new();
        };
        let mut of_weights = vec![0.0; weights.len()];
        let mut of_scales = vec![0.0; groups.scales.len()];
        let parameters = groups.groups();
        fake_quantize::gradients(
            weights,
            gradient,
            parameters,
            &mut of_weights,
            &mut of_scales,
        );
        // Esser et al. 2020, section 2.2.
        let factor = 1.0 / (groups.group_size as f32 * groups.range.max as f32).sqrt();
        of_scales
            .iter_mut()
            .for_each(|of_scale| *of_scale *= factor);
        *gradient = of_weights;
        of_scales
    }

    /// Codes and scales to write; none where they follow from the weights.
    pub(crate) fn codes(&self, shape: [usize; 2], weights: &[f32]) -> Option<GivenCodes> {
        let Self::Groups(groups) = self else {
            return None;
        };
        let [rows, columns] = shape;
        let mut codes = vec![0; weights.len()];
        fake_quantize::codes_with_groups(weights, groups.groups(), &mut codes);
        let scales = groups.scales.clone();
        Some(if groups.range == CodeRange::INT8 {
            GivenCodes::Int8(Int8Rows {
                rows,
                columns,
                codes,
                scales,
            })
        } else {
            GivenCodes::Int4(Int4Groups {
                rows,
                columns,
                group_size: groups.group_size,
                codes,
                scales,
                zero_points: groups.zero_points.clone(),
            })
        })
    }
}

/// How far from the middle of its code a weight may begin, in steps: a little inside of where rounding turns.
const REACH: f32 = 0.45;

impl GroupScales {
    fn groups(&self) -> Groups<'_> {
        Groups {
            group_size: self.group_size,
            range: self.range,
            scales: &self.scales,
            zero_points: self.zero_points.as_deref(),
        }
    }

    /// Moves each of `weights` no further than needed for it to have its code among `codes`.
    fn move_within_reach(&self, codes: &[i8], weights: &mut [f32]) {
        let groups = weights
            .chunks_mut(self.group_size)
            .zip(codes.chunks(self.group_size));
        for (group, (weights, codes)) in groups.enumerate() {
            let scale = self.scales[group];
            let zero_point = self.zero_points.as_ref().map_or(0, |points| points[group]);
            for (weight, &code) in weights.iter_mut().zip(codes) {
                let middle = f32::from(code) - f32::from(zero_point);
                let steps = *weight / scale;
                // Beyond the ends of the range every weight has the code of the end.
                let low = match i32::from(code) == self.range.min {
                    true => f32::NEG_INFINITY,
                    false => middle - REACH,
                };
                let high = match i32::from(code) == self.range.max {
                    true => f32::INFINITY,
                    false => middle + REACH,
                };
                if !(low..=high).contains(&steps) {
                    *weight = steps.clamp(low, high) * scale;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn kernels() -> &'static Kernels {
        Kernels::from_environment().expect("a supported instruction set")
    }

    #[test]
    fn training_begins_with_the_codes_that_are_there() {
        let codes = vec![7i8, -8, 0, 3, 1, -2, 7, 0];
        let scales = vec![0.5f32, 0.25];
        for zero_points in [None, Some(vec![1i8, -3])] {
            let stored = StoredWeight::Groups {
                codes: Cow::Borrowed(&codes),
                scales: scales.clone(),
                zero_points: zero_points.clone(),
                group_size: 4,
                bits: 4,
                activations: None,
            };
            let mut weights = vec![9.0, -9.0, 0.24, 0.0, 0.26, 10.0, -10.0, f32::MIN_POSITIVE];
            let quantizer = WeightQuantizer::of(&stored, 8, &mut weights).expect("trained");
            let mut out = vec![f32::NAN; 8];
            assert!(quantizer.values(kernels(), &weights, &mut out));
            assert_eq!(out, stored.dequantize([1, 8]).expect("eight codes"));
            let Some(GivenCodes::Int4(given)) = quantizer.codes([1, 8], &weights) else {
                panic!("int4 codes");
            };
            assert_eq!((given.codes, given.scales), (codes.clone(), scales.clone()));
            assert_eq!(given.zero_points, zero_points);
        }
    }

    #[test]
    fn weights_whose_codes_are_there_stay_as_they_are() {
        let weights = [0.3f32, -0.1, 0.2, 0.05];
        let stored = StoredWeight::Int8 {
            codes: Cow::Owned(vec![30, -10, 20, 5]),
            scales: vec![0.01],
            activations: fewbit_checkpoint::stored_weight::Int8Activations::Dynamic(
                fewbit_numerics::activation::ActivationScheme::Affine,
            ),
        };
        let mut moved = weights;
        WeightQuantizer::of(&stored, 4, &mut moved).expect("trained");
        assert_eq!(moved, weights);
    }

    #[test]
    fn forms_that_training_does_not_write_are_refused() {
        let groups = |bits, group_size| StoredWeight::Groups {
            codes: Cow::Owned(vec![0; 8]),
            scales: vec![1.0; 8 / group_size],
            zero_points: None,
            group_size,
            bits,
            activations: None,
        };
        let is_trained =
            |stored: StoredWeight<'_>| WeightQuantizer::of(&stored, 8, &mut [0.0; 8]).is_some();
        assert!(is_trained(groups(8, 8)) && is_trained(groups(4, 4)));
        assert!(!is_trained(groups(8, 4)));
    }
}
