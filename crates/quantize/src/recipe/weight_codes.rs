//! What the codes of integer weights are.

use std::fmt;

use fewbit_checkpoint::compressed_tensors::Int4Layout;
use serde::{Deserialize, Serialize};

use super::BlockScales;

/// The codes of the weights of linear layers, of `dynamic`, `static` and `weight-only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightCodes {
    /// 8 bits, one scale for an output channel, or one for the whole weight where PyTorch has that.
    #[default]
    Int8,
    /// 4 bits, a scale for each group of columns.
    Int4(Int4Options),
}

impl WeightCodes {
    /// How int4 codes are made, where the codes are these.
    pub fn int4(self) -> Option<Int4Options> {
        match self {
            Self::Int8 => None,
            Self::Int4(options) => Some(options),
        }
    }
}

impl fmt::Display for WeightCodes {
    /// As lists of methods and command lines spell them: `int8`, `int4`, `int4+group-32+asymmetric`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Int4(options) = self else {
            return f.write_str("int8");
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
        match options.layout {
            CodeLayout::PackQuantized => Ok(()),
            CodeLayout::IntQuantized => f.write_str("+int-quantized"),
        }
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

/// Which compressed-tensors layout int4 codes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodeLayout {
    /// Eight codes in a word.
    #[default]
    PackQuantized,
    /// A code a byte: what loaders of W4A8 layers take, at twice the size.
    IntQuantized,
}

impl CodeLayout {
    /// As recipes and command lines spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PackQuantized => "pack-quantized",
            Self::IntQuantized => "int-quantized",
        }
    }

    pub(crate) fn int4(self) -> Int4Layout {
        match self {
            Self::PackQuantized => Int4Layout::Packed,
            Self::IntQuantized => Int4Layout::Bytes,
        }
    }
}

impl fmt::Display for CodeLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
