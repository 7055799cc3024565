//! What stands before the data, to be written.
use super::metadata::{MetadataValue, write_string};
use super::tensor_type::TensorType;
use crate::{CheckpointError, CheckpointErrorKind};
use std::collections::HashSet;

pub(super) const MAGIC: &[u8] = b"GGUF";
/// The version that is written.
pub(super) const VERSION: u32 = 3;
/// Where tensors begin: at multiples of so many bytes, where metadata says no other number.
pub(super) const ALIGNMENT: usize = 32;
/// Readers take shorter names only.
const NAME_BYTES: usize = 64;
/// Readers take no more dimensions.
pub(super) const DIMENSIONS: usize = 4;

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
