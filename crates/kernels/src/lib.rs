//! How fast: packed weights, matrix products for each kind of weight, row-wise operations and attention.
//!
//! [`Kernels`] is the table of routines of one instruction set, chosen at run time. All instruction sets give the
//! same bits: every float operation has one fixed order and explicit fused multiply-add, integers accumulate in i32
//! without saturation, and no result depends on how many rows were passed together. The one exception,
//! [`Isa::Avx512Bf16`], must be asked for.
//!
//! # How it is built
//!
//! - `simd`, `int8_tile` and `float_tile` say what an instruction set must or may offer: vectors of sixteen lanes, a tile of exact int8
//!   products, and a float tile that rounds its operands.
//! - `generic` holds the algorithms, each written once.
//! - `arch` has one folder for each instruction set: its intrinsics, and the routines instantiated for it.
//! - The `packed_*` modules hold weights in panels of outputs. int8 weights lie as the tile of an instruction set wants them
//!   (`panel_layout`); other weights do not depend on it.
//! - `codecs` holds the methods that make weights codes and codes weights again, straight from the bytes of a file ([`FloatBytes`]).
//! - [`Kernels`] checks the arguments and calls the routine. [`Routine::all`] lists what there is.

mod aligned;
mod arch;
mod float_tile;
mod generic;
mod int8_tile;
mod panel_layout;
mod panels;
mod simd;
mod weight_memory;

pub mod attention;
pub mod codecs;
pub mod float_bytes;
pub mod isa;
pub mod kernels;
pub mod output_columns;
pub mod packed_float;
pub mod packed_four_bit;
pub mod packed_int4;
mod packed_int8;
pub mod packed_weight_only_int8;
pub mod peak;
pub mod quantized_rows;
pub mod quantized_sequence;
pub mod row_operations;
pub mod workspace;

pub use attention::{AttentionInput, DistanceBias, RelativePositions};
pub use float_bytes::FloatBytes;
pub use isa::{Isa, IsaError};
pub use kernels::{Exactness, Kernels, Operation, Routine};
pub use output_columns::{COLUMN_SPLIT, OutputColumns};
pub use packed_float::PackedFloat;
pub use packed_four_bit::PackedFourBit;
pub use packed_int4::PackedInt4;
pub use packed_int8::{ActivationBits, PackedInt8};
pub use packed_weight_only_int8::PackedWeightOnlyInt8;
pub use peak::{Arithmetic, multiply_adds_per_second};
pub use quantized_rows::{QuantizedRows, RowScale};
pub use quantized_sequence::QuantizedSequence;
pub use row_operations::{Activation, Epilogue, Norm, NormKind};
pub use workspace::Workspace;
