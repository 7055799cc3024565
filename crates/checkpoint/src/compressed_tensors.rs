//! The compressed-tensors layouts int-quantized and pack-quantized, written and read.
//!
//! A weight of shape (out, in) is stored as
//!
//! | format | tensors |
//! |---|---|
//! | int-quantized | `weight` I8 \[out, in\]; `weight_scale` \[out, 1\]; with static activations `input_scale` and `input_zero_point` \[1\] |
//! | pack-quantized | `weight_packed` I32 \[out, ceil(in * bits / 32)\]; `weight_scale` \[out, in / group\]; `weight_shape` I64 \[2\] |
mod config_object;
mod read;
mod settings;

use crate::TensorPlan;
pub use config_object::config;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::int_packing::{pack_rows, packed_words};
use fewbit_numerics::rows::Int8Rows;
pub(crate) use read::read;
pub use settings::CompressedTensorsConfig;

/// One scheme that fewbit writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CompressedScheme {
    /// int-quantized: int8 weights per channel, per-token dynamic int8 activations.
    DynamicInt8,
    /// pack-quantized: int8 weights per channel, float activations.
    WeightOnlyInt8,
}

impl CompressedScheme {
    /// Tensors of `module`, whose weight has shape (out, in). Embedding tables, of shape (vocabulary, hidden), are always
    /// stored as `DynamicInt8` plans it (see [`config`]).
    pub fn plan(&self, module: &str, shape: [usize; 2]) -> Vec<TensorPlan> {
        let [rows, columns] = shape;
        let name = |part: &str| format!("{module}.{part}");
        let scale = TensorPlan::new(name("weight_scale"), DType::F32, [rows, 1]);
        match self {
            CompressedScheme::DynamicInt8 => {
                vec![TensorPlan::new(name("weight"), DType::I8, shape), scale]
            }
            CompressedScheme::WeightOnlyInt8 => vec![
                TensorPlan::new(
                    name("weight_packed"),
                    DType::I32,
                    [rows, packed_words(columns, 8)],
                ),
                scale,
                TensorPlan::new(name("weight_shape"), DType::I64, [2]),
            ],
        }
    }

    /// The bytes of each planned tensor, in the same order.
    pub fn encode(&self, module: &str, rows: &Int8Rows) -> Vec<(String, Vec<u8>)> {
        let name = |part: &str| format!("{module}.{part}");
        let scales = rows
            .scales
            .iter()
            .flat_map(|scale| scale.to_le_bytes())
            .collect();
        let scale = (name("weight_scale"), scales);
        match self {
            CompressedScheme::DynamicInt8 => {
                let codes = rows.codes.iter().map(|code| code.cast_unsigned()).collect();
                vec![(name("weight"), codes), scale]
            }
            CompressedScheme::WeightOnlyInt8 => {
                let words = pack_rows(&rows.codes, rows.rows, rows.columns, 8);
                let shape = [rows.rows as u64, rows.columns as u64];
                vec![
                    (
                        name("weight_packed"),
                        words.iter().flat_map(|word| word.to_le_bytes()).collect(),
                    ),
                    scale,
                    (
                        name("weight_shape"),
                        shape.iter().flat_map(|size| size.to_le_bytes()).collect(),
                    ),
                ]
            }
        }
    }
}
