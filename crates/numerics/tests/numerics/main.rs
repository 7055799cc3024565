//! The reference arithmetic against the real libraries, bit for bit, and its properties for any numbers.

mod affine_golden;
mod affine_properties;
mod double_quantization_golden;
mod four_bit_golden;
mod ggml_blocks_golden;
mod golden_input;
mod run_time_golden;
mod storage_golden;
mod storage_properties;
