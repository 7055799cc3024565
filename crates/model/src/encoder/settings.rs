//! Settings that replace those of a model directory.

use crate::pooling::{Pooling, PoolingMode};
use crate::sentence_modules::{Feature, SentenceModule, SentenceModules};
use crate::{ModelError, WeightOnlyArithmetic};

/// Settings that replace those in the files of a model directory; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncoderSettings {
    /// How hidden states become one vector.
    pub pooling: Option<PoolingMode>,
    /// Whether embeddings are L2-normalized.
    pub normalize: Option<bool>,
    /// Longest input in tokens, special tokens included; at most the positions that the model has.
    pub max_tokens: Option<usize>,
    /// A text before every text.
    pub prompt: Option<Prompt>,
    /// What embeddings are for, as `encode_query` and `encode_document` of sentence-transformers say it: `query` or `document`, which
    /// choose the prompt of that name unless [`prompt`](Self::prompt) is given, or another task that a Router of the model knows. A Router
    /// chooses by it which modules run.
    pub task: Option<String>,
    /// The arithmetic of layers whose weights alone are int8; by default that of
    /// [`WeightOnlyArithmetic::from_environment`]. The files of a model say nothing of it.
    pub weight_only: Option<WeightOnlyArithmetic>,
}

impl EncoderSettings {
    /// Settings of which only [`weight_only`](Self::weight_only) is given.
    pub fn with_weight_only(weight_only: Option<WeightOnlyArithmetic>) -> Self {
        Self {
            weight_only,
            ..Self::default()
        }
    }
}

/// A text that stands before every text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// This text; an empty one is none.
    Text(String),
    /// The one of this name among `prompts` of config_sentence_transformers.json; `query` and `document` are empty where it has none.
    Named(String),
}

impl EncoderSettings {
    /// Changes what was read from a model directory.
    pub(super) fn apply(&self, modules: &mut SentenceModules) -> Result<(), ModelError> {
        if let Some(mode) = self.pooling {
            let mut after = modules.after_encoder.iter();
            if after.any(|module| matches!(module, SentenceModule::Splade(_))) {
                return Err(ModelError::Input(format!(
                    "pooling: expected none, because the model pools logits of words (SpladePooling), found {}\n  hint: leave it out",
                    mode.name()
                )));
            }
            for module in &mut modules.after_encoder {
                if let SentenceModule::Pooling(settings) = module {
                    settings.pooling = Pooling::from(mode);
                }
            }
        }
        if let Some(normalize) = self.normalize {
            set_normalize(&mut modules.after_encoder, normalize);
        }
        if self.max_tokens.is_some() {
            modules.max_seq_length = self.max_tokens;
        }
        match &self.prompt {
            None => {}
            Some(Prompt::Text(prompt)) => modules.prompt.clone_from(prompt),
            Some(Prompt::Named(name)) => modules.prompt = modules.prompts.named(name)?.to_owned(),
        }
        Ok(())
    }
}

/// Makes `modules` end with a normalization, or without one.
fn set_normalize(modules: &mut Vec<SentenceModule>, normalize: bool) {
    const NORMALIZE: SentenceModule = SentenceModule::Normalize(Feature::SentenceEmbedding);
    while modules
        .last()
        .is_some_and(|last| *last == NORMALIZE || *last == SentenceModule::Dropout)
    {
        modules.pop();
    }
    if normalize {
        modules.push(NORMALIZE);
    }
}
