//! rten on an ONNX file, float or dynamic INT8.

use crate::padded::{Padded, without_padding};
use crate::protocol::Engine;
use anyhow::{Context, Result, anyhow};
use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, NdTensorView};
use std::path::Path;
use std::sync::Arc;

pub(crate) struct RtenEngine {
    model: Model,
    pool: Arc<ThreadPool>,
    /// `input_ids`, `attention_mask`, `token_type_ids`.
    inputs: [NodeId; 3],
    output: NodeId,
}

impl RtenEngine {
    pub(crate) fn open(file: &Path, threads: usize) -> Result<Self> {
        // Weights packed at load: faster calls for more memory.
        let model = ModelOptions::with_all_ops()
            .prepack_weights(true)
            .load_file(file)?;
        let inputs = [
            model.node_id("input_ids")?,
            model.node_id("attention_mask")?,
            model.node_id("token_type_ids")?,
        ];
        let output = *model.output_ids().first().context("rten: no output")?;
        let pool = Arc::new(ThreadPool::with_num_threads(threads));
        Ok(Self {
            model,
            pool,
            inputs,
            output,
        })
    }
}

impl Engine for RtenEngine {
    type Inputs = [NdTensor<i32, 2>; 3];
    type Outputs = Value;

    fn version(&self) -> String {
        "rten 0.27".to_owned()
    }

    fn prepare(&mut self, sequences: &[Vec<u32>], _fixed: bool) -> Result<Self::Inputs> {
        let padded = Padded::<i32>::new(sequences)?;
        let shape = [padded.sequences, padded.tokens];
        Ok([
            padded.input_ids,
            padded.attention_mask,
            padded.token_type_ids,
        ]
        .map(|values| NdTensor::from_data(shape, values)))
    }

    fn run(&mut self, inputs: &Self::Inputs) -> Result<Value> {
        let named = self
            .inputs
            .iter()
            .zip(inputs)
            .map(|(&id, tensor)| (id, tensor.view().into()))
            .collect();
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.pool)));
        let mut outputs = self.model.run(named, &[self.output], Some(options))?;
        outputs.pop().context("rten: no output")
    }

    fn hidden_states(&self, sequences: &[Vec<u32>], outputs: &Value) -> Result<Vec<f32>> {
        let states: NdTensorView<f32, 3> = outputs
            .try_into()
            .map_err(|error| anyhow!("rten: output: {error}"))?;
        without_padding(sequences, &states.to_vec())
    }
}
