//! Embedding tables, kept as stored and widened row by row.

use fewbit_checkpoint::{CheckpointError, StoredWeight};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::half_precision::{bf16_bytes_to_f32, f16_bytes_to_f32};

/// A table (rows, columns) of which single rows are read.
pub(crate) struct EmbeddingTable {
    columns: usize,
    storage: Storage,
}

enum Storage {
    /// (rows, columns)
    F32(Vec<f32>),
    /// (rows, columns) little-endian
    F16(Vec<u8>),
    /// (rows, columns) little-endian
    BF16(Vec<u8>),
    /// `codes` (rows, columns), `scales` (rows, columns / group_size)
    Int8 {
        codes: Vec<i8>,
        scales: Vec<f32>,
        group_size: usize,
    },
}

impl EmbeddingTable {
    /// Takes a stored matrix of `shape` (rows, columns), whose parts the checkpoint has checked.
    pub(crate) fn new(
        stored: StoredWeight<'_>,
        shape: [usize; 2],
    ) -> Result<Self, CheckpointError> {
        let columns = shape[1];
        let storage = match stored {
            StoredWeight::Float(view) if view.info.dtype == DType::F16 => {
                Storage::F16(view.bytes.to_vec())
            }
            StoredWeight::Float(view) if view.info.dtype == DType::BF16 => {
                Storage::BF16(view.bytes.to_vec())
            }
            StoredWeight::Float(view) => Storage::F32(view.to_f32()?),
            StoredWeight::Int8 { codes, scales, .. } => Storage::Int8 {
                codes: codes.into_owned(),
                scales,
                group_size: columns,
            },
            StoredWeight::WeightOnly {
                codes,
                scales,
                group_size,
                ..
            } => Storage::Int8 {
                codes: codes.into_owned(),
                scales,
                group_size,
            },
            four_bit @ StoredWeight::FourBit { .. } => Storage::F32(four_bit.dequantize(shape)?),
        };
        Ok(Self { columns, storage })
    }

    /// Writes row `row` to `out` (columns).
    pub(crate) fn read(&self, row: usize, out: &mut [f32]) {
        let range = row * self.columns..(row + 1) * self.columns;
        let bytes = 2 * range.start..2 * range.end;
        match &self.storage {
            Storage::F32(values) => out.copy_from_slice(&values[range]),
            Storage::F16(values) => f16_bytes_to_f32(&values[bytes], out),
            Storage::BF16(values) => bf16_bytes_to_f32(&values[bytes], out),
            Storage::Int8 {
                codes,
                scales,
                group_size,
            } => {
                let groups = self.columns / group_size;
                let codes = codes[range].chunks_exact(*group_size);
                let scales = &scales[row * groups..(row + 1) * groups];
                for ((out, codes), scale) in
                    out.chunks_exact_mut(*group_size).zip(codes).zip(scales)
                {
                    for (out, &code) in out.iter_mut().zip(codes) {
                        *out = f32::from(code) * scale;
                    }
                }
            }
        }
    }

    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        match &self.storage {
            Storage::F32(values) => size_of_val(values.as_slice()),
            Storage::F16(bytes) | Storage::BF16(bytes) => bytes.len(),
            Storage::Int8 { codes, scales, .. } => codes.len() + size_of_val(scales.as_slice()),
        }
    }
}
