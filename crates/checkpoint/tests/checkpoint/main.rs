//! Checkpoints as their users see them: opened, read in every layout, written, and fetched from a Hub.

mod bitsandbytes_layout;
mod checkpoint_builder;
mod compressed_tensors_floats;
mod compressed_tensors_golden;
mod compressed_tensors_variants;
mod dequantized;
mod gguf_golden;
mod gptq_awq;
mod hub_download;
mod local_hub;
mod opening;
mod parameter_count;
mod pytorch_golden;
mod pytorch_layouts;
mod pytorch_refused;
mod renaming;
mod torch_archive;
mod writing;
