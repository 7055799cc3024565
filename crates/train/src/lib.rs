//! Quantization-aware training: training that ends in the quantized model, with the numbers that it saw.
//!
//! [`DifferentiableEncoder`] is the forward pass of every encoder that the executor runs, over tensors that remember how they were computed.
#![forbid(unsafe_code)]

mod encoder;
mod error;
mod layer_inputs;
mod operations;
mod parameters;

pub use encoder::DifferentiableEncoder;
pub use error::TrainError;
pub use layer_inputs::{FloatInputs, LayerInputs};
pub use parameters::Parameters;
