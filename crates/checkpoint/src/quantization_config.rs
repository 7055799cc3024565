//! The `quantization_config` of config.json.
use crate::CheckpointError;
use crate::awq::AwqConfig;
use crate::bitsandbytes::BitsAndBytesConfig;
use crate::compressed_tensors::CompressedTensorsConfig;
use crate::gptq::GptqConfig;
use crate::quantization_error::{malformed, unsupported};
use serde_json::Value;
use std::fmt;

/// The field of config.json that says how a model is quantized, and its older name.
pub(crate) const QUANTIZATION_FIELDS: [&str; 2] = ["quantization_config", "compression_config"];

/// Which layout a checkpoint uses.
#[derive(Debug, Clone, PartialEq)]
pub enum QuantizationConfig {
    /// No quantization_config.
    None,
    /// `"quant_method": "bitsandbytes"`.
    BitsAndBytes(BitsAndBytesConfig),
    /// `"quant_method": "compressed-tensors"`.
    CompressedTensors(CompressedTensorsConfig),
    /// `"quant_method": "gptq"`.
    Gptq(GptqConfig),
    /// `"quant_method": "awq"`.
    Awq(AwqConfig),
}

impl QuantizationConfig {
    /// Reads the `quantization_config` of a config.json (or `compression_config`, its older name); none if absent or null.
    ///
    /// A method or layout that fewbit does not read is an error of kind `UnsupportedQuantization`.
    pub fn from_config(config: &Value) -> Result<Self, CheckpointError> {
        let field = QUANTIZATION_FIELDS
            .iter()
            .find_map(|field| config.get(field).filter(|value| !value.is_null()));
        let Some(value) = field else {
            return Ok(QuantizationConfig::None);
        };
        if !value.is_object() {
            return Err(malformed(format!(
                "quantization_config: expected an object, found {value}"
            )));
        }
        match value.get("quant_method").and_then(Value::as_str) {
            Some("bitsandbytes") => {
                BitsAndBytesConfig::from_json(value).map(QuantizationConfig::BitsAndBytes)
            }
            Some("compressed-tensors") => {
                CompressedTensorsConfig::from_json(value).map(QuantizationConfig::CompressedTensors)
            }
            Some("gptq") => GptqConfig::from_json(value).map(QuantizationConfig::Gptq),
            Some("awq") => AwqConfig::from_json(value).map(QuantizationConfig::Awq),
            Some(other) => Err(unsupported(format!("quantization method `{other}`"))),
            // transformers accepts files of bitsandbytes' first releases, which name no method.
            None if value.get("load_in_4bit").is_some() || value.get("load_in_8bit").is_some() => {
                BitsAndBytesConfig::from_json(value).map(QuantizationConfig::BitsAndBytes)
            }
            None => Err(malformed(
                "quantization_config.quant_method: expected a string, found none",
            )),
        }
    }

    /// Whether there is any quantization.
    pub fn is_quantized(&self) -> bool {
        *self != QuantizationConfig::None
    }
}

/// A short name for people: `bitsandbytes nf4`, `compressed-tensors int-quantized`, `not quantized`.
impl fmt::Display for QuantizationConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuantizationConfig::None => f.write_str("not quantized"),
            QuantizationConfig::BitsAndBytes(config) => config.fmt(f),
            QuantizationConfig::CompressedTensors(config) => config.fmt(f),
            QuantizationConfig::Gptq(config) => config.fmt(f),
            QuantizationConfig::Awq(config) => config.fmt(f),
        }
    }
}
