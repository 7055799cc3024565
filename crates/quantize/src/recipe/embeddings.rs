//! What becomes of the word embedding table, and of everything else that is not quantized.

use std::fmt;
use std::str::FromStr;

use fewbit_numerics::dtype::DType;
use serde::{Deserialize, Serialize};

/// How the word embedding table is stored, of the methods that quantize linear layers.
///
/// ```
/// use fewbit_quantize::EmbeddingStorage;
///
/// assert_eq!("int8".parse(), Ok(EmbeddingStorage::Int8));
/// assert!("int4".parse::<EmbeddingStorage>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EmbeddingStorage {
    /// The smallest form that costs nothing measurable and that the loaders of the layout take: [`Int8`](Self::Int8) with int8 weights, unless
    /// a head shares the table, fewbit does not know it, or the layers are those of PyTorch's `quantize_dynamic`, which keeps it; else [`Keep`](Self::Keep). A plan has one of these two in its place.
    Auto,
    /// As everything else that is not quantized.
    Keep,
    /// int8 codes with one scale a row. Beside 4-bit weights no loader but fewbit reads them.
    Int8,
    /// NF4 codes in blocks, beside 4-bit weights; no loader but fewbit reads them.
    Nf4,
    /// IEEE half precision.
    Fp16,
    /// bfloat16
    Bf16,
}

impl EmbeddingStorage {
    /// Every form, as it is spelled in [`name`](Self::name).
    pub const ALL: [Self; 6] = [
        Self::Auto,
        Self::Keep,
        Self::Int8,
        Self::Nf4,
        Self::Fp16,
        Self::Bf16,
    ];

    /// As recipes and command lines spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Keep => "keep",
            Self::Int8 => "int8",
            Self::Nf4 => "nf4",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether the table is stored in codes.
    pub fn is_quantized(self) -> bool {
        matches!(self, Self::Int8 | Self::Nf4)
    }

    /// The dtype of a table of floats that differs from the other floats.
    pub fn float_dtype(self) -> Option<DType> {
        match self {
            Self::Fp16 => Some(DType::F16),
            Self::Bf16 => Some(DType::BF16),
            _ => None,
        }
    }

    /// What a recipe's label says of it; nothing of the default of a method, which `of_the_method` is.
    pub(super) fn label(self, of_the_method: Self) -> String {
        match self {
            same if same == of_the_method => String::new(),
            Self::Auto => String::new(),
            Self::Keep => " + float embeddings".to_owned(),
            form => format!(" + {} embeddings", form.name()),
        }
    }
}

impl fmt::Display for EmbeddingStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is no form of embeddings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown form of embeddings `{0}`: expected one of auto, keep, int8, nf4, fp16, bf16")]
pub struct UnknownEmbeddingStorage(pub String);

impl FromStr for EmbeddingStorage {
    type Err = UnknownEmbeddingStorage;

    fn from_str(text: &str) -> Result<Self, UnknownEmbeddingStorage> {
        let mut known = Self::ALL.into_iter();
        known
            .find(|form| form.name() == text)
            .ok_or_else(|| UnknownEmbeddingStorage(text.to_owned()))
    }
}

/// The dtype of what is not quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatDType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    Fp16,
    /// bfloat16
    Bf16,
}

impl FloatDType {
    /// As recipes and command lines spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
        }
    }

    /// The element type of tensors.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Fp16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// What a recipe's label says of it.
    pub(super) fn label(dtype: Option<Self>) -> String {
        dtype.map_or_else(String::new, |dtype| format!(" + {} floats", dtype.name()))
    }
}

impl fmt::Display for FloatDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
