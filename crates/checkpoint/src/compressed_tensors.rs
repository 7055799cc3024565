//! The compressed-tensors layouts int-quantized, pack-quantized, float-quantized, nvfp4-pack-quantized and mxfp4-pack-quantized, written and read.
//!
//! A weight of shape (out, in) is stored as
//!
//! | format | tensors |
//! |---|---|
//! | int-quantized | `weight` I8 \[out, in\]; `weight_scale` \[out, in / group\] or \[out, 1\], or \[1\] for the whole weight; of asymmetric groups `weight_zero_point` I8 like the scales; with static activations `input_scale` and `input_zero_point` \[1\] |
//! | pack-quantized | `weight_packed` I32 \[out, ceil(in * bits / 32)\]; `weight_scale` \[out, in / group\]; `weight_shape` I64 \[2\]; of asymmetric groups `weight_zero_point` I32 \[ceil(out * bits / 32), in / group\] |
//! | float-quantized, naive-quantized | `weight` F8_E4M3 \[out, in\]; `weight_scale` \[out, 1\], or \[1\] for the whole weight; with static activations `input_scale` \[1\] |
//! | nvfp4-pack-quantized | `weight_packed` U8 \[out, in / 2\], two E2M1 codes a byte, the first in the low nibble; `weight_scale` F8_E4M3 \[out, in / 16\], divided by `weight_global_scale` F32 \[1\] |
//! | mxfp4-pack-quantized | `weight_packed` as above; `weight_scale` U8 \[out, in / 32\], E8M0 |
mod config_object;
mod float_scheme;
mod int4;
mod read;
mod read_floats;
mod settings;

use crate::stored_weight::Int8Activations;
use crate::weight_layout::{TensorPart, expect_rows, no_place_for, other_rows};
use crate::{CheckpointError, StoredWeight, TensorPlan, WeightLayout};
pub use config_object::{EVERY_LINEAR, config};
use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::affine::CodeRange;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::int_packing::{pack_columns, pack_rows, packed_words};
use fewbit_numerics::rows::Int8Rows;
pub use float_scheme::{FloatActivations, FloatScheme};
pub use int4::{Int4Layout, Int4Scheme};
pub(crate) use read::{packed_shape, read};
use serde::{Deserialize, Serialize};
pub use settings::CompressedTensorsConfig;
use std::borrow::Cow;
use zerocopy::IntoBytes;

/// The tensors that a module has beside or instead of `X.weight`.
pub(crate) const SUFFIXES: [&str; 9] = [
    "weight_packed",
    "weight_scale",
    "weight_global_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
    "input_scale",
    "input_global_scale",
    "input_zero_point",
];

/// Which elements of a weight share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightScales {
    /// Those of an output channel.
    #[default]
    PerChannel,
    /// All.
    PerTensor,
}

/// One scheme that fewbit writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CompressedScheme {
    /// int-quantized: int8 weights per channel, per-token dynamic int8 activations.
    DynamicInt8,
    /// int-quantized: int8 weights, 8-bit activations with one scale for a whole input at run time. `observer_kwargs`, which
    /// compressed-tensors keeps for PyTorch's observers, says that the scale is PyTorch's; other readers choose it by their own rule.
    PerTensorDynamicInt8 {
        /// Which elements of the weight share a scale.
        weights: WeightScales,
        /// Whether the scale of an input is that of 7 bits.
        reduce_range: bool,
    },
    /// int-quantized: int8 weights, int8 activations with one stored scale and zero point: `x ~ (code - zero_point) * scale`, codes
    /// -128..=127.
    StaticInt8 {
        /// Finite and at least the least positive normal float.
        scale: f32,
        /// The code of 0, one of the codes.
        zero_point: i8,
        /// Which elements of the weight share a scale.
        weights: WeightScales,
        /// Whether the codes are the -64..=63 of 7 bits.
        reduce_range: bool,
    },
    /// pack-quantized: int8 weights per channel, float activations.
    WeightOnlyInt8,
    /// int-quantized: int8 weights per channel, float activations. The layout beside layers that are int-quantized, too: transformers can
    /// decompress a checkpoint of one format while it loads it, but not one of both.
    WeightOnlyInt8Unpacked,
    /// pack-quantized or int-quantized: int8 weights with a scale for each group of columns, float activations.
    WeightOnlyInt8Groups {
        /// Columns of a group, at least 1; divides those of the weight.
        group_size: usize,
        /// Whether four codes are a word.
        packed: bool,
    },
    /// pack-quantized or int-quantized: int4 weights.
    Int4(Int4Scheme),
    /// float-quantized, nvfp4-pack-quantized or mxfp4-pack-quantized: floats of 8 or 4 bits.
    Float(FloatScheme),
}

