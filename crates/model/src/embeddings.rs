//! Embedding tables, kept as stored and widened row by row.

use crate::Module;
use crate::finite::check_tensor;
use fewbit_checkpoint::stored_weight::round_to;
use fewbit_checkpoint::{Checkpoint, CheckpointError, MappedTensor, StoredWeight};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::four_bit::{FourBitType, dequantize_range};
use fewbit_numerics::half_precision::float_bytes_to_f32;

/// A table (rows, columns) of which single rows are read. A float table of a checkpoint stays in its file.
pub struct EmbeddingTable {
    columns: usize,
    storage: Storage,
}

impl std::fmt::Debug for EmbeddingTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddingTable")
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

enum Storage {
    /// (rows, columns)
    F32(Vec<f32>),
    /// (rows, columns) of floats, where the checkpoint has them. Rows of a table that is not small are read from the file, as words
    /// are scattered: by the mapping, a few thousand of them would bring the whole table into memory.
    Mapped { dtype: DType, table: MappedTensor },
    /// `codes` (rows, columns), `scales` (rows, columns / group_size)
    Int8 {
        codes: Vec<i8>,
        scales: Vec<f32>,
        group_size: usize,
    },
    /// 4-bit codes of (rows, columns) with one absmax a block of them; values are rounded to `dtype`.
    FourBit {
        packed: Vec<u8>,
        absmax: Vec<f32>,
        block_size: usize,
        kind: FourBitType,
        dtype: DType,
    },
}

/// A table of no more bytes stays in memory once it is used.
const SMALL_TABLE_BYTES: usize = 4 << 20;

/// Bytes that are read from a file at a time: a multiple of every width.
const READ_BYTES: usize = 4 << 10;

impl EmbeddingTable {
    /// The table of `module`, as `checkpoint` stores it.
    ///
    /// # Errors
    /// Those of [`Module::stored_table`]; a number of it that is not finite.
    pub fn of_module(checkpoint: &Checkpoint, module: &Module) -> Result<Self, CheckpointError> {
        let stored = module.stored_table(checkpoint)?;
        let mapped = match &stored {
            StoredWeight::Float(view) => {
                let mapped = checkpoint.mapped(&view.info.name);
                check_tensor(view, mapped.as_ref())?;
                mapped
            }
            _ => None,
        };
        Self::new(stored, mapped, module.shape)
    }

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
                other @ StoredWeight::Groups {
                    zero_points: Some(_),
                    ..
                },
                _,
            ) => Storage::F32(other.dequantize(shape)?),
            (
                StoredWeight::Groups {
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
            (
                StoredWeight::FourBit {
                    packed,
                    absmax,
                    block_size,
                    kind,
                    dtype,
                    ..
                },
                _,
            ) => Storage::FourBit {
                packed: packed.into_owned(),
                absmax,
                block_size,
                kind,
                dtype,
            },
            (other @ (StoredWeight::FloatBytes { .. } | StoredWeight::SmallFloats(_)), _) => {
                Storage::F32(other.dequantize(shape)?)
            }
        };
        Ok(Self { columns, storage })
    }

    /// Columns of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Writes row `row`, which must be one of the table, to `out` (columns).
    pub fn read(&self, row: usize, out: &mut [f32]) {
        let range = row * self.columns..(row + 1) * self.columns;
        match &self.storage {
            Storage::F32(values) => out.copy_from_slice(&values[range]),
            Storage::Mapped { dtype, table } => {
                let width = dtype.bytes();
                let start = range.start * width;
                if table.bytes().len() <= SMALL_TABLE_BYTES {
                    float_bytes_to_f32(*dtype, &table.bytes()[start..range.end * width], out);
                    return;
                }
                let mut buffer = [0; READ_BYTES];
                for (part, out) in out.chunks_mut(READ_BYTES / width).enumerate() {
                    let bytes = &mut buffer[..out.len() * width];
                    table.read(start + part * READ_BYTES, bytes);
                    float_bytes_to_f32(*dtype, bytes, out);
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
            Storage::FourBit {
                packed,
                absmax,
                block_size,
                kind,
                dtype,
            } => {
                dequantize_range(packed, absmax, *block_size, *kind, range.start, out);
                round_to(*dtype, out);
            }
        }
    }

    /// Bytes of the table, in memory or in the mapped file.
    pub(crate) fn memory_bytes(&self) -> usize {
        match &self.storage {
            Storage::F32(values) => size_of_val(values.as_slice()),
            Storage::Mapped { table, .. } => table.bytes().len(),
            Storage::Int8 { codes, scales, .. } => codes.len() + size_of_val(scales.as_slice()),
            Storage::FourBit { packed, absmax, .. } => {
                packed.len() + size_of_val(absmax.as_slice())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, View, tensor::TensorView};
    use std::collections::HashMap;

    /// A row takes more than one read, and the last of them is short.
    const COLUMNS: usize = 3 * READ_BYTES / 2 + 1;

    #[test]
    fn rows_read_from_the_file_are_those_of_the_mapping() {
        let rows = SMALL_TABLE_BYTES / (2 * COLUMNS) + 1;
        let types = [
            (Dtype::F16, 2),
            (Dtype::BF16, 2),
            (Dtype::F32, 4),
            (Dtype::F64, 8),
        ];
        for (dtype, width) in types {
            for rows in [3, rows] {
                let directory = tempfile::tempdir().expect("a directory");
                // The upper byte keeps all values finite.
                let bytes: Vec<u8> = (0..rows * COLUMNS * width)
                    .map(|i| {
                        if i % width == width - 1 {
                            0x3c
                        } else {
                            (i * 7 + i / 251) as u8
                        }
                    })
                    .collect();
                let table = TensorView::new(dtype, vec![rows, COLUMNS], &bytes).expect("a tensor");
                assert_eq!(table.data_len() > SMALL_TABLE_BYTES, rows > 3);
                let file = directory.path().join("model.safetensors");
                safetensors::serialize_to_file(HashMap::from([("t.weight", table)]), None, &file)
                    .expect("writable");
                std::fs::write(directory.path().join("config.json"), "{}").expect("writable");

                let checkpoint = Checkpoint::open(directory.path()).expect("a checkpoint");
                let view = checkpoint.get("t.weight").expect("there");
                let expected = view.to_f32().expect("floats");
                let mapped = checkpoint.mapped("t.weight");
                let table = EmbeddingTable::new(StoredWeight::Float(view), mapped, [rows, COLUMNS])
                    .expect("a table");
                drop(checkpoint);
                // What takes the name of a file does not take its place.
                std::fs::remove_file(&file).expect("removable");
                std::fs::write(&file, "another").expect("writable");
                let mut row = vec![f32::NAN; COLUMNS];
                for index in [0, rows / 2, rows - 1] {
                    table.read(index, &mut row);
                    assert_eq!(
                        row,
                        expected[index * COLUMNS..][..COLUMNS],
                        "{dtype:?} {index}"
                    );
                }
            }
        }
    }
}
