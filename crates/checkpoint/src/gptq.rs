//! The GPTQ layouts, written and read: codes and zero points in int32 words, with the inputs along the rows of a tensor.
//!
//! A weight of shape (out, in), whose columns are in `groups` groups, is stored as
//!
//! | tensor | dtype | shape |
//! |---|---|---|
//! | `X.qweight` | I32 | \[in * bits / 32, out\]: a word has the codes of neighbouring inputs, the first in its lowest bits |
//! | `X.qzeros` | I32 | \[groups, out * bits / 32\]: a word has the zero points of neighbouring outputs |
//! | `X.scales` | F16 | \[groups, out\] |
//! | `X.g_idx` | I32 | \[in\], the group of each input |
//!
//! A value is `(code - zero point) * scale`, all codes being unsigned. Version 1 (`checkpoint_format` `gptq`) stores zero points less one, by subtracting
//! 0x11111111 (of 8 bits 0x01010101) from whole words, as GPTQModel does; version 2 (`gptq_v2`) stores them as they are.
mod read;

use crate::grouped_columns::{GroupedColumns, half_scales, word_bytes};
use crate::quantization_error::{malformed, unsupported};
use crate::weight_layout::{TensorPart, no_place_for};
use crate::{CheckpointError, StoredWeight, TensorPlan, WeightLayout};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::int_packing::{pack_rows, packed_words, transposed};
pub(crate) use read::{packed_shape, read};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;

/// The tensors that a module has instead of `X.weight`.
pub(crate) const SUFFIXES: [&str; 4] = ["qweight", "qzeros", "scales", "g_idx"];

/// What is stored of zero points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GptqVersion {
    /// `gptq`: less one.
    Gptq,
    /// `gptq_v2`: as they are.
    GptqV2,
}

impl GptqVersion {
    /// As `checkpoint_format` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gptq => "gptq",
            Self::GptqV2 => "gptq_v2",
        }
    }

    /// What is subtracted from a word of zero points of `bits` bits.
    fn subtracted(self, bits: usize) -> u32 {
        match (self, bits) {
            (Self::GptqV2, _) => 0,
            (Self::Gptq, 4) => 0x1111_1111,
            (Self::Gptq, _) => 0x0101_0101,
        }
    }
}

/// What `quantization_config` says of a GPTQ checkpoint; the tensors say which modules are quantized, and how their columns are grouped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GptqConfig {
    /// Bits of a code: 4 or 8.
    pub bits: usize,
    /// What is stored of zero points.
    pub version: GptqVersion,
}

impl GptqConfig {
    /// Reads a `quantization_config` object.
    pub(crate) fn from_json(config: &Value) -> Result<Self, CheckpointError> {
        let bits = match config.get("bits").and_then(Value::as_u64) {
            Some(4) => 4,
            Some(8) => 8,
            Some(bits) => return Err(unsupported(format!("GPTQ with {bits} bits"))),
            None => {
                let found = config.get("bits").unwrap_or(&Value::Null);
                return Err(malformed(format!(
                    "quantization_config.bits: expected a number, found {found}"
                )));
            }
        };
        let format = ["checkpoint_format", "format"]
            .iter()
            .find_map(|field| config.get(field).filter(|value| !value.is_null()));
        let version = match format.map(|format| format.as_str().map(str::to_ascii_lowercase)) {
            None => GptqVersion::Gptq,
            Some(Some(name)) if name == "gptq" => GptqVersion::Gptq,
            Some(Some(name)) if name == "gptq_v2" => GptqVersion::GptqV2,
            Some(Some(name)) => {
                return Err(unsupported(format!("GPTQ with checkpoint_format `{name}`")));
            }
            Some(None) => {
                return Err(malformed(format!(
                    "quantization_config.checkpoint_format: expected a name, found {}",
                    format.unwrap_or(&Value::Null)
                )));
            }
        };
        if config.get("is_marlin_format") == Some(&Value::Bool(true)) {
            return Err(unsupported("GPTQ in the layout of Marlin's kernels"));
        }
        match config.get("pack_dtype") {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) if name == "int32" => {}
            Some(other) => {
                return Err(unsupported(format!("GPTQ with words of the dtype {other}")));
            }
        }
        // Patterns that begin with `-` name what stays float, which its tensors say, too.
        let rules = config.get("dynamic").and_then(Value::as_object);
        let mut rules = rules.into_iter().flatten();
        if let Some((pattern, _)) = rules.find(|(pattern, rule)| {
            !pattern.starts_with('-') && rule.get("bits").is_some_and(|own| *own != json!(bits))
        }) {
            return Err(unsupported(format!(
                "GPTQ with other bits for some modules (`{pattern}`)"
            )));
        }
        Ok(Self { bits, version })
    }
}

impl fmt::Display for GptqConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bits", self.version.name(), self.bits)
    }
}

