//! The bitsandbytes layouts NF4, FP4 and LLM.int8, written and read.
//!
//! A 4-bit weight of `n` elements is stored as
//!
//! | tensor | dtype | shape |
//! |---|---|---|
//! | `X.weight` | U8 | \[ceil(n / 2), 1\], two codes a byte |
//! | `X.weight.absmax` | F32, or U8 with double quantization | \[ceil(n / block_size)\] |
//! | `X.weight.quant_map` | F32 | \[16\], the code table |
//! | `X.weight.nested_absmax`, with double quantization | F32 | \[ceil(ceil(n / block_size) / 256)\] |
//! | `X.weight.nested_quant_map`, with double quantization | F32 | \[256\] |
//! | `X.weight.quant_state.bitsandbytes__nf4` or `…__fp4` | U8 | the bytes of a JSON object |
//!
//! and an 8-bit weight as `X.weight` (I8), `X.SCB` (F32, one absmax a row) and `X.weight_format` (U8). What fewbit writes of an embedding table has
//! no `weight_format`, and the shape \[elements, 1\], see [`EightBitTable`].
mod eight_bit_layer;
mod eight_bit_table;
mod quant_state;
mod read;

use crate::quantization_error::malformed;
use crate::weight_layout::{TensorPart, no_place_for, other_rows};
use crate::{CheckpointError, StoredWeight, TensorPlan, WeightLayout};
pub use eight_bit_layer::EightBitLayer;
pub use eight_bit_table::EightBitTable;
use fewbit_numerics::double_quantization::NESTED_BLOCK_SIZE;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::dynamic_map::dynamic_map;
use fewbit_numerics::four_bit::FourBitType;
use quant_state::{NestedState, QuantState};
pub(crate) use read::{eight_bit_shape, four_bit_dtype, four_bit_shape, read};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;

/// What `quantization_config` says of a bitsandbytes checkpoint; the tensors say the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct BitsAndBytesConfig {
    /// Bits of a code: 4 or 8.
    pub bits: usize,
    /// The code table, where the config names one (each tensor does).
    pub kind: Option<FourBitType>,
    /// `llm_int8_skip_modules`: modules that stay float, by the end of their name or as a prefix; empty if the automatic list of
    /// transformers applies.
    pub skip_modules: Vec<String>,
}

impl BitsAndBytesConfig {
    /// Reads a `quantization_config` object. The least that is needed is `load_in_4bit` or `load_in_8bit`.
    pub(crate) fn from_json(config: &Value) -> Result<Self, CheckpointError> {
        let flag = |name: &str| match config.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(malformed(format!(
                "quantization_config.{name}: expected true or false, found {other}"
            ))),
        };
        let bits = match (flag("load_in_4bit")?, flag("load_in_8bit")?) {
            (true, false) => 4,
            (false, true) => 8,
            (four, _) => {
                let found = if four { "both" } else { "neither" };
                return Err(malformed(format!(
                    "quantization_config: expected one of load_in_4bit and load_in_8bit to be true, found {found}"
                )));
            }
        };
        let kind = match config.get("bnb_4bit_quant_type") {
            Some(Value::String(name)) if bits == 4 => Some(parse_kind(name).ok_or_else(|| {
                malformed(format!("quantization_config.bnb_4bit_quant_type: expected `nf4` or `fp4`, found `{name}`"))
            })?),
            _ => None,
        };
        let skip_modules = match config.get("llm_int8_skip_modules") {
            None | Some(Value::Null) => Vec::new(),
            Some(value) => value
                .as_array()
                .and_then(|names| names.iter().map(|name| name.as_str().map(str::to_owned)).collect())
                .ok_or_else(|| {
                    malformed(format!("quantization_config.llm_int8_skip_modules: expected a list of names, found {value}"))
                })?,
        };
        Ok(BitsAndBytesConfig {
            bits,
            kind,
            skip_modules,
        })
    }
}

impl fmt::Display for BitsAndBytesConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bits, self.kind) {
            (4, Some(kind)) => write!(f, "bitsandbytes {}", kind.name()),
            (bits, _) => write!(f, "bitsandbytes {bits}-bit"),
        }
    }
}

fn parse_kind(name: &str) -> Option<FourBitType> {
    [FourBitType::Nf4, FourBitType::Fp4]
        .into_iter()
        .find(|kind| kind.name() == name)
}

/// The tensors that `X.weight` is followed by.
pub(crate) const SUFFIXES: [&str; 8] = [
    "weight.absmax",
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    "weight.quant_state.bitsandbytes__nf4",
    "weight.quant_state.bitsandbytes__fp4",
    "SCB",
    "weight_format",
];

/// What a layer's 4-bit tensors look like on disk.
///
/// ```
/// use fewbit_checkpoint::WeightLayout;
/// use fewbit_checkpoint::bitsandbytes::FourBitLayout;
/// use fewbit_numerics::four_bit::FourBitType;
///
/// let layout = FourBitLayout {
///     kind: FourBitType::Nf4,
///     block_size: 64,
///     double_quantization: false,
///     dtype: "float32".to_owned(),
/// };
/// let planned = layout.plan("pooler.dense", [4, 32]);
/// assert_eq!(planned[0].name, "pooler.dense.weight");
/// assert_eq!(planned[0].byte_len(), 64);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct FourBitLayout {
    /// The code table.
    pub kind: FourBitType,
    /// Elements of the flattened weight that share an absmax.
    pub block_size: usize,
    /// Whether the absmax values are themselves quantized to 8 bits.
    pub double_quantization: bool,
    /// "float32", "float16" or "bfloat16": what it dequantizes to
    pub dtype: String,
}

