//! What the codes of integer weights are.

use std::fmt;

use fewbit_checkpoint::GroupLayout;
use fewbit_checkpoint::awq::AwqLayout;
use fewbit_checkpoint::compressed_tensors::{Int4Layout, Int4Scheme, WeightScales};
use fewbit_checkpoint::gptq::{GptqLayout, GptqVersion};
use fewbit_checkpoint::small_floats::SmallFloatType;
use fewbit_checkpoint::stored_weight::Int8Activations;
use serde::{Deserialize, Serialize};

use super::BlockScales;

/// The codes of the weights of linear layers, of `dynamic`, `static` and `weight-only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightCodes {
    /// 8 bits, one scale for an output channel, or one for the whole weight where PyTorch has that.
    #[default]
    Int8,
    /// 8 bits, a scale for each group of so many columns, in a layout of compressed-tensors; of `weight-only`.
    Int8Groups {
        /// Columns of a group, at least 1.
        columns: usize,
        /// Whether they are packed.
        layout: CodeLayout,
    },
    /// 8 bits, as LLM.int8 of bitsandbytes stores them; of `weight-only`.
    LlmInt8,
    /// 4 bits, a scale for each group of columns.
    Int4(Int4Options),
    /// Floats of 8 or 4 bits.
    Floats {
        /// Their type.
        kind: SmallFloatType,
        /// Of FP8: which weights share a scale. The other types have groups, and per channel here.
        scales: WeightScales,
    },
}

impl WeightCodes {
    /// How int4 codes are made, where the codes are these.
    pub fn int4(self) -> Option<Int4Options> {
        match self {
            Self::Int4(options) => Some(options),
            _ => None,
        }
    }

    /// Small floats, of FP8 with a scale for each channel.
    pub fn of_floats(kind: SmallFloatType) -> Self {
        Self::Floats {
            kind,
            scales: WeightScales::PerChannel,
        }
    }

    /// The type of small floats, where the codes are these.
    pub fn floats(self) -> Option<SmallFloatType> {
        match self {
            Self::Floats { kind, .. } => Some(kind),
            _ => None,
        }
    }
}

impl WeightCodes {
    /// What is put after the name of a method: the text form, without the `int8` that is understood.
    pub fn addition(self) -> String {
        let text = self.to_string();
        match text.strip_prefix("int8+") {
            Some(addition) => addition.to_owned(),
            None => text,
        }
    }
}

impl fmt::Display for WeightCodes {
    /// As lists of methods and command lines spell them: `int8`, `int8+group-32`, `int4`, `int4+group-32+asymmetric`, `fp8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = match self {
            Self::Int8 => return f.write_str("int8"),
            Self::Int8Groups { columns, layout } => {
                write!(f, "int8+group-{columns}")?;
                return f.write_str(layout.addition());
            }
            Self::LlmInt8 => return write!(f, "int8{}", CodeLayout::Bitsandbytes.addition()),
            Self::Floats { kind, scales } => {
                write!(f, "{kind}")?;
                return match scales {
                    WeightScales::PerChannel => Ok(()),
                    WeightScales::PerTensor => f.write_str("+per-tensor"),
                };
            }
            Self::Int4(options) => options,
        };
        f.write_str("int4")?;
        match options.group_size {
            size if size == GroupSize::default() => {}
            GroupSize::Columns(columns) => write!(f, "+group-{columns}")?,
            GroupSize::Channel => f.write_str("+channel")?,
        }
        if options.asymmetric {
            f.write_str("+asymmetric")?;
        }
        if options.scales != Int4Options::default().scales {
            write!(f, "+{}", options.scales)?;
        }
        f.write_str(options.layout.addition())
    }
}

/// How int4 codes are made and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Int4Options {
    /// Which weights share a scale.
    pub group_size: GroupSize,
    /// Whether groups have zero points, which halves the error where their weights are mostly of one sign.
    pub asymmetric: bool,
    /// How scales are chosen.
    pub scales: BlockScales,
    /// Which tensors hold the codes.
    pub layout: CodeLayout,
}

impl Int4Options {
    /// The layout of a weight whose inputs are quantized like that.
    pub(crate) fn group_layout(self, activations: Option<Int8Activations>) -> GroupLayout {
        let (group_size, asymmetric) = (self.group_size.columns(), self.asymmetric);
        let compressed_tensors = |layout| Int4Scheme {
            group_size,
            asymmetric,
            activations,
            layout,
        };
        let gptq = |version| GptqLayout {
            version,
            group_size,
            asymmetric,
        };
        match self.layout {
            // Of int8 alone, which validation says first.
            CodeLayout::Bitsandbytes | CodeLayout::PackQuantized => {
                compressed_tensors(Int4Layout::Packed).into()
            }
            CodeLayout::IntQuantized => compressed_tensors(Int4Layout::Bytes).into(),
            CodeLayout::Gptq => gptq(GptqVersion::Gptq).into(),
            CodeLayout::GptqV2 => gptq(GptqVersion::GptqV2).into(),
            CodeLayout::Awq => AwqLayout {
                group_size,
                asymmetric,
            }
            .into(),
        }
    }
}

