//! candle's BERT in f32 on the CPU.

use crate::padded::{Padded, without_padding};
use crate::protocol::Engine;
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use std::path::Path;

pub(crate) struct CandleEngine {
    model: BertModel,
}

impl CandleEngine {
    /// candle asks `RAYON_NUM_THREADS` for the number of threads; here it is only checked.
    pub(crate) fn open(directory: &Path, threads: usize) -> Result<Self> {
        let found = candle_core::utils::get_num_threads();
        ensure!(
            found == threads,
            "candle: expected {threads} threads, found {found}: set RAYON_NUM_THREADS"
        );
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).with_context(|| path.display().to_string())
        };
        let config: Config = serde_json::from_slice(&read("config.json")?)?;
        let weights = VarBuilder::from_buffered_safetensors(
            read("model.safetensors")?,
            DType::F32,
            &Device::Cpu,
        )?;
        let model = BertModel::load(weights, &config)?;
        Ok(Self { model })
    }
}

/// `input_ids`, `token_type_ids`, `attention_mask`.
pub(crate) struct Inputs([Tensor; 3]);

impl Engine for CandleEngine {
    type Inputs = Inputs;
    type Outputs = Tensor;

    fn version(&self) -> String {
        "candle 0.11".to_owned()
    }

    fn prepare(&mut self, sequences: &[Vec<u32>], _fixed: bool) -> Result<Inputs> {
        let padded = Padded::<u32>::new(sequences)?;
        let shape = (padded.sequences, padded.tokens);
        let tensor = |values| Tensor::from_vec(values, shape, &Device::Cpu);
        Ok(Inputs([
            tensor(padded.input_ids)?,
            tensor(padded.token_type_ids)?,
            tensor(padded.attention_mask)?,
        ]))
    }

    fn run(&mut self, inputs: &Inputs) -> Result<Tensor> {
        let [ids, types, mask] = &inputs.0;
        Ok(self.model.forward(ids, types, Some(mask))?)
    }

    fn hidden_states(&self, sequences: &[Vec<u32>], outputs: &Tensor) -> Result<Vec<f32>> {
        without_padding(sequences, &outputs.flatten_all()?.to_vec1::<f32>()?)
    }
}
