//! What linear layers read in the place of their inputs.

use candle_core::{Result, Tensor};
use fewbit_model::Module;

/// Inputs of linear layers as the quantized model has them.
pub trait LayerInputs: Sync {
    /// What the codes of `input` (rows, in), the input of `module`, stand for; the gradient passes through.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn quantized(&self, module: &Module, input: &Tensor) -> Result<Tensor>;

    /// Whether the inputs of two layers that read the same rows are quantized alike, so that they can share them.
    fn are_alike(&self, first: &Module, other: &Module) -> bool;
}

/// Inputs as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct FloatInputs;

impl LayerInputs for FloatInputs {
    fn quantized(&self, _module: &Module, input: &Tensor) -> Result<Tensor> {
        Ok(input.clone())
    }

    fn are_alike(&self, _first: &Module, _other: &Module) -> bool {
        true
    }
}
