//! The tensors of a file as those of a checkpoint: under the names of its modules, blocks dequantized as they are read.
use super::file::{GgufFile, GgufTensor};
use super::row_order::RowOrder;
use super::tensor_type::TensorType;
use crate::computed_tensor::{ComputedTensor, Elements, OverlaidTensor};
use crate::{Checkpoint, CheckpointError, CheckpointErrorKind, MappedTensor, TensorInfo};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::ggml_blocks::dequantize_blocks;
use fewbit_numerics::half_precision::float_bytes_to_f32;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;

/// A tensor of a checkpoint, and where a GGUF file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufPart {
    /// The name of the tensor in the checkpoint.
    pub name: String,
    /// The name of the tensor of the file.
    pub stored: String,
    /// The rows of that tensor that it is, where it is not all of them.
    pub rows: Option<Range<usize>>,
    /// The order that the file has its rows in.
    pub order: RowOrder,
}

impl Checkpoint {
    /// A float checkpoint of the tensors `parts` of a GGUF file, with `config` as its config.json. Blocks are shown as F32 and dequantized as they are
    /// read, with the bits of ggml; floats have the dtype of the file. Reads no tensor.
    ///
    /// # Errors
    /// A tensor that the file does not have, or has in a type that fewbit does not read, or without the rows.
    pub fn of_gguf(
        file: &GgufFile,
        config: Value,
        parts: &[GgufPart],
    ) -> Result<Self, CheckpointError> {
        let mut tensors = BTreeMap::new();
        for part in parts {
            let stored = file.tensor(&part.stored).ok_or_else(|| {
                CheckpointError::new(
                    CheckpointErrorKind::MissingTensor,
                    format!(
                        "missing: expected this tensor, found {} others",
                        file.tensors().len()
                    ),
                )
                .in_file(file.path())
                .at_tensor(&part.stored)
            })?;
            let tensor = overlaid(file, stored, part)
                .map_err(|error| error.in_file(file.path()).at_tensor(&stored.name))?;
            if tensors.insert(part.name.clone(), tensor).is_some() {
                return Err(CheckpointError::new(
                    CheckpointErrorKind::Malformed,
                    format!(
                        "expected to be the only tensor that is read as `{}`",
                        part.name
                    ),
                )
                .in_file(file.path())
                .at_tensor(&stored.name));
            }
        }
        Ok(Self::of_tensors(file.path(), config, tensors))
    }
}

