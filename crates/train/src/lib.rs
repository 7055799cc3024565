//! Quantization-aware training: training that ends in the quantized model, with the numbers that it saw.
//!
//! [`DifferentiableEncoder`] is the forward pass of every encoder that the executor runs, and of its task head, over tensors that remember how they were computed.
#![forbid(unsafe_code)]

mod encoder;
mod error;
mod held_out;
mod input_quantizer;
mod layer_inputs;
mod logit_distance;
mod loss;
mod operations;
mod optimizer;
mod options;
mod parameters;
mod sample_order;
mod saved_training;
mod start;
mod student;
mod teacher;
#[cfg(test)]
#[path = "../../quantize/tests/quantize/tiny_bert.rs"]
#[allow(dead_code, reason = "the tests of conversions use all of it")]
mod tiny_bert;
mod trainer;
mod weight_gradients;
mod weight_quantizer;
mod weights;

pub use encoder::DifferentiableEncoder;
pub use error::TrainError;
pub use layer_inputs::{FloatInputs, LayerInputs};
pub use logit_distance::{LogitAgreement, LogitMeasure};
pub use options::TrainingOptions;
pub use parameters::Parameters;
pub use trainer::{TrainingEnd, TrainingProgress, TrainingReport, train_model};
