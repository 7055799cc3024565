//! Changed copies of a golden checkpoint, in a directory of their own.

use crate::golden_files::golden;
use fewbit_model::EncoderSpec;
use fewbit_numerics::rows::quantize_rows_int8;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

/// A tensor with its bytes.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Tensor {
    pub(crate) fn f32(shape: &[usize], values: &[f32]) -> Self {
        Self {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            bytes: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }

    pub(crate) fn values(&self) -> Vec<f32> {
        assert_eq!(self.dtype, Dtype::F32);
        self.bytes
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    }
}

/// config.json and tensors, to change before they are written.
pub(crate) struct TinyCheckpoint {
    pub(crate) config: Value,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

impl TinyCheckpoint {
    /// The golden architecture case `name` (one file).
    pub(crate) fn of(name: &str) -> Self {
        Self::read(&golden("architectures").join(name))
    }

    /// The checkpoint in `folder` (one file).
    pub(crate) fn read(folder: &Path) -> Self {
        let config = std::fs::read(folder.join("config.json")).expect("golden file");
        let bytes = std::fs::read(folder.join("model.safetensors")).expect("golden file");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let tensors = file.tensors().into_iter().map(|(name, view)| {
            (
                name,
                Tensor {
                    dtype: view.dtype(),
                    shape: view.shape().to_vec(),
                    bytes: view.data().to_vec(),
                },
            )
        });
        Self {
            config: serde_json::from_slice(&config).expect("JSON"),
            tensors: tensors.collect(),
        }
    }

    pub(crate) fn spec(&self) -> EncoderSpec {
        EncoderSpec::from_config(&self.config, Path::new("config.json")).expect("valid")
    }

    /// With other numbers, and with hidden and intermediate sizes that several threads share the columns of: neither is a multiple of 64.
    pub(crate) fn widened(mut self) -> Self {
        let (hidden_size, intermediate_size) =
            (self.spec().hidden_size, self.spec().intermediate_size);
        let wide = |size: usize| match size {
            size if size == hidden_size => 200,
            size if size == intermediate_size => 340,
            size => size,
        };
        let mut state = 1u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut tensors = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            let shape: Vec<usize> = tensor.shape.iter().map(|&size| wide(size)).collect();
            let values: Vec<f32> = (0..shape.iter().product())
                .map(|_| match name.ends_with("LayerNorm.weight") {
                    true => 1.0 + 0.2 * number(),
                    false => 0.2 * number(),
                })
                .collect();
            tensors.insert(name.clone(), Tensor::f32(&shape, &values));
        }
        self.config["hidden_size"] = wide(hidden_size).into();
        self.config["intermediate_size"] = wide(intermediate_size).into();
        Self {
            config: self.config,
            tensors,
        }
    }

    /// Every linear layer of the encoder in int8 with per-token activations, as llm-compressor writes W8A8; for a case
    /// without prefix.
    pub(crate) fn with_dynamic_int8(mut self, symmetric_activations: bool) -> Self {
        for module in self.spec().catalogue().linear_modules() {
            let name = format!("{}.weight", module.name);
            let [rows, columns] = module.shape;
            let quantized = quantize_rows_int8(&self.tensors[&name].values(), rows, columns);
            let codes = quantized
                .codes
                .iter()
                .map(|code| code.cast_unsigned())
                .collect();
            self.tensors.insert(
                name,
                Tensor {
                    dtype: Dtype::I8,
                    shape: vec![rows, columns],
                    bytes: codes,
                },
            );
            self.tensors.insert(
                format!("{}.weight_scale", module.name),
                Tensor::f32(&[rows, 1], &quantized.scales),
            );
        }
        self.config["quantization_config"] = json!({
            "quant_method": "compressed-tensors",
            "format": "int-quantized",
            "quantization_status": "compressed",
            "ignore": ["re:.*pooler.*"],
            "config_groups": {"group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "dynamic": false},
                "input_activations": {
                    "num_bits": 8, "type": "int", "symmetric": symmetric_activations, "strategy": "token", "dynamic": true
                },
            }},
        });
        self
    }

    /// [`TinyCheckpoint::with_dynamic_int8`] in which all rows of a text share a scale, as in PyTorch's dynamic layers.
    pub(crate) fn with_int8_scales_for_texts(self, reduce_range: bool) -> Self {
        let mut checkpoint = self.with_dynamic_int8(false);
        let group = &mut checkpoint.config["quantization_config"]["config_groups"]["group_0"];
        group["input_activations"]["strategy"] = "tensor".into();
        group["input_activations"]["observer_kwargs"] = json!({"reduce_range": reduce_range});
        checkpoint
    }

    /// [`TinyCheckpoint::with_dynamic_int8`] in which the inputs of the layers that `is_static` takes have one stored scale, and the
    /// zero point -3 of signed codes.
    pub(crate) fn with_static_int8(self, scale: f32, is_static: impl Fn(&str) -> bool) -> Self {
        let mut checkpoint = self.with_dynamic_int8(false);
        let catalogue = checkpoint.spec().catalogue();
        let modules = catalogue.linear_modules();
        let modules: Vec<String> = modules.map(|module| module.name.clone()).collect();
        let (fixed, dynamic): (Vec<&String>, Vec<&String>) =
            modules.iter().partition(|module| is_static(module));
        for module in &fixed {
            checkpoint
                .tensors
                .insert(format!("{module}.input_scale"), Tensor::f32(&[1], &[scale]));
            let zero_point = Tensor {
                dtype: Dtype::I8,
                shape: vec![1],
                bytes: vec![(-3i8).cast_unsigned()],
            };
            checkpoint
                .tensors
                .insert(format!("{module}.input_zero_point"), zero_point);
        }
        let groups = &mut checkpoint.config["quantization_config"]["config_groups"];
        let mut group = groups["group_0"].clone();
        groups["group_0"]["targets"] = json!(dynamic);
        group["targets"] = json!(fixed);
        group["input_activations"]["dynamic"] = false.into();
        group["input_activations"]["strategy"] = "tensor".into();
        groups["group_1"] = group;
        checkpoint
    }

    pub(crate) fn write(&self) -> TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        self.write_into(directory.path());
        directory
    }

    pub(crate) fn write_into(&self, directory: &Path) {
        std::fs::write(directory.join("config.json"), self.config.to_string()).expect("written");
        let views = self.tensors.iter().map(|(name, tensor)| {
            (
                name,
                TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)
                    .expect("a tensor"),
            )
        });
        safetensors::serialize_to_file(views, None, &directory.join("model.safetensors"))
            .expect("written");
    }
}
