//! GGUF version 3, the file that llama.cpp runs: metadata and tensors in one.
//!
//! ```text
//! "GGUF"  u32 version  u64 tensors  u64 entries of metadata
//! entries:  string key, u32 type, value          (a string is u64 length and UTF-8)
//! tensors:  string name, u32 dimensions, u64 each (innermost first), u32 type, u64 offset in the data
//! padding to the alignment; the data of each tensor, padded likewise
//! ```
//!
//! Everything is little-endian; the alignment is 32 bytes, which readers take where nothing is said.
mod header;
mod writer;

pub use header::{MetadataValue, PlannedTensor, TensorType};
pub use writer::GgufWriter;
