//! Embedding tables, kept as stored and widened row by row.

use fewbit_checkpoint::{CheckpointError, MappedTensor, StoredWeight};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::half_precision::{bf16_bytes_to_f32, f16_bytes_to_f32, f64_bytes_to_f32};

/// A table (rows, columns) of which single rows are read.
pub(crate) struct EmbeddingTable {
    columns: usize,
    storage: Storage,
}

enum Storage {
    /// (rows, columns)
    F32(Vec<f32>),
    /// (rows, columns) of floats, where the checkpoint has them: only rows that are looked up come into memory.
    Mapped { dtype: DType, table: MappedTensor },
    /// `codes` (rows, columns), `scales` (rows, columns / group_size)
    Int8 {
        codes: Vec<i8>,
        scales: Vec<f32>,
        group_size: usize,
    },
}

impl EmbeddingTable {
    /// Takes a stored matrix of `shape` (rows, columns), whose parts the checkpoint has checked; `mapped` is its float tensor,
    /// if it is one.
    pub(crate) fn new(
        stored: StoredWeight<'_>,
        mapped: Option<MappedTensor>,
        shape: [usize; 2],
    ) -> Result<Self, CheckpointError> {
        let columns = shape[1];
        let storage = match (stored, mapped) {
            (StoredWeight::Float(view), Some(table)) => Storage::Mapped {
                dtype: view.info.dtype,
                table,
            },
            (StoredWeight::Float(view), None) => Storage::F32(view.to_f32()?),
            (StoredWeight::Int8 { codes, scales, .. }, _) => Storage::Int8 {
                codes: codes.into_owned(),
                scales,
                group_size: columns,
            },
            (
                StoredWeight::WeightOnly {
                    codes,
                    scales,
                    group_size,
                    ..
                },
                _,
            ) => Storage::Int8 {
                codes: codes.into_owned(),
                scales,
                group_size,
            },
            (four_bit @ StoredWeight::FourBit { .. }, _) => {
                Storage::F32(four_bit.dequantize(shape)?)
            }
        };
        Ok(Self { columns, storage })
    }

    /// Writes row `row` to `out` (columns).
    pub(crate) fn read(&self, row: usize, out: &mut [f32]) {
        let range = row * self.columns..(row + 1) * self.columns;
        match &self.storage {
            Storage::F32(values) => out.copy_from_slice(&values[range]),
            Storage::Mapped { dtype, table } => {
                let width = dtype.bytes();
                let bytes = &table.bytes()[range.start * width..range.end * width];
                match dtype {
                    DType::F16 => f16_bytes_to_f32(bytes, out),
                    DType::BF16 => bf16_bytes_to_f32(bytes, out),
                    DType::F64 => f64_bytes_to_f32(bytes, out),
                    _ => {
                        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                            *out = f32::from_le_bytes(*bytes);
                        }
                    }
                }
            }
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

    /// Bytes of the table, in memory or in the mapped file.
    pub(crate) fn memory_bytes(&self) -> usize {
        match &self.storage {
            Storage::F32(values) => size_of_val(values.as_slice()),
            Storage::Mapped { table, .. } => table.bytes().len(),
            Storage::Int8 { codes, scales, .. } => codes.len() + size_of_val(scales.as_slice()),
        }
    }
}
