//! The layouts float-quantized (naive-quantized where nothing is said of inputs), nvfp4-pack-quantized and mxfp4-pack-quantized.
use super::WeightScales;
use crate::small_floats::{SmallFloatScales, SmallFloatType, SmallFloats};
use crate::weight_layout::{TensorPart, expect_rows, no_place_for};
use crate::{CheckpointError, StoredWeight, TensorPlan, WeightLayout};
use fewbit_numerics::dtype::DType;
use serde_json::{Value, json};
use std::borrow::Cow;

/// How FP8 inputs are scaled. fewbit computes with float inputs all the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FloatActivations {
    /// With a scale for each token, which is chosen at run time.
    PerToken,
    /// With one stored scale.
    Static {
        /// What codes are multiplied with: positive and finite.
        scale: f32,
    },
}

/// Weights of small floats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FloatScheme {
    /// The type of the elements.
    pub kind: SmallFloatType,
    /// Of FP8: which elements share a scale. Those of the other types are in groups.
    pub weights: WeightScales,
    /// How inputs are FP8, too, beside weights of FP8; none: not as far as the file goes.
    pub activations: Option<FloatActivations>,
}

impl FloatScheme {
    /// The format, as `quantization_config` names it.
    pub(super) fn format(self) -> &'static str {
        match (self.kind, self.activations) {
            (SmallFloatType::Fp8, Some(_)) => "float-quantized",
            (SmallFloatType::Fp8, None) => "naive-quantized",
            (SmallFloatType::Nvfp4, _) => "nvfp4-pack-quantized",
            (SmallFloatType::Mxfp4, _) => "mxfp4-pack-quantized",
        }
    }

    /// The `weights` of the config.
    pub(super) fn weight_arguments(self) -> Value {
        let (bits, strategy, scale_dtype) = match (self.kind, self.weights) {
            (SmallFloatType::Fp8, WeightScales::PerChannel) => (8, "channel", None),
            (SmallFloatType::Fp8, WeightScales::PerTensor) => (8, "tensor", None),
            (SmallFloatType::Nvfp4, _) => (4, "tensor_group", Some("torch.float8_e4m3fn")),
            (SmallFloatType::Mxfp4, _) => (4, "group", Some("torch.uint8")),
        };
        let mut arguments = json!({
            "num_bits": bits,
            "type": "float",
            "symmetric": true,
            "strategy": strategy,
            "group_size": self.kind.group_size(),
            "dynamic": false,
            "block_structure": null,
            "actorder": null,
            "observer": "minmax",
            "observer_kwargs": {},
        });
        if let Some(dtype) = scale_dtype {
            arguments["scale_dtype"] = dtype.into();
            arguments["zp_dtype"] = dtype.into();
        }
        arguments
    }

    /// The `input_activations` of the config.
    pub(super) fn input_activations(self) -> Value {
        let (strategy, is_dynamic) = match self.activations {
            None => return Value::Null,
            Some(FloatActivations::PerToken) => ("token", true),
            Some(FloatActivations::Static { .. }) => ("tensor", false),
        };
        json!({
            "num_bits": 8,
            "type": "float",
            "symmetric": true,
            "strategy": strategy,
            "dynamic": is_dynamic,
            "group_size": null,
        })
    }

    fn tensors(self, module: &str, shape: [usize; 2]) -> Vec<TensorPlan> {
        let [rows, columns] = shape;
        let name = |part: &str| format!("{module}.{part}");
        let scales = self.kind.row_scales(columns);
        let packed = || {
            let bytes = self.kind.row_bytes(columns);
            TensorPlan::new(name("weight_packed"), DType::U8, [rows, bytes])
        };
        let mut tensors = match self.kind {
            SmallFloatType::Fp8 => vec![
                TensorPlan::new(name("weight"), DType::F8E4M3, shape),
                match self.weights {
                    WeightScales::PerChannel => {
                        TensorPlan::new(name("weight_scale"), DType::F32, [rows, 1])
                    }
                    WeightScales::PerTensor => {
                        TensorPlan::new(name("weight_scale"), DType::F32, [1])
                    }
                },
            ],
            SmallFloatType::Nvfp4 => vec![
                packed(),
                TensorPlan::new(name("weight_scale"), DType::F8E4M3, [rows, scales]),
                TensorPlan::new(name("weight_global_scale"), DType::F32, [1]),
            ],
            SmallFloatType::Mxfp4 => vec![
                packed(),
                TensorPlan::new(name("weight_scale"), DType::U8, [rows, scales]),
            ],
        };
        if let Some(FloatActivations::Static { .. }) = self.activations {
            tensors.push(TensorPlan::new(name("input_scale"), DType::F32, [1]));
        }
        tensors
    }

    fn parts<'a>(
        self,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<Vec<TensorPart<'a>>, CheckpointError> {
        let columns = shape[1];
        let floats = match rows {
            StoredWeight::SmallFloats(floats) if floats.kind() == self.kind => floats,
            _ => return Err(no_place_for(rows, module, format!("{} codes", self.kind))),
        };
        let scales = self.kind.row_scales(columns);
        expect_rows(
            module,
            shape,
            first_row,
            rows,
            floats.scale_count() / scales.max(1),
        )?;
        let part = |name: &str, offset: usize, bytes: Cow<'a, [u8]>| TensorPart {
            name: format!("{module}.{name}"),
            offset,
            bytes,
        };
        let once = |name: &str, value: f32| part(name, 0, value.to_le_bytes().to_vec().into());
        let SmallFloats {
            codes,
            scales: of_floats,
        } = floats;
        let begin = first_row * self.kind.row_bytes(columns);
        let mut parts = match of_floats {
            SmallFloatScales::Rows(of_rows) => {
                let mut parts = vec![part("weight", begin, Cow::Borrowed(codes))];
                match self.weights {
                    WeightScales::PerChannel => {
                        let bytes: Vec<u8> = of_rows
                            .iter()
                            .flat_map(|scale| scale.to_le_bytes())
                            .collect();
                        let offset = first_row * DType::F32.bytes();
                        parts.push(part("weight_scale", offset, bytes.into()));
                    }
                    WeightScales::PerTensor => {
                        if of_rows.iter().any(|scale| *scale != of_rows[0]) {
                            return Err(no_place_for(rows, module, "one scale for all rows"));
                        }
                        if let (0, Some(scale)) = (first_row, of_rows.first()) {
                            parts.push(once("weight_scale", *scale));
                        }
                    }
                }
                parts
            }
            SmallFloatScales::Nvfp4 {
                codes: of_groups,
                global_scale,
            } => {
                let mut parts = vec![
                    part("weight_packed", begin, Cow::Borrowed(codes)),
                    part("weight_scale", first_row * scales, Cow::Borrowed(of_groups)),
                ];
                if first_row == 0 {
                    parts.push(once("weight_global_scale", *global_scale));
                }
                parts
            }
            SmallFloatScales::Mxfp4(of_groups) => vec![
                part("weight_packed", begin, Cow::Borrowed(codes)),
                part("weight_scale", first_row * scales, Cow::Borrowed(of_groups)),
            ],
        };
        if let (0, Some(FloatActivations::Static { scale })) = (first_row, self.activations) {
            parts.push(once("input_scale", scale));
        }
        Ok(parts)
    }
}

impl WeightLayout for FloatScheme {
    fn plan(&self, module: &str, shape: [usize; 2]) -> Vec<TensorPlan> {
        self.tensors(module, shape)
    }

    fn encode<'a>(
        &self,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<Vec<TensorPart<'a>>, CheckpointError> {
        self.parts(module, shape, first_row, rows)
    }
}