impl CompressedScheme {
    /// Which elements of a weight share a scale; groups of int4 weights are parts of a channel.
    pub fn weight_scales(&self) -> WeightScales {
        match self {
            CompressedScheme::DynamicInt8
            | CompressedScheme::WeightOnlyInt8
            | CompressedScheme::WeightOnlyInt8Unpacked
            | CompressedScheme::WeightOnlyInt8Groups { .. }
            | CompressedScheme::Int4(_) => WeightScales::PerChannel,
            CompressedScheme::PerTensorDynamicInt8 { weights, .. }
            | CompressedScheme::StaticInt8 { weights, .. } => *weights,
            CompressedScheme::Float(scheme) => scheme.weights,
        }
    }

    /// Whether inputs are quantized to integers of 8 bits.
    pub fn quantizes_activations(&self) -> bool {
        self.activations().is_some()
    }

    /// How inputs are quantized to integers; none where the weights alone are.
    pub fn activations(&self) -> Option<Int8Activations> {
        Some(match *self {
            CompressedScheme::DynamicInt8 => Int8Activations::Dynamic(ActivationScheme::Affine),
            CompressedScheme::PerTensorDynamicInt8 { reduce_range, .. } => {
                Int8Activations::DynamicPerTensor { reduce_range }
            }
            CompressedScheme::StaticInt8 {
                scale,
                zero_point,
                reduce_range,
                ..
            } => Int8Activations::Static {
                scale,
                zero_point: zero_point.into(),
                codes: match reduce_range {
                    true => CodeRange::INT8.reduced(),
                    false => CodeRange::INT8,
                },
            },
            CompressedScheme::WeightOnlyInt8
            | CompressedScheme::WeightOnlyInt8Unpacked
            | CompressedScheme::WeightOnlyInt8Groups { .. }
            | CompressedScheme::Float(_) => return None,
            CompressedScheme::Int4(scheme) => return scheme.activations,
        })
    }

    /// Whether codes are packed into words.
    fn is_packed(&self) -> bool {
        match self {
            CompressedScheme::WeightOnlyInt8 => true,
            CompressedScheme::WeightOnlyInt8Groups { packed, .. } => *packed,
            CompressedScheme::Int4(scheme) => scheme.layout == Int4Layout::Packed,
            _ => false,
        }
    }

    /// Bits of a code.
    fn bits(&self) -> usize {
        match self {
            CompressedScheme::Int4(_) => 4,
            _ => 8,
        }
    }

    /// Whether groups have zero points.
    fn is_asymmetric(&self) -> bool {
        matches!(
            self,
            CompressedScheme::Int4(Int4Scheme {
                asymmetric: true,
                ..
            })
        )
    }

    /// Groups of a row of so many columns.
    fn groups_of(&self, columns: usize) -> usize {
        match self {
            CompressedScheme::Int4(scheme) => scheme.groups_of(columns),
            CompressedScheme::WeightOnlyInt8Groups { group_size, .. } => {
                columns / (*group_size).max(1)
            }
            _ => 1,
        }
    }

    /// Columns of a row of so many that share a scale.
    pub fn group_size_of(&self, columns: usize) -> usize {
        match self {
            CompressedScheme::Int4(scheme) => scheme.group_size_of(columns),
            CompressedScheme::WeightOnlyInt8Groups { group_size, .. } => *group_size,
            _ => columns,
        }
    }