/// int4 weights as GPTQ stores them; columns are in the order of the model, so that `g_idx` rises.
///
/// ```
/// use fewbit_checkpoint::WeightLayout;
/// use fewbit_checkpoint::gptq::{GptqLayout, GptqVersion};
///
/// let layout = GptqLayout { version: GptqVersion::GptqV2, group_size: Some(32), asymmetric: true };
/// let planned = layout.plan("pooler.dense", [16, 64]);
/// let names: Vec<&str> = planned.iter().map(|plan| plan.name.as_str()).collect();
/// assert_eq!(names, ["pooler.dense.qweight", "pooler.dense.qzeros", "pooler.dense.scales", "pooler.dense.g_idx"]);
/// assert_eq!(planned[0].byte_len(), 16 * 64 / 2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GptqLayout {
    /// What is stored of zero points.
    pub version: GptqVersion,
    /// Columns of a group, at least 1; none: a whole row.
    pub group_size: Option<usize>,
    /// Whether groups have zero points of their own; all are 8 otherwise.
    pub asymmetric: bool,
}

/// Bits of a code that is written.
const BITS: usize = 4;

impl GptqLayout {
    /// The `quantization_config` object for config.json.
    ///
    /// `modules` are those that are quantized, without the model's prefix. The loader of transformers, which otherwise looks for the layers of known decoders, takes every linear
    /// layer whose name ends so.
    pub fn config(&self, modules: &[String]) -> Value {
        let group_size = self.group_size.map_or(json!(-1), Value::from);
        json!({
            "quant_method": "gptq",
            "bits": BITS,
            "group_size": group_size,
            "sym": !self.asymmetric,
            "desc_act": false,
            "static_groups": true,
            "true_sequential": true,
            "damp_percent": 0.01,
            "lm_head": false,
            "pack_dtype": "int32",
            "checkpoint_format": self.version.name(),
            "block_name_to_quantize": "",
            "modules_in_block_to_quantize": [modules],
            "meta": {"quantizer": [concat!("fewbit:", env!("CARGO_PKG_VERSION"))]},
        })
    }
}

/// As errors name it.
impl fmt::Display for GptqLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        GroupedColumns::describe(f, self.version.name(), self.group_size, self.asymmetric)
    }
}

impl WeightLayout for GptqLayout {
    fn plan(&self, module: &str, shape: [usize; 2]) -> Vec<TensorPlan> {
        let [rows, columns] = shape;
        let name = |part: &str| format!("{module}.{part}");
        let groups = self.group_size.map_or(1, |size| columns / size.max(1));
        vec![
            TensorPlan::new(
                name("qweight"),
                DType::I32,
                [packed_words(columns, BITS), rows],
            ),
            TensorPlan::new(
                name("qzeros"),
                DType::I32,
                [groups, packed_words(rows, BITS)],
            ),
            TensorPlan::new(name("scales"), DType::F16, [groups, rows]),
            TensorPlan::new(name("g_idx"), DType::I32, [columns]),
        ]
    }

    /// Of a whole weight, as its rows are columns of the tensors.
    ///
    /// # Errors
    /// Also for scales that are no float16, and in version 1 for the zero point -8, the unsigned 0, which has no place there.
    fn encode<'a>(
        &self,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<Vec<TensorPart<'a>>, CheckpointError> {
        let parts = GroupedColumns::of_weight(
            module,
            shape,
            first_row,
            rows,
            (self.group_size, self.asymmetric),
            self,
        )?;
        let GroupedColumns {
            codes,
            scales,
            zero_points,
            group_size,
        } = parts;
        let [out, inside] = shape;
        let groups = inside / group_size.max(1);
        let has_no_place = zero_points.contains(&-8);
        if self.version == GptqVersion::Gptq && has_no_place {
            return Err(no_place_for(rows, module, format!("{self} of at least -7")));
        }
        let words = transposed(
            &pack_rows(codes, out, inside, BITS),
            out,
            packed_words(inside, BITS),
        );
        let points = transposed(&zero_points, out, groups);
        let subtracted = self.version.subtracted(BITS);
        let zero_words = pack_rows(&points, groups, out, BITS).into_iter();
        let zero_words =
            zero_words.map(|word| word.cast_unsigned().wrapping_sub(subtracted).cast_signed());
        let group_of_column = (0..inside).map(|column| (column / group_size.max(1)) as i32);
        let part = |name: &str, bytes: Vec<u8>| TensorPart {
            name: format!("{module}.{name}"),
            offset: 0,
            bytes: bytes.into(),
        };
        Ok(vec![
            part("qweight", word_bytes(words)),
            part("qzeros", word_bytes(zero_words)),
            part(
                "scales",
                half_scales(rows, module, &transposed(scales, out, groups))?,
            ),
            part("g_idx", word_bytes(group_of_column)),
        ])
    }
}
