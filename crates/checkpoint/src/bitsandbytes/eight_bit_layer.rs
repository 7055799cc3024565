//! Linear layers of 8 bits.
use super::eight_bit_table::parts_of;
use crate::weight_layout::TensorPart;
use crate::{CheckpointError, StoredWeight, TensorPlan, WeightLayout};
use fewbit_numerics::dtype::DType;
use serde_json::{Value, json};

/// A linear layer as LLM.int8 stores it: `X.weight` of int8 codes, `X.SCB` with the absmax of each row, `X.weight_format` 0 (row-major); a value is
/// `code * SCB / 127`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EightBitLayer;

impl EightBitLayer {
    /// The quantization_config object for config.json.
    ///
    /// `skip_modules` must name every linear layer that transformers creates for the model and that is stored as float here, as in
    /// [`FourBitLayout::config`](super::FourBitLayout::config).
    pub fn config(skip_modules: &[String]) -> Value {
        json!({
            "quant_method": "bitsandbytes",
            "load_in_4bit": false,
            "load_in_8bit": true,
            "_load_in_4bit": false,
            "_load_in_8bit": true,
            "llm_int8_enable_fp32_cpu_offload": false,
            "llm_int8_has_fp16_weight": false,
            "llm_int8_skip_modules": skip_modules,
            "llm_int8_threshold": 6.0,
        })
    }
}

impl WeightLayout for EightBitLayer {
    fn plan(&self, module: &str, shape: [usize; 2]) -> Vec<TensorPlan> {
        vec![
            TensorPlan::new(format!("{module}.weight"), DType::I8, shape),
            TensorPlan::new(format!("{module}.SCB"), DType::F32, [shape[0]]),
            TensorPlan::new(format!("{module}.weight_format"), DType::U8, []),
        ]
    }

    fn encode<'a>(
        &self,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<Vec<TensorPart<'a>>, CheckpointError> {
        let mut parts = parts_of(module, shape, first_row, rows)?;
        if first_row == 0 {
            parts.push(TensorPart {
                name: format!("{module}.weight_format"),
                offset: 0,
                bytes: vec![0].into(),
            });
        }
        Ok(parts)
    }
}
