//! The float model that a student is to be like.

use candle_core::{Device, Tensor};
use fewbit_model::{Network, RaggedBatch, Tap};

use crate::{DifferentiableEncoder, FloatInputs, Parameters, TrainError};

/// What the teacher makes of a batch.
pub(crate) struct TeacherStates {
    /// Hidden states (tokens, hidden size) after the embeddings and after each layer.
    pub(crate) states: Vec<Tensor>,
    /// Logits of its head, where it has one and they were asked for.
    pub(crate) logits: Option<Tensor>,
}

impl TeacherStates {
    /// What `network` gives for `batch`, on the calling thread.
    pub(crate) fn of(network: &Network, batch: &RaggedBatch) -> Result<Self, TrainError> {
        let mut collected = Collected::default();
        network.hidden_states_tapped(batch, &mut collected)?;
        let tensor = |values: Vec<f32>| {
            let shape = (batch.tokens(), collected.columns);
            Tensor::from_vec(values, shape, &Device::Cpu)
        };
        let states = collected.states.into_iter().map(tensor);
        Ok(Self {
            states: states.collect::<Result<_, _>>()?,
            logits: None,
        })
    }

    /// The same with the logits that the head of `model` gives of the last hidden states of `batch` with `parameters`, those of the float model: the bits of the
    /// executor's head.
    pub(crate) fn with_logits(
        mut self,
        model: &DifferentiableEncoder,
        parameters: &Parameters,
        batch: &RaggedBatch,
    ) -> Result<Self, TrainError> {
        if let Some(last) = self.states.last() {
            self.logits = model.logits(parameters, batch, last, &FloatInputs)?;
        }
        Ok(self)
    }
}

/// Hidden states of all steps, block after block.
#[derive(Default)]
struct Collected {
    columns: usize,
    states: Vec<Vec<f32>>,
}

impl Tap for Collected {
    fn wants(&self, _site: &str) -> bool {
        false
    }

    fn see(&mut self, _site: &str, _rows: usize, _columns: usize, _values: &[f32]) {}

    fn see_hidden_states(&mut self, step: usize, columns: usize, values: &[f32]) {
        self.columns = columns;
        if self.states.len() <= step {
            self.states.resize_with(step + 1, Vec::new);
        }
        self.states[step].extend_from_slice(values);
    }
}
