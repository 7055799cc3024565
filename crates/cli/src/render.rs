//! Results as text for people.

pub(crate) mod benchmark;
pub(crate) mod calibration_sweep;
mod columns;
pub(crate) mod comparison;
pub(crate) mod conversion;
pub(crate) mod gguf_inspection;
pub(crate) mod inspection;
pub(crate) mod numbers;
pub(crate) mod predictions;
pub(crate) mod progress;
pub(crate) mod quantization;
pub(crate) mod sensitivity;
pub(crate) mod table;
pub(crate) mod training;
pub(crate) mod weight_sensitivity;
