//! Task heads: what turns hidden states into logits.
//!
//! A [`HeadSpec`] says which rows a head reads and which steps follow; `families` has the table of each family, `network::head` runs it. The
//! task follows from the model class that config.json names.

mod builder;
mod families;
mod labels;
mod scores;
mod task;

use crate::config_fields::ConfigFields;
use crate::{EncoderSpec, ModelError, Module};
use builder::HeadBuilder;
use fewbit_checkpoint::{Checkpoint, CheckpointError, CheckpointErrorKind};
use fewbit_kernels::Activation;
pub use labels::{Labels, ProblemType};
pub use scores::{CrossEncoder, ScoreFunction};
pub use task::{ModelClass, Task};

/// Declarative description of a task head on top of an encoder. The last step is one with logits as its outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadSpec {
    /// What it is for.
    pub task: Task,
    /// The rows that its first step reads.
    pub rows: HeadRows,
    /// What it computes of each row.
    pub steps: Vec<HeadStep>,
}

/// The rows that a head reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadRows {
    /// The first token's hidden state, one row a sequence.
    FirstToken,
    /// The mean over all tokens, one row a sequence.
    Mean,
    /// The last token's that is no padding, one row a sequence.
    LastToken {
        /// config.json `pad_token_id`, which a text may hold too.
        padding_id: Option<u32>,
    },
    /// Every token's.
    EveryToken,
    /// Every token's, and the logits of a sequence are the means of theirs.
    EveryTokenThenMean,
}

impl HeadRows {
    /// Which of the tokens `ids` of a sequence, of which there is one at least, it is whose hidden state is read; none where several are.
    pub fn token_of(self, ids: &[u32]) -> Option<usize> {
        match self {
            Self::FirstToken => Some(0),
            Self::LastToken { padding_id } => {
                let is_text = |id: &u32| Some(*id) != padding_id;
                // Of padding alone transformers takes the first token.
                Some(ids.iter().rposition(is_text).unwrap_or(0))
            }
            Self::Mean | Self::EveryToken | Self::EveryTokenThenMean => None,
        }
    }
}

/// A step of a head, on each row.
#[derive(Debug, Clone, PartialEq)]
pub enum HeadStep {
    /// activation(x W^T + b)
    Linear {
        /// Its tensors.
        module: Module,
        /// The function of the product.
        activation: Activation,
    },
    /// LayerNorm.
    Norm {
        /// Its tensors.
        module: Module,
        /// Added to the variance.
        epsilon: f32,
    },
    /// Logits of all words: x W^T + b.
    Decoder {
        /// Its tensors, of which the matrix is there only where it is not that of the word embeddings.
        module: Module,
        /// The bias where the decoder's own is not there.
        shared_bias: Option<String>,
        /// Whether it shares what the checkpoint does not have of it: config.json `tie_word_embeddings`.
        tied: bool,
    },
}

impl HeadSpec {
    /// The head that config.json's model class puts on the encoder `spec`, with one output for each of `labels`.
    ///
    /// # Errors
    /// [`ModelError::Config`]: there is no head, one that fewbit does not run, or a setting of it that is impossible.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        spec: &EncoderSpec,
        labels: &Labels,
    ) -> Result<Self, ModelError> {
        let file = checkpoint.config_file();
        let fields = ConfigFields::new(&file, checkpoint.config());
        let task = ModelClass::task_of(&fields)?;
        if task == Task::QuestionAnswering && labels.len() != 2 {
            return Err(fields.error(
                labels.field(),
                format!(
                    "expected 2 labels, the logits of an answer's start and of its end, found {}",
                    labels.len()
                ),
                "the heads of question answering have two outputs in transformers",
            ));
        }
        families::head(HeadBuilder::new(fields, spec, task, labels.len()))
    }

    /// Where the numbers of a [decoder](HeadStep::Decoder) lie: the module with its matrix, and its bias. What the checkpoint has of it comes first:
    /// transformers shares only what is not there or is the same. `words` is the word embedding table.
    pub fn decoder_tensors(
        checkpoint: &Checkpoint,
        module: &Module,
        shared_bias: Option<&str>,
        tied: bool,
        words: &Module,
    ) -> (Module, Option<String>) {
        let own = !checkpoint.weight_tensor_names(&module.name).is_empty();
        let table = match own || !tied {
            true => module.clone(),
            false => Module {
                shape: module.shape,
                ..words.clone()
            },
        };
        let own_bias = format!("{}.bias", module.name);
        let bias = match (module.bias, shared_bias) {
            (false, _) => None,
            (true, Some(shared)) if tied && !checkpoint.contains(&own_bias) => {
                Some(shared.to_owned())
            }
            (true, _) => Some(own_bias),
        };
        (table, bias)
    }

    /// Says where the number of outputs comes from, if `error` is about the shape of `module`, and that gives the logits of labels.
    pub fn about_labels(&self, error: CheckpointError, module: &Module) -> CheckpointError {
        let gives_labels = |step: &HeadStep| {
            let last = match step {
                HeadStep::Linear { module, .. } => Some(module),
                HeadStep::Norm { .. } | HeadStep::Decoder { .. } => None,
            };
            last.is_some_and(|last| last.name == module.name)
        };
        let is_last = self.steps.last().is_some_and(gives_labels);
        if error.kind() != CheckpointErrorKind::WrongShape || !is_last {
            return error;
        }
        let labels = module.shape[0];
        error.hint(format!(
            "config.json has {labels} labels (`id2label`, or `num_labels`, or 2 without either), and the head must have an output for each"
        ))
    }

    /// The modules that a checkpoint must have, but for the decoder, which may share its matrix.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.steps.iter().filter_map(|step| match step {
            HeadStep::Linear { module, .. } | HeadStep::Norm { module, .. } => Some(module),
            HeadStep::Decoder { .. } => None,
        })
    }
}
