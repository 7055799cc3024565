//! fewbit's executor, without padding.

use crate::protocol::Engine;
use anyhow::Result;
use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Network, RaggedBatch};
use std::path::Path;

pub(crate) struct FewbitEngine {
    network: Network,
    threads: usize,
}

impl FewbitEngine {
    pub(crate) fn open(directory: &Path, threads: usize) -> Result<Self> {
        let (network, _) = Network::load(&Checkpoint::open(directory)?)?;
        Ok(Self { network, threads })
    }
}

impl Engine for FewbitEngine {
    type Inputs = RaggedBatch;
    type Outputs = Vec<f32>;

    fn version(&self) -> String {
        format!("fewbit ({})", self.network.kernels().isa().name())
    }

    fn prepare(&mut self, sequences: &[Vec<u32>], _fixed: bool) -> Result<RaggedBatch> {
        let slices: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        Ok(RaggedBatch::from_sequences(&slices))
    }

    fn run(&mut self, inputs: &RaggedBatch) -> Result<Vec<f32>> {
        Ok(self.network.hidden_states(inputs, self.threads)?)
    }

    fn hidden_states(&self, _sequences: &[Vec<u32>], outputs: &Vec<f32>) -> Result<Vec<f32>> {
        Ok(outputs.clone())
    }
}