    /// The weight that reading gives of what [`encode`](WeightLayout::encode) makes; of int8 codes. `rows` are the groups where several of them are a row.
    pub fn stored_weight(&self, rows: Int8Rows) -> StoredWeight<'static> {
        self.weight_of(Cow::Owned(rows.codes), rows.scales, rows.columns)
    }

    /// [`stored_weight`](Self::stored_weight) of codes that stay where they are.
    pub fn stored_weight_of<'a>(&self, rows: &'a Int8Rows) -> StoredWeight<'a> {
        let codes = Cow::Borrowed(rows.codes.as_slice());
        self.weight_of(codes, rows.scales.clone(), rows.columns)
    }

    fn weight_of<'a>(
        &self,
        codes: Cow<'a, [i8]>,
        scales: Vec<f32>,
        columns: usize,
    ) -> StoredWeight<'a> {
        match self.activations() {
            Some(activations) => StoredWeight::Int8 {
                codes,
                scales,
                activations,
            },
            None => StoredWeight::weight_only_int8(codes, scales, columns),
        }
    }

    /// The parts of rows that the scheme has a place for.
    fn parts_of<'a>(
        &self,
        module: &str,
        columns: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<CodeParts<'a>, CheckpointError> {
        let group_size = self.group_size_of(columns);
        let parts = match rows {
            StoredWeight::Int8 {
                codes,
                scales,
                activations,
            } if self.bits() == 8 && self.activations() == Some(*activations) => CodeParts {
                codes,
                scales,
                zero_points: None,
            },
            StoredWeight::Groups {
                codes,
                scales,
                zero_points,
                group_size: found,
                bits,
                activations,
            } if (self.bits() == 4 || self.activations().is_none())
                && self.activations() == *activations
                && (self.bits(), group_size) == (*bits, *found)
                && self.is_asymmetric() == zero_points.is_some() =>
            {
                CodeParts {
                    codes,
                    scales,
                    zero_points: zero_points.as_deref(),
                }
            }
            _ => {
                let activations = match self.activations() {
                    Some(activations) => format!("the activations {activations:?}"),
                    None => "float activations".to_owned(),
                };
                let points = if self.is_asymmetric() {
                    " with zero points"
                } else {
                    ""
                };
                let expected = match self.bits() {
                    8 if group_size == columns => {
                        format!("int8 codes, one scale a row, {activations}")
                    }
                    bits => format!(
                        "codes of {bits} bits in groups of {group_size}{points}, {activations}"
                    ),
                };
                return Err(no_place_for(rows, module, expected));
            }
        };
        let one_scale = parts.scales.iter().all(|scale| *scale == parts.scales[0]);
        if self.weight_scales() == WeightScales::PerTensor && !one_scale {
            return Err(no_place_for(rows, module, "one scale for all rows"));
        }
        Ok(parts)
    }
}

/// What a weight of integer codes is made of.
struct CodeParts<'a> {
    codes: &'a [i8],
    scales: &'a [f32],
    zero_points: Option<&'a [i8]>,
}

impl WeightLayout for CompressedScheme {
    /// Embedding tables, of shape (vocabulary, hidden), are always stored as `DynamicInt8` plans it (see [`config`]).
    fn plan(&self, module: &str, shape: [usize; 2]) -> Vec<TensorPlan> {
        if let CompressedScheme::Float(scheme) = self {
            return scheme.plan(module, shape);
        }
        let [rows, columns] = shape;
        let name = |part: &str| format!("{module}.{part}");
        let groups = self.groups_of(columns);
        let codes = match self.is_packed() {
            true => TensorPlan::new(
                name("weight_packed"),
                DType::I32,
                [rows, packed_words(columns, self.bits())],
            ),
            false => TensorPlan::new(name("weight"), DType::I8, shape),
        };
        let scale = match self.weight_scales() {
            WeightScales::PerChannel => {
                TensorPlan::new(name("weight_scale"), DType::F32, [rows, groups])
            }
            WeightScales::PerTensor => TensorPlan::new(name("weight_scale"), DType::F32, [1]),
        };
        let mut plans = vec![codes, scale];
        if self.is_asymmetric() {
            let name = name("weight_zero_point");
            plans.push(match self.is_packed() {
                true => {
                    let words = packed_words(rows, self.bits());
                    TensorPlan::new(name, DType::I32, [words, groups])
                }
                false => TensorPlan::new(name, DType::I8, [rows, groups]),
            });
        }
        if self.stored_input().is_some() {
            plans.extend([
                TensorPlan::new(name("input_scale"), DType::F32, [1]),
                TensorPlan::new(name("input_zero_point"), DType::I8, [1]),
            ]);
        }
        if self.is_packed() {
            plans.push(TensorPlan::new(name("weight_shape"), DType::I64, [2]));
        }
        plans
    }

