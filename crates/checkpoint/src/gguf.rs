//! GGUF version 3, the file that llama.cpp runs: metadata and tensors in one.
//!
//! ```text
//! "GGUF"  u32 version  u64 tensors  u64 entries of metadata
//! entries:  string key, u32 type, value          (a string is u64 length and UTF-8)
//! tensors:  string name, u32 dimensions, u64 each (innermost first), u32 type, u64 offset in the data
//! padding to the alignment; the data of each tensor, padded likewise
//! ```
//!
//! Everything is little-endian; the alignment is 32 bytes, unless the entry `general.alignment` says another. Version 2 differs in nothing but its number.
//!
//! [`GgufWriter`] writes a file, [`GgufFile`] reads one, [`Checkpoint::of_gguf`](crate::Checkpoint::of_gguf) shows its tensors under the names that the
//! modules of a model have.
mod file;
mod header;
mod metadata;
mod model_tensors;
mod reader;
mod row_order;
mod tensor_type;
mod writer;

pub use file::{GgufFile, GgufTensor, gguf_source, is_gguf};
pub use header::PlannedTensor;
pub use metadata::{Metadata, MetadataValue, NumberArray, NumberKind};
pub use model_tensors::GgufPart;
pub use row_order::RowOrder;
pub use tensor_type::{StoredType, TensorType};
pub use writer::GgufWriter;