fn overlaid(
    file: &GgufFile,
    stored: &GgufTensor,
    part: &GgufPart,
) -> Result<OverlaidTensor, CheckpointError> {
    let Some(kind) = stored.kind.readable() else {
        let names: Vec<String> = TensorType::all().map(|kind| kind.to_string()).collect();
        return Err(CheckpointError::new(
            CheckpointErrorKind::WrongDType,
            format!(
                "type: expected one of {}, found {}",
                names.join(", "),
                stored.kind.name()
            ),
        )
        .hint("llama.cpp's llama-quantize writes the file again with one of these (--allow-requantize), or use a file with them"));
    };
    let wrong_shape = |message| CheckpointError::new(CheckpointErrorKind::WrongShape, message);
    let mut shape = stored.shape.clone();
    let mut data = file.data(stored);
    // Of a vector that is cut or reordered, elements are rows.
    let columns = match &shape[..] {
        [_] if part.rows.is_some() || part.order != RowOrder::Same => 1,
        shape => shape.last().copied().unwrap_or(1),
    };
    if let Some(rows) = &part.rows {
        let all = shape.first().copied().unwrap_or(0);
        let has_rows =
            [1, 2].contains(&shape.len()) && columns.is_multiple_of(kind.block_elements());
        if !has_rows || rows.start > rows.end || rows.end > all {
            return Err(wrong_shape(format!(
                "expected rows {rows:?}, found the shape {shape:?}"
            )));
        }
        let row_bytes = columns / kind.block_elements() * kind.block_bytes();
        data = data.part(rows.start * row_bytes..rows.end * row_bytes);
        shape[0] = rows.len();
    }
    let dtype = match kind {
        TensorType::F16 => DType::F16,
        TensorType::Bf16 => DType::BF16,
        TensorType::F32 | TensorType::Blocks(_) => DType::F32,
    };
    let elements = data.bytes().len() / kind.block_bytes() * kind.block_elements();
    let byte_len = elements
        .checked_mul(dtype.bytes())
        .ok_or_else(|| wrong_shape(format!("shape {shape:?}: the number of bytes overflows")))?;
    let info = TensorInfo {
        name: part.name.clone(),
        dtype,
        shape,
        file: file.path().to_owned(),
        byte_len,
    };
    if part.order == RowOrder::Same && !matches!(kind, TensorType::Blocks(_)) {
        let elements = Elements::Stored(data);
        return Ok(OverlaidTensor { info, elements });
    }
    if let RowOrder::InterleavedHeads { head_rows } = part.order {
        let rows = info.shape.first().copied().unwrap_or(0);
        let has_rows =
            [1, 2].contains(&info.shape.len()) && columns.is_multiple_of(kind.block_elements());
        let has_heads = head_rows > 0 && head_rows % 2 == 0 && rows.is_multiple_of(head_rows);
        if !has_rows || !has_heads {
            return Err(wrong_shape(format!(
                "expected heads of {head_rows} rows, an even number, found the shape {:?}",
                info.shape
            )));
        }
    }
    let rows = GgufRows {
        data,
        kind,
        columns,
        order: part.order,
    };
    let elements = Elements::Computed(Box::new(rows));
    Ok(OverlaidTensor { info, elements })
}

/// Rows in blocks, or in another order than they are stored in.
#[derive(Debug)]
struct GgufRows {
    data: MappedTensor,
    kind: TensorType,
    columns: usize,
    order: RowOrder,
}

impl GgufRows {
    /// Elements `start..start + out.len()` of row `row` of the file, which are within it.
    fn read_row(&self, row: usize, start: usize, out: &mut [f32], blocks: &mut Vec<f32>) {
        let (elements, bytes) = (self.kind.block_elements(), self.kind.block_bytes());
        let first = row * self.columns + start;
        let covered = first / elements..(first + out.len()).div_ceil(elements);
        let data = &self.data.bytes()[covered.start * bytes..covered.end * bytes];
        match self.kind {
            TensorType::F32 => float_bytes_to_f32(DType::F32, data, out),
            TensorType::F16 => float_bytes_to_f32(DType::F16, data, out),
            TensorType::Bf16 => float_bytes_to_f32(DType::BF16, data, out),
            TensorType::Blocks(kind) => {
                let skipped = first - covered.start * elements;
                if skipped == 0 && out.len() == covered.len() * elements {
                    return dequantize_blocks(kind, data, out);
                }
                blocks.resize(covered.len() * elements, 0.0);
                dequantize_blocks(kind, data, blocks);
                out.copy_from_slice(&blocks[skipped..skipped + out.len()]);
            }
        }
    }
}

impl ComputedTensor for GgufRows {
    fn read_range(&self, start: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        let mut blocks = Vec::new();
        if self.order == RowOrder::Same {
            self.read_row(0, start, out, &mut blocks);
            return Ok(());
        }
        let (mut at, mut rest) = (start, out);
        while !rest.is_empty() {
            let (row, column) = (at / self.columns, at % self.columns);
            let count = rest.len().min(self.columns - column);
            let (part, after) = rest.split_at_mut(count);
            self.read_row(self.order.stored(row), column, part, &mut blocks);
            (at, rest) = (at + count, after);
        }
        Ok(())
    }

    fn release(&self) {
        self.data.release(0..self.data.bytes().len());
    }

    fn what(&self) -> &'static str {
        "a tensor of a GGUF file"
    }

    fn hint_of_non_finite(&self) -> &'static str {
        "a scale in the file is no finite number: the file is damaged"
    }
}