    /// # Errors
    /// Also for packed zero points of rows that do not begin at a word.
    fn encode<'a>(
        &self,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<Vec<TensorPart<'a>>, CheckpointError> {
        if let CompressedScheme::Float(scheme) = self {
            return scheme.encode(module, shape, first_row, rows);
        }
        let columns = shape[1];
        let groups = self.groups_of(columns);
        let CodeParts {
            codes,
            scales,
            zero_points,
        } = self.parts_of(module, columns, rows)?;
        let count = scales.len() / groups.max(1);
        expect_rows(module, shape, first_row, rows, count)?;
        let part = |name: &str, offset: usize, bytes: Cow<'a, [u8]>| TensorPart {
            name: format!("{module}.{name}"),
            offset,
            bytes,
        };
        let once = |name: &str, bytes: &[u8]| part(name, 0, bytes.to_vec().into());
        let bits = self.bits();
        let mut parts = vec![match self.is_packed() {
            true => {
                let words = pack_rows(codes, count, columns, bits);
                let offset = first_row * DType::I32.bytes() * packed_words(columns, bits);
                part("weight_packed", offset, bytes_of_words(&words).into())
            }
            false => part("weight", first_row * columns, codes.as_bytes().into()),
        }];
        match (self.weight_scales(), scales.first()) {
            (WeightScales::PerChannel, _) => {
                let bytes: Vec<u8> = scales
                    .iter()
                    .flat_map(|scale| scale.to_le_bytes())
                    .collect();
                let offset = first_row * groups * DType::F32.bytes();
                parts.push(part("weight_scale", offset, bytes.into()));
            }
            (WeightScales::PerTensor, Some(scale)) if first_row == 0 => {
                parts.push(once("weight_scale", &scale.to_le_bytes()));
            }
            (WeightScales::PerTensor, _) => {}
        }
        if let Some(zero_points) = zero_points {
            let (offset, bytes) = match self.is_packed() {
                true => {
                    let rows_of_a_word = 32 / bits;
                    if !first_row.is_multiple_of(rows_of_a_word) {
                        let begin = first_row.next_multiple_of(rows_of_a_word);
                        return Err(other_rows(
                            module,
                            begin..shape[0],
                            first_row,
                            first_row + count,
                        ));
                    }
                    let words = pack_columns(zero_points, count, groups, bits);
                    let offset = first_row / rows_of_a_word * groups * DType::I32.bytes();
                    (offset, bytes_of_words(&words).into())
                }
                false => (first_row * groups, zero_points.as_bytes().into()),
            };
            parts.push(part("weight_zero_point", offset, bytes));
        }
        if first_row == 0 {
            if let Some((scale, zero_point)) = self.stored_input() {
                parts.extend([
                    once("input_scale", &scale.to_le_bytes()),
                    once("input_zero_point", &zero_point.to_le_bytes()),
                ]);
            }
            if self.is_packed() {
                let shape = shape.map(|size| (size as u64).to_le_bytes());
                parts.push(once("weight_shape", shape.as_flattened()));
            }
        }
        Ok(parts)
    }
}

impl CompressedScheme {
    /// Scale and zero point of inputs, where they are stored.
    fn stored_input(&self) -> Option<(f32, i8)> {
        match self.activations() {
            Some(Int8Activations::Static {
                scale, zero_point, ..
                // A zero point is one of the codes of 8 bits.
            }) => Some((scale, zero_point as i8)),
            _ => None,
        }
    }
}

