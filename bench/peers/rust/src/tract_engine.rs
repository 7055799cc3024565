//! tract on an ONNX file.

use crate::padded::{Padded, without_padding};
use crate::protocol::Engine;
use anyhow::Result;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::prelude::*;

/// A model for each shape (sequences, tokens): with symbolic dimensions tract 0.23 refuses the graph ("Can not compute a shape
/// with square of symbols", at the Flatten of the attention mask).
pub(crate) struct TractEngine {
    file: PathBuf,
    plans: HashMap<[usize; 2], Arc<TypedSimplePlan>>,
}

impl TractEngine {
    pub(crate) fn open(file: &Path, threads: usize) -> Result<Self> {
        if threads > 1 {
            set_default_executor(Executor::multithread(threads));
        }
        Ok(Self {
            file: file.to_owned(),
            plans: HashMap::new(),
        })
    }

    fn plan(&mut self, shape: [usize; 2]) -> Result<Arc<TypedSimplePlan>> {
        if let Some(plan) = self.plans.get(&shape) {
            return Ok(Arc::clone(plan));
        }
        let mut framework = onnx();
        // The file's notes on intermediate shapes name the symbols that are numbers here.
        framework.ignore_value_info = true;
        let mut model = framework.model_for_path(&self.file)?;
        for input in 0..3 {
            model = model.with_input_fact(input, i64::fact(shape).into())?;
        }
        let plan = model.into_optimized()?.into_runnable()?;
        self.plans.insert(shape, Arc::clone(&plan));
        Ok(plan)
    }
}

pub(crate) struct Inputs {
    plan: Arc<TypedSimplePlan>,
    /// `input_ids`, `attention_mask`, `token_type_ids`: the order of the file.
    tensors: TVec<TValue>,
}

impl Engine for TractEngine {
    type Inputs = Inputs;
    type Outputs = TValue;

    fn version(&self) -> String {
        "tract 0.23".to_owned()
    }

    fn prepare(&mut self, sequences: &[Vec<u32>], _fixed: bool) -> Result<Inputs> {
        let padded = Padded::<i64>::new(sequences)?;
        let shape = [padded.sequences, padded.tokens];
        let tensors = [
            padded.input_ids,
            padded.attention_mask,
            padded.token_type_ids,
        ]
        .into_iter()
        .map(|values| Ok(Tensor::from_shape(&shape, &values)?.into_tvalue()))
        .collect::<Result<TVec<TValue>>>()?;
        Ok(Inputs {
            plan: self.plan(shape)?,
            tensors,
        })
    }

    fn run(&mut self, inputs: &Inputs) -> Result<TValue> {
        Ok(inputs.plan.run(inputs.tensors.clone())?.remove(0))
    }

    fn hidden_states(&self, sequences: &[Vec<u32>], outputs: &TValue) -> Result<Vec<f32>> {
        let states = outputs.to_plain_array_view::<f32>()?;
        without_padding(sequences, &states.iter().copied().collect::<Vec<f32>>())
    }
}
