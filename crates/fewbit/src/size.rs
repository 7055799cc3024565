//! How large a model is: parameters and bytes, by dtype and by part.

use crate::Error;
use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Catalogue, open_checkpoint};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What a stored tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TensorRole {
    /// Holds parameters: floats, or the codes of a quantized weight.
    Parameter,
    /// Goes with parameters: scales, zero points, code tables, positions.
    Buffer,
}

/// One stored tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorSize {
    /// Name in the file.
    pub name: String,
    /// Stored element type, as safetensors spells it.
    pub dtype: &'static str,
    /// Stored shape; of packed codes it is not the shape of the weight.
    pub shape: Vec<usize>,
    /// Part of the model, see [`Catalogue::part_of`].
    pub part: &'static str,
    /// What the tensor is for.
    pub role: TensorRole,
    /// Parameters that it holds: the elements of the weight it encodes, 0 for a buffer.
    pub parameters: u64,
    /// Stored bytes.
    pub bytes: u64,
}

/// Sum over the tensors of one dtype or of one part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupSize {
    /// The dtype or the part.
    pub name: &'static str,
    /// How many tensors.
    pub tensors: usize,
    /// Parameters that they hold.
    pub parameters: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// Stored element types that occur, most bytes first.
    pub dtypes: Vec<&'static str>,
}

/// How large a checkpoint is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSize {
    /// Parameters: a quantized weight counts the elements it stands for, not its codes' storage units.
    pub parameters: u64,
    /// Bytes of tensors that hold parameters.
    pub parameter_bytes: u64,
    /// Bytes of buffers, which go beside parameters: scales, zero points, code tables, positions.
    pub buffer_bytes: u64,
    /// Bytes of the files of weights, headers included.
    pub disk_bytes: u64,
    /// `8 * (parameter_bytes + buffer_bytes) / parameters`; 0 for a model without parameters.
    pub bits_per_parameter: f64,
    /// Sums by stored element type, most bytes first.
    pub by_dtype: Vec<GroupSize>,
    /// Sums by part of the model, in the order of the model.
    pub by_part: Vec<GroupSize>,
}

/// Parts of a model, as [`Catalogue::part_of`] names them, in the order of reports.
pub const PARTS: [&str; 7] = [
    "embeddings",
    "attention",
    "feed-forward",
    "normalization",
    "pooler",
    "head",
    "other",
];

/// Where `part` stands in [`PARTS`]; what is not there comes last.
pub fn part_order(part: &str) -> usize {
    PARTS
        .iter()
        .position(|known| *known == part)
        .unwrap_or(PARTS.len())
}

impl ModelSize {
    /// The size of the checkpoint in `directory`.
    ///
    /// # Errors
    /// The directory is not a readable checkpoint, or its config.json is no encoder's although it says so.
    pub fn of(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let checkpoint = open_checkpoint(directory)?;
        let catalogue = Catalogue::of_checkpoint(&checkpoint)?;
        Ok(Self::from_tensors(
            &tensor_sizes(&checkpoint, &catalogue)?,
            disk_bytes(&checkpoint)?,
        ))
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        self.parameter_bytes + self.buffer_bytes
    }

    pub(crate) fn from_tensors(tensors: &[TensorSize], disk_bytes: u64) -> Self {
        let parameters = tensors.iter().map(|tensor| tensor.parameters).sum();
        let bytes_of = |role| {
            tensors
                .iter()
                .filter(|tensor| tensor.role == role)
                .map(|tensor| tensor.bytes)
                .sum::<u64>()
        };
        let (parameter_bytes, buffer_bytes) = (
            bytes_of(TensorRole::Parameter),
            bytes_of(TensorRole::Buffer),
        );
        let mut by_dtype = groups(tensors, |tensor| tensor.dtype);
        by_dtype.sort_by_key(|group| std::cmp::Reverse(group.bytes));
        let mut by_part = groups(tensors, |tensor| tensor.part);
        by_part.sort_by_key(|group| part_order(group.name));
        let bits = 8.0 * (parameter_bytes + buffer_bytes) as f64;
        ModelSize {
            parameters,
            parameter_bytes,
            buffer_bytes,
            disk_bytes,
            bits_per_parameter: if parameters == 0 {
                0.0
            } else {
                bits / parameters as f64
            },
            by_dtype,
            by_part,
        }
    }
}

fn groups(tensors: &[TensorSize], key: impl Fn(&TensorSize) -> &'static str) -> Vec<GroupSize> {
    let mut groups: Vec<GroupSize> = Vec::new();
    let mut bytes_by_dtype: Vec<Vec<(&'static str, u64)>> = Vec::new();
    for tensor in tensors {
        let name = key(tensor);
        let index = groups
            .iter()
            .position(|group| group.name == name)
            .unwrap_or_else(|| {
                groups.push(GroupSize {
                    name,
                    tensors: 0,
                    parameters: 0,
                    bytes: 0,
                    dtypes: Vec::new(),
                });
                bytes_by_dtype.push(Vec::new());
                groups.len() - 1
            });
        let group = &mut groups[index];
        group.tensors += 1;
        group.parameters += tensor.parameters;
        group.bytes += tensor.bytes;
        let dtypes = &mut bytes_by_dtype[index];
        match dtypes.iter_mut().find(|(dtype, _)| *dtype == tensor.dtype) {
            Some((_, bytes)) => *bytes += tensor.bytes,
            None => dtypes.push((tensor.dtype, tensor.bytes)),
        }
    }
    for (group, mut dtypes) in groups.iter_mut().zip(bytes_by_dtype) {
        dtypes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        group.dtypes = dtypes.into_iter().map(|(dtype, _)| dtype).collect();
    }
    groups
}

/// Every stored tensor, in file order.
pub(crate) fn tensor_sizes(
    checkpoint: &Checkpoint,
    catalogue: &Catalogue,
) -> Result<Vec<TensorSize>, Error> {
    checkpoint
        .tensors()
        .map(|info| {
            let parameters = checkpoint.parameter_count(info)?;
            Ok(TensorSize {
                name: info.name.clone(),
                dtype: info.dtype.name(),
                shape: info.shape.clone(),
                part: catalogue.part_of(&info.name),
                role: if parameters.is_some() {
                    TensorRole::Parameter
                } else {
                    TensorRole::Buffer
                },
                parameters: parameters.unwrap_or(0),
                bytes: info.byte_len as u64,
            })
        })
        .collect()
}

/// Bytes of the files of weights that the checkpoint consists of, that of an adapter included.
pub(crate) fn disk_bytes(checkpoint: &Checkpoint) -> Result<u64, Error> {
    let mut files: Vec<PathBuf> = checkpoint.tensors().map(|info| info.file.clone()).collect();
    if let Some(adapter) = checkpoint.adapter() {
        // Tensors that it only changes are said to lie in the files of the base.
        files.push(adapter.weights.clone());
    }
    files.sort();
    files.dedup();
    files
        .into_iter()
        .map(|path| match std::fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(source) => Err(Error::Io { path, source }),
        })
        .sum()
}