impl Default for Int4Options {
    /// Symmetric groups of 64, scales with the least squared error, packed.
    fn default() -> Self {
        Self {
            group_size: GroupSize::default(),
            asymmetric: false,
            scales: BlockScales::Mse,
            layout: CodeLayout::default(),
        }
    }
}

/// Which weights share a scale: so many neighbouring columns of a row, or those of an output channel, spelled `channel`.
///
/// ```
/// use fewbit_quantize::GroupSize;
///
/// assert_eq!(serde_json::to_string(&GroupSize::Columns(32)).unwrap(), "32");
/// assert_eq!(serde_json::from_str::<GroupSize>("\"channel\"").unwrap(), GroupSize::Channel);
/// assert_eq!("128".parse(), Ok(GroupSize::Columns(128)));
/// assert!("0".parse::<GroupSize>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "GroupSizeField", into = "GroupSizeField")]
pub enum GroupSize {
    /// At least 1; a divisor of the columns of every layer that is quantized.
    Columns(usize),
    /// A whole row.
    Channel,
}

impl Default for GroupSize {
    fn default() -> Self {
        Self::Columns(64)
    }
}

impl GroupSize {
    /// The columns, if they are not all.
    pub fn columns(self) -> Option<usize> {
        match self {
            Self::Columns(columns) => Some(columns),
            Self::Channel => None,
        }
    }
}

impl fmt::Display for GroupSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Columns(columns) => write!(f, "{columns}"),
            Self::Channel => f.write_str("channel"),
        }
    }
}

/// The text is no size of a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of columns from 1 on, or `channel`, found `{0}`")]
pub struct UnknownGroupSize(pub String);

impl std::str::FromStr for GroupSize {
    type Err = UnknownGroupSize;

    fn from_str(text: &str) -> Result<Self, UnknownGroupSize> {
        if text == "channel" {
            return Ok(Self::Channel);
        }
        match text.parse() {
            Ok(0) | Err(_) => Err(UnknownGroupSize(text.to_owned())),
            Ok(columns) => Ok(Self::Columns(columns)),
        }
    }
}

/// A [`GroupSize`] as files spell it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum GroupSizeField {
    Columns(usize),
    Name(String),
}

impl TryFrom<GroupSizeField> for GroupSize {
    type Error = UnknownGroupSize;

    fn try_from(field: GroupSizeField) -> Result<Self, UnknownGroupSize> {
        match field {
            GroupSizeField::Columns(columns) => columns.to_string().parse(),
            GroupSizeField::Name(name) if name == "channel" => Ok(Self::Channel),
            GroupSizeField::Name(name) => Err(UnknownGroupSize(name)),
        }
    }
}

impl From<GroupSize> for GroupSizeField {
    fn from(size: GroupSize) -> Self {
        match size {
            GroupSize::Columns(columns) => Self::Columns(columns),
            GroupSize::Channel => Self::Name("channel".to_owned()),
        }
    }
}

/// Which layout int4 codes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodeLayout {
    /// compressed-tensors, eight codes in a word.
    #[default]
    PackQuantized,
    /// compressed-tensors, a code a byte: what loaders of W4A8 layers take, at twice the size.
    IntQuantized,
    /// GPTQ, whose zero points are stored less one.
    Gptq,
    /// GPTQ, whose zero points are stored as they are.
    #[serde(rename = "gptq_v2")]
    GptqV2,
    /// AWQ, version `gemm`.
    Awq,
    /// bitsandbytes, LLM.int8: int8 codes with the absmax of each row.
    Bitsandbytes,
}

impl CodeLayout {
    /// As recipes and command lines spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PackQuantized => "pack-quantized",
            Self::IntQuantized => "int-quantized",
            Self::Gptq => "gptq",
            Self::GptqV2 => "gptq_v2",
            Self::Awq => "awq",
            Self::Bitsandbytes => "bitsandbytes",
        }
    }

    /// What lists of methods add for it: nothing for the default.
    fn addition(self) -> &'static str {
        match self {
            Self::PackQuantized => "",
            Self::IntQuantized => "+int-quantized",
            Self::Gptq => "+gptq-layout",
            Self::GptqV2 => "+gptq_v2-layout",
            Self::Awq => "+awq-layout",
            Self::Bitsandbytes => "+bitsandbytes-layout",
        }
    }

    /// Whether it is one of compressed-tensors, which alone say how inputs are quantized and hold embedding tables.
    pub fn is_of_compressed_tensors(self) -> bool {
        matches!(self, Self::PackQuantized | Self::IntQuantized)
    }
}

impl fmt::Display for CodeLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
