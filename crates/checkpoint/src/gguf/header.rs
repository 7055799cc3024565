//! What stands before the data.
use crate::{CheckpointError, CheckpointErrorKind};
use fewbit_numerics::ggml_blocks::BlockType;
use std::collections::HashSet;
use std::fmt;

const MAGIC: &[u8] = b"GGUF";
const VERSION: u32 = 3;
/// Where tensors begin: at multiples of so many bytes.
pub(super) const ALIGNMENT: usize = 32;
/// Readers take shorter names only.
const NAME_BYTES: usize = 64;
/// Readers take no more dimensions.
const DIMENSIONS: usize = 4;

/// How the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16
    Bf16,
    /// Blocks along the rows.
    Blocks(BlockType),
}

impl TensorType {
    /// ggml's number of the type.
    fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Blocks(BlockType::Q4_0) => 2,
            Self::Blocks(BlockType::Q4_1) => 3,
            Self::Blocks(BlockType::Q5_0) => 6,
            Self::Blocks(BlockType::Q8_0) => 8,
            Self::Blocks(BlockType::Q4_K) => 12,
            Self::Blocks(BlockType::Q6_K) => 14,
            Self::Bf16 => 30,
        }
    }

    /// Elements that are stored together.
    pub fn block_elements(self) -> usize {
        match self {
            Self::Blocks(kind) => kind.elements(),
            _ => 1,
        }
    }

    /// Bytes that these take.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Blocks(kind) => kind.bytes(),
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Blocks(kind) => kind.name(),
        })
    }
}

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named by what they are")]
pub enum MetadataValue {
    U32(u32),
    F32(f32),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    I32s(Vec<i32>),
}

impl MetadataValue {
    fn write(&self, out: &mut Vec<u8>) {
        let type_of = |number: u32, out: &mut Vec<u8>| out.extend(number.to_le_bytes());
        let array_of = |number: u32, count: usize, out: &mut Vec<u8>| {
            out.extend(9u32.to_le_bytes());
            out.extend(number.to_le_bytes());
            out.extend((count as u64).to_le_bytes());
        };
        match self {
            Self::U32(value) => {
                type_of(4, out);
                out.extend(value.to_le_bytes());
            }
            Self::F32(value) => {
                type_of(6, out);
                out.extend(value.to_le_bytes());
            }
            Self::Bool(value) => {
                type_of(7, out);
                out.push(u8::from(*value));
            }
            Self::String(value) => {
                type_of(8, out);
                write_string(value, out);
            }
            Self::Strings(values) => {
                array_of(8, values.len(), out);
                values.iter().for_each(|value| write_string(value, out));
            }
            Self::I32s(values) => {
                array_of(5, values.len(), out);
                out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTensor {
    /// Its name in the file, at most 63 bytes.
    pub name: String,
    /// Dimensions, outermost first; at most 4.
    pub shape: Vec<usize>,
    /// How its elements are stored.
    pub kind: TensorType,
}

impl PlannedTensor {
    /// Bytes of its data, without padding.
    ///
    /// # Errors
    /// Its last dimension is no whole blocks, or the bytes overflow.
    pub fn byte_len(&self) -> Result<usize, CheckpointError> {
        let blocks = self.kind.block_elements();
        let columns = self.shape.last().copied().unwrap_or(1);
        if !columns.is_multiple_of(blocks) {
            return Err(self.error(format!(
                "{}: expected rows of a multiple of {blocks} elements, found {columns}",
                self.kind
            )));
        }
        let elements = self
            .shape
            .iter()
            .try_fold(1usize, |product, size| product.checked_mul(*size));
        elements
            .and_then(|elements| (elements / blocks).checked_mul(self.kind.block_bytes()))
            .ok_or_else(|| self.error("the number of bytes overflows".to_owned()))
    }

    fn error(&self, message: String) -> CheckpointError {
        CheckpointError::new(CheckpointErrorKind::WrongShape, message).at_tensor(&self.name)
    }
}

/// Everything that stands before the data, padding included.
///
/// # Errors
/// A name or a key that is there twice, or a tensor that readers refuse.
pub(super) fn bytes(
    metadata: &[(String, MetadataValue)],
    tensors: &[PlannedTensor],
) -> Result<Vec<u8>, CheckpointError> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    let mut keys = HashSet::new();
    for (key, value) in metadata {
        if !keys.insert(key) {
            return Err(CheckpointError::new(
                CheckpointErrorKind::Malformed,
                format!("metadata `{key}`: expected once, found twice"),
            ));
        }
        write_string(key, &mut out);
        value.write(&mut out);
    }
    let mut names = HashSet::new();
    let mut offset = 0usize;
    for tensor in tensors {
        let PlannedTensor { name, shape, kind } = tensor;
        if !names.insert(name) {
            return Err(tensor.error("expected one tensor of this name, found two".to_owned()));
        }
        if name.len() >= NAME_BYTES {
            let message = format!(
                "name: expected less than {NAME_BYTES} bytes, found {}",
                name.len()
            );
            return Err(tensor.error(message));
        }
        if shape.is_empty() || shape.len() > DIMENSIONS {
            let message = format!("expected 1 to {DIMENSIONS} dimensions, found {shape:?}");
            return Err(tensor.error(message));
        }
        write_string(name, &mut out);
        out.extend((shape.len() as u32).to_le_bytes());
        out.extend(
            shape
                .iter()
                .rev()
                .flat_map(|size| (*size as u64).to_le_bytes()),
        );
        out.extend(kind.number().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset = offset
            .checked_add(tensor.byte_len()?)
            .and_then(|end| end.checked_next_multiple_of(ALIGNMENT))
            .ok_or_else(|| tensor.error("the bytes of the file overflow".to_owned()))?;
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(out)
}
