//! Bytes on disk: what a Hugging Face checkpoint directory holds, read and written.
//!
//! - [`Checkpoint`] opens a directory (`config.json`, and `model.safetensors`, `pytorch_model.bin` or shards of either), validates
//!   every header before it touches data, and reads weights in the form in which they are stored ([`StoredWeight`]): float, or in a layout
//!   of bitsandbytes, compressed-tensors, GPTQ or AWQ.
//! - [`adapter`] merges a PEFT adapter that lies beside the weights, or whose base is found, into the tensors that are read.
//! - [`CheckpointWriter`] writes a directory beside its destination, tensor by tensor, and renames it when it is whole; [`OutputFile`](output_file::OutputFile)
//!   does the same for one file.
//! - [`unfinished`] and [`leftovers`] see to it that nothing stays behind when a process is stopped or killed.
//! - [`bitsandbytes`], [`compressed_tensors`], [`gptq`] and [`awq`] say which tensors ([`WeightLayout`]) and which `quantization_config` a scheme is stored as.
//! - [`hub`] turns a Hub id into a local directory.
//!
//! Every error is a [`CheckpointError`]: file, tensor, expected, found, hint.
#![deny(unsafe_code)]

pub mod adapter;
pub mod awq;
mod background_writes;
pub mod bitsandbytes;
pub mod checkpoint;
pub mod compressed_tensors;
mod computed_tensor;
mod dequantized;
#[cfg(test)]
mod directory_listing;
mod disk_space;
pub mod error;
mod float_weight;
pub mod gguf;
pub mod gptq;
pub mod group_layout;
mod grouped_columns;
pub mod hub;
mod joined_rows;
mod json_fields;
mod kept_shards;
pub mod leftovers;
mod location;
#[allow(
    unsafe_code,
    reason = "mapping a file is the one unsafe operation of this crate"
)]
mod memory_map;
mod module_pattern;
pub mod output_file;
mod output_path;
mod ownership;
mod parameter_count;
mod pytorch;
pub mod quantization_config;
mod quantization_error;
mod read_weight;
mod renaming;
mod replaced_values;
mod safetensors_file;
mod shard_plan;
mod sharded_tensors;
mod shards;
pub mod small_floats;
mod staging;
pub mod stored_weight;
pub mod temporary_directory;
pub mod tensor;
mod tensor_file;
pub mod unfinished;
pub mod weight_layout;
mod weights_file;
pub mod writer;

pub use adapter::{ADAPTER_CONFIG_FILE, Adapter};
pub use checkpoint::Checkpoint;
pub use error::{CheckpointError, CheckpointErrorKind};
pub use group_layout::GroupLayout;
pub use kept_shards::{partial_path, path_beside};
pub use location::MODULES_FILE;
pub use memory_map::MappedTensor;
pub use quantization_config::QuantizationConfig;
pub use renaming::RenamedTensor;
pub use stored_weight::StoredWeight;
pub use tensor::{TensorInfo, TensorView};
pub use weight_layout::WeightLayout;
pub use writer::{CheckpointWriter, TensorPlan};