impl WeightLayout for FourBitLayout {
    /// The quant_state JSON is padded with spaces, so that its size is known.
    ///
    /// # Panics
    ///
    /// If `block_size` is 0.
    fn plan(&self, module: &str, shape: [usize; 2]) -> Vec<TensorPlan> {
        // A shape beyond the address space has no data; the writer refuses the plan.
        let elements = shape[0].saturating_mul(shape[1]);
        let blocks = elements.div_ceil(self.block_size);
        let name = |part: &str| format!("{module}.weight{part}");
        let absmax_type = if self.double_quantization {
            DType::U8
        } else {
            DType::F32
        };
        let mut plans = vec![
            TensorPlan::new(name(""), DType::U8, [elements.div_ceil(2), 1]),
            TensorPlan::new(name(".absmax"), absmax_type, [blocks]),
            TensorPlan::new(name(".quant_map"), DType::F32, [16]),
        ];
        if self.double_quantization {
            plans.push(TensorPlan::new(
                name(".nested_absmax"),
                DType::F32,
                [blocks.div_ceil(NESTED_BLOCK_SIZE)],
            ));
            plans.push(TensorPlan::new(
                name(".nested_quant_map"),
                DType::F32,
                [256],
            ));
        }
        plans.push(TensorPlan::new(
            self.quant_state_name(module),
            DType::U8,
            [self.quant_state(shape, 0.0).padded_len()],
        ));
        plans
    }

    /// Of a whole weight: blocks run over its rows.
    fn encode<'a>(
        &self,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<Vec<TensorPart<'a>>, CheckpointError> {
        if first_row != 0 {
            return Err(other_rows(module, 0..shape[0], first_row, shape[0]));
        }
        let StoredWeight::FourBit {
            packed,
            absmax,
            nested,
            block_size,
            kind,
            ..
        } = rows
        else {
            return Err(no_place_for(rows, module, self));
        };
        let is_of_the_layout = (*kind, *block_size, nested.is_some())
            == (self.kind, self.block_size, self.double_quantization);
        if !is_of_the_layout {
            return Err(no_place_for(rows, module, self));
        }
        rows.expect_shape(shape)
            .map_err(|error| error.at_tensor(format!("{module}.weight")))?;
        let part = |name: &str, bytes: Cow<'a, [u8]>| TensorPart {
            name: format!("{module}.weight{name}"),
            offset: 0,
            bytes,
        };
        let floats = |name: &str, values: &[f32]| part(name, f32_bytes(values).into());
        let offset = nested.as_ref().map_or(0.0, |nested| nested.offset);
        let quant_map = floats(".quant_map", self.kind.table());
        let mut parts = vec![part("", Cow::Borrowed(packed))];
        match nested {
            None => parts.extend([floats(".absmax", absmax), quant_map]),
            Some(nested) => parts.extend([
                part(".absmax", Cow::Borrowed(&nested.codes)),
                quant_map,
                floats(".nested_absmax", &nested.nested_absmax),
                floats(".nested_quant_map", dynamic_map()),
            ]),
        }
        parts.push(TensorPart {
            name: self.quant_state_name(module),
            offset: 0,
            bytes: self.quant_state(shape, offset).to_padded_json().into(),
        });
        Ok(parts)
    }
}

/// As errors name it.
impl fmt::Display for FourBitLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, size) = (self.kind.name(), self.block_size);
        let double = match self.double_quantization {
            true => "with",
            false => "without",
        };
        write!(f, "{kind} blocks of {size} {double} double quantization")
    }
}

impl FourBitLayout {
    /// [`dtype`](Self::dtype) as an element type; F32 for a name that is none of the three.
    pub fn element_type(&self) -> DType {
        quant_state::dtype_named(&self.dtype).unwrap_or(DType::F32)
    }

    /// The quantization_config object for config.json.
    ///
    /// `skip_modules` must name every linear layer that transformers creates for the model and that is stored as float here
    /// (pooler, heads, skipped layers), since it replaces the automatic list of transformers. A name matches a module that is
    /// called so, that ends with `.NAME`, or that lies inside it (`NAME.…`): `pooler.dense` serves both `AutoModel` and a class that adds a prefix.
    pub fn config(&self, skip_modules: &[String]) -> Value {
        json!({
            "quant_method": "bitsandbytes",
            "load_in_4bit": true,
            "load_in_8bit": false,
            "_load_in_4bit": true,
            "_load_in_8bit": false,
            "bnb_4bit_compute_dtype": self.dtype,
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": self.kind.name(),
            "bnb_4bit_use_double_quant": self.double_quantization,
            "llm_int8_enable_fp32_cpu_offload": false,
            "llm_int8_has_fp16_weight": false,
            "llm_int8_skip_modules": skip_modules,
            "llm_int8_threshold": 6.0,
        })
    }

    fn quant_state_name(&self, module: &str) -> String {
        format!(
            "{module}.weight.quant_state.bitsandbytes__{}",
            self.kind.name()
        )
    }

    fn quant_state(&self, shape: [usize; 2], offset: f32) -> QuantState {
        let nested = self.double_quantization.then_some(NestedState {
            block_size: NESTED_BLOCK_SIZE,
            offset,
        });
        QuantState {
            kind: self.kind,
            block_size: self.block_size,
            dtype: self.dtype.clone(),
            shape: shape.to_vec(),
            nested,
        }
    }
}

/// Little-endian bytes.
fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}
