//! What turns hidden states into logits: see [`HeadSpec`].

use candle_core::{DType, Device, Result, Tensor};
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::Activation;
use fewbit_model::spec::NormSpec;
use fewbit_model::task_head::{HeadRows, HeadStep};
use fewbit_model::{Catalogue, HeadSpec, Module, RaggedBatch, Role};

use super::norm::NormModule;
use super::run::Run;
use super::{missing_role, vector};
use crate::TrainError;
use crate::operations::activation::activate;
use crate::operations::linear::Product;
use crate::operations::sequence_means::sequence_means;

/// A task head. Its poolers and layers are parameters, but for one that gives logits of words: its matrix is as a rule the table of word embeddings,
/// which training does not change.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) spec: HeadSpec,
    steps: Vec<Step>,
    /// Logits of a row.
    columns: usize,
}

#[derive(Debug)]
enum Step {
    Linear(Module, Activation),
    Norm(NormModule, NormSpec),
    /// Constant.
    Words {
        /// (words, columns)
        weight: Tensor,
        /// (words)
        bias: Option<Tensor>,
    },
}

impl Head {
    /// The head `spec` of a model; what is constant is read from `checkpoint`.
    pub(super) fn new(
        spec: HeadSpec,
        catalogue: &Catalogue,
        checkpoint: &Checkpoint,
    ) -> std::result::Result<Self, TrainError> {
        let step = |step: &HeadStep| {
            Ok::<_, TrainError>(match step {
                HeadStep::Linear { module, activation } => {
                    Step::Linear(module.clone(), *activation)
                }
                HeadStep::Norm { module, epsilon } => {
                    let norm = NormModule::of_module(module, checkpoint);
                    Step::Norm(norm, NormSpec::layer(*epsilon))
                }
                HeadStep::Decoder {
                    module,
                    shared_bias,
                    tied,
                } => {
                    let words = catalogue.word_embeddings();
                    let words =
                        words.ok_or_else(|| missing_role(Role::WordEmbeddings, catalogue))?;
                    let shared_bias = shared_bias.as_deref();
                    let (table, bias) =
                        HeadSpec::decoder_tensors(checkpoint, module, shared_bias, *tied, words);
                    let weight = table.stored_table(checkpoint)?.dequantize(table.shape)?;
                    let [words, columns] = table.shape;
                    let bias = bias.map(|name| vector(checkpoint, &name, words));
                    Step::Words {
                        weight: Tensor::from_vec(weight, (words, columns), &Device::Cpu)?,
                        bias: bias.transpose()?,
                    }
                }
            })
        };
        let outputs = |step: &HeadStep| match step {
            HeadStep::Linear { module, .. } | HeadStep::Decoder { module, .. } => module.shape[0],
            HeadStep::Norm { module, .. } => module.shape[1],
        };
        Ok(Self {
            steps: spec
                .steps
                .iter()
                .map(step)
                .collect::<std::result::Result<_, _>>()?,
            columns: spec.steps.last().map_or(0, outputs),
            spec,
        })
    }

    /// The logits of a batch, (texts, columns) or (tokens, columns), of its last hidden states.
    pub(super) fn logits(
        &self,
        run: &Run<'_>,
        batch: &RaggedBatch,
        states: &Tensor,
    ) -> Result<Tensor> {
        if batch.tokens() == 0 {
            return Tensor::zeros((0, self.columns), DType::F32, &Device::Cpu);
        }
        let mut rows = self.rows(run, batch, states)?;
        for step in &self.steps {
            rows = match step {
                Step::Linear(module, activation) => {
                    activate(&run.linear(module, &rows)?, *activation, run.kernels)?
                }
                Step::Norm(norm, spec) => run.normalize_as(*spec, norm, &rows)?,
                Step::Words { weight, bias } => {
                    Product::new(run.kernels).linear(&rows, weight, bias.as_ref())?
                }
            };
        }
        match self.spec.rows {
            HeadRows::EveryTokenThenMean => sequence_means(&rows, run.offsets()),
            _ => Ok(rows),
        }
    }

    /// The rows that the first step reads: the pooled output, where the head reads one of each text.
    fn rows(&self, run: &Run<'_>, batch: &RaggedBatch, states: &Tensor) -> Result<Tensor> {
        let rows = self.spec.rows;
        let token = |sequence: std::ops::Range<usize>| {
            let token = rows.token_of(&batch.token_ids[sequence.clone()])?;
            Some((sequence.start + token) as u32)
        };
        match rows {
            HeadRows::EveryToken | HeadRows::EveryTokenThenMean => Ok(states.clone()),
            HeadRows::Mean => sequence_means(states, run.offsets()),
            HeadRows::FirstToken | HeadRows::LastToken { .. } => {
                let tokens: Vec<u32> = run.sequences().filter_map(token).collect();
                let tokens = Tensor::new(tokens, &Device::Cpu)?;
                states.contiguous()?.index_select(&tokens, 0)
            }
        }
    }
}