fn bytes_of_words(words: &[i32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbit_numerics::rows::{quantize_int8_with_scale, quantize_rows_int8};

    #[test]
    fn parts_of_rows_make_up_the_whole() {
        // 10 columns fill two words of four codes, and half of a third.
        let shape = [7, 10];
        let weights: Vec<f32> = (0..70).map(|i| (i * 31 % 47) as f32 - 20.0).collect();
        let rows = |range: std::ops::Range<usize>| {
            quantize_rows_int8(&weights[range.start * 10..range.end * 10], range.len(), 10)
        };
        for scheme in [
            CompressedScheme::DynamicInt8,
            CompressedScheme::StaticInt8 {
                scale: 0.5,
                zero_point: -7,
                weights: WeightScales::PerChannel,
                reduce_range: false,
            },
            CompressedScheme::PerTensorDynamicInt8 {
                weights: WeightScales::PerTensor,
                reduce_range: true,
            },
            CompressedScheme::WeightOnlyInt8,
            CompressedScheme::WeightOnlyInt8Unpacked,
        ] {
            let plans = scheme.plan("m", shape);
            // Rows that share a scale have it from the beginning.
            let rows = |range: std::ops::Range<usize>| match scheme.weight_scales() {
                WeightScales::PerChannel => rows(range),
                WeightScales::PerTensor => {
                    let weights = &weights[range.start * 10..range.end * 10];
                    quantize_int8_with_scale(weights, range.len(), 10, 0.25)
                }
            };
            let encode = |range: std::ops::Range<usize>| {
                let weight = scheme.stored_weight(rows(range.clone()));
                let parts = scheme.encode("m", shape, range.start, &weight).unwrap();
                let owned = parts.into_iter().map(|part| TensorPart {
                    bytes: part.bytes.into_owned().into(),
                    ..part
                });
                owned.collect::<Vec<TensorPart<'static>>>()
            };
            let mut filled: Vec<(String, Vec<u8>)> = plans
                .iter()
                .map(|plan| (plan.name.clone(), Vec::new()))
                .collect();
            for part in [0..3, 3..4, 4..7].into_iter().flat_map(encode) {
                let (_, bytes) = filled
                    .iter_mut()
                    .find(|(name, _)| *name == part.name)
                    .unwrap();
                assert_eq!(bytes.len(), part.offset, "{}", part.name);
                bytes.extend(part.bytes.iter());
            }
            let whole = encode(0..7)
                .into_iter()
                .map(|part| (part.name, part.bytes.into_owned()));
            assert_eq!(filled, whole.collect::<Vec<_>>());
            for (plan, (_, bytes)) in plans.iter().zip(&filled) {
                assert_eq!(plan.byte_len(), bytes.len(), "{}", plan.name);
            }
        }
    }

    #[test]
    fn a_weight_in_another_form_is_refused() {
        let rows = || quantize_rows_int8(&[0.5, 1.0, 0.25, 0.5, 2.0, 1.0], 3, 2);
        let fixed = |scale| CompressedScheme::StaticInt8 {
            scale,
            zero_point: 0,
            weights: WeightScales::PerChannel,
            reduce_range: false,
        };
        let one_scale = CompressedScheme::PerTensorDynamicInt8 {
            weights: WeightScales::PerTensor,
            reduce_range: false,
        };
        let weight_only = CompressedScheme::WeightOnlyInt8.stored_weight(rows());
        for (scheme, weight, found) in [
            (
                fixed(0.5),
                StoredWeight::of_values(&[0.5; 6]),
                "found floats",
            ),
            (
                fixed(0.5),
                weight_only,
                "found codes of 8 bits in groups of 2, float activations",
            ),
            // Another scale of inputs than the one that would be written.
            (fixed(0.5), fixed(0.25).stored_weight(rows()), "scale: 0.25"),
            (
                one_scale,
                one_scale.stored_weight(rows()),
                "expected one scale for all rows",
            ),
        ] {
            let text = scheme
                .encode("m", [3, 2], 0, &weight)
                .unwrap_err()
                .to_string();
            assert!(
                text.starts_with("tensor `m.weight`: rows to write: "),
                "{text}"
            );
            assert!(text.contains(found), "{text}");
        }
        // More rows than the weight has left.
        let scheme = CompressedScheme::DynamicInt8;
        let weight = scheme.stored_weight(rows());
        let refused = scheme.encode("m", [3, 2], 1, &weight);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("expected rows of 0..3, found 1..4"), "{text}");
    }
}
