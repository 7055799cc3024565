//! One description of an encoder, filled from config.json.
//!
//! [`EncoderSpec`] says what is computed (sizes, activation, positions, token types, attention bias, projection) and
//! [`NameTable`] under which names the checkpoint holds the weights. The executor knows nothing else about a family;
//! [`crate::architectures`] fills both in.

pub(crate) mod config_fields;

use crate::{ModelError, architectures};
use config_fields::ConfigFields;
use fewbit_checkpoint::{Checkpoint, CheckpointError, CheckpointErrorKind, StoredWeight};
use fewbit_kernels::Activation;
use serde_json::Value;
use std::path::Path;

/// Declarative description of an encoder: `layers` transformer layers with LayerNorm after each residual (post-norm),
/// bidirectional attention and a two-matrix feed-forward, on top of summed embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderSpec {
    /// config.json `model_type`.
    pub model_type: String,
    /// What stands before the encoder's own names in the checkpoint: `""`, `"bert."` …
    pub prefix: String,
    /// Rows of the word embedding table; token ids are below it.
    pub vocab_size: usize,
    /// Columns of the embedding tables; where it differs from `hidden_size` a projection follows the embeddings.
    pub embedding_size: usize,
    /// Columns of the hidden states.
    pub hidden_size: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub heads: usize,
    /// Columns inside the feed-forward.
    pub intermediate_size: usize,
    /// Between the two matrices of the feed-forward.
    pub activation: Activation,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_epsilon: f32,
    /// The position embedding table and how tokens are numbered.
    pub positions: Positions,
    /// Rows of the token type table; 0: the family has none.
    pub token_types: usize,
    /// A learned bias on the attention scores.
    pub relative_attention: Option<RelativeAttention>,
    /// Module paths without `prefix`.
    pub names: NameTable,
}

/// How tokens are numbered for the position embedding table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// Rows of the table.
    pub count: usize,
    /// `None`: token t of a sequence has position t. `Some(p)` (RoBERTa and its kin): tokens that are not p are counted
    /// from p + 1 on, and a token p has position p.
    pub padding_id: Option<u32>,
}

impl Positions {
    /// Longest sequence that has a position for every token.
    pub fn max_tokens(&self) -> usize {
        match self.padding_id {
            None => self.count,
            Some(padding_id) => self.count.saturating_sub(padding_id as usize + 1),
        }
    }
}

/// A bias on attention scores that depends on the distance between two tokens only, shared by all layers (T5's scheme,
/// used by MPNet). `rows` of its table may exceed `buckets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelativeAttention {
    /// Rows of the table, (rows, heads).
    pub rows: usize,
    /// Buckets that distances fall into, half of them for keys after the query.
    pub buckets: usize,
    /// From this distance on, all keys share the last bucket.
    pub max_distance: usize,
}

/// Module paths of a family, without the checkpoint's prefix. Paths inside a layer follow `{layers}.{index}.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameTable {
    /// The prefix that task models of this family give the encoder, with its dot.
    pub base_prefix: &'static str,
    /// Embedding table (vocab_size, embedding_size).
    pub word_embeddings: &'static str,
    /// Embedding table (positions.count, embedding_size).
    pub position_embeddings: &'static str,
    /// Embedding table (token_types, embedding_size), used where `token_types` is not 0.
    pub token_type_embeddings: &'static str,
    /// LayerNorm (embedding_size).
    pub embeddings_norm: &'static str,
    /// Linear (hidden_size, embedding_size), used where the sizes differ.
    pub embeddings_projection: &'static str,
    /// Embedding table (relative_attention.rows, heads), used with `relative_attention`.
    pub relative_attention_bias: &'static str,
    /// The list of layers.
    pub layers: &'static str,
    /// Linear (hidden_size, hidden_size), in a layer.
    pub query: &'static str,
    /// Linear (hidden_size, hidden_size), in a layer.
    pub key: &'static str,
    /// Linear (hidden_size, hidden_size), in a layer.
    pub value: &'static str,
    /// Linear (hidden_size, hidden_size), in a layer.
    pub attention_output: &'static str,
    /// LayerNorm (hidden_size) after attention, in a layer.
    pub attention_norm: &'static str,
    /// Linear (intermediate_size, hidden_size), in a layer.
    pub intermediate: &'static str,
    /// Linear (hidden_size, intermediate_size), in a layer.
    pub output: &'static str,
    /// LayerNorm (hidden_size) after the feed-forward, in a layer.
    pub output_norm: &'static str,
    /// Linear (hidden_size, hidden_size) that the family's model class in transformers has on top of the first token's
    /// hidden state; hidden states do not need it.
    pub pooler: Option<&'static str>,
}

/// The linear layers of one transformer layer, in execution order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerLinear {
    /// Attention queries.
    Query,
    /// Attention keys.
    Key,
    /// Attention values.
    Value,
    /// After attention.
    AttentionOutput,
    /// First matrix of the feed-forward.
    Intermediate,
    /// Second matrix of the feed-forward.
    Output,
}

impl LayerLinear {
    /// All of them, in execution order.
    pub const ALL: [LayerLinear; 6] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::AttentionOutput,
        Self::Intermediate,
        Self::Output,
    ];
}

/// A linear layer or an embedding table that quantization may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearModule {
    /// Module path as in the checkpoint, prefix included: `bert.encoder.layer.0.output.dense`.
    pub name: String,
    /// (out, in); of an embedding table (rows, columns).
    pub shape: [usize; 2],
}

impl LinearModule {
    /// The weight as `checkpoint` stores it; a float weight is not read.
    ///
    /// # Errors
    /// A part of it is missing or has another dtype or shape than config.json says.
    pub fn stored_weight<'c>(
        &self,
        checkpoint: &'c Checkpoint,
    ) -> Result<StoredWeight<'c>, CheckpointError> {
        checkpoint
            .stored_weight(&self.name, self.shape)
            .map_err(about_sizes)
    }
}

/// Says where an expected shape comes from.
pub(crate) fn about_sizes(error: CheckpointError) -> CheckpointError {
    if error.kind() == CheckpointErrorKind::WrongShape {
        error.hint("the expected shape follows from the sizes in config.json; the two files may belong to different models")
    } else {
        error
    }
}

impl EncoderSpec {
    /// Reads config.json and finds the tensor prefix in the checkpoint's names.
    ///
    /// # Errors
    /// As [`EncoderSpec::from_config`], and if no tensor or more than one family of tensors looks like the word
    /// embedding table.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let file = checkpoint.config_file();
        let mut spec = Self::from_config(checkpoint.config(), &file)?;
        spec.prefix = find_prefix(checkpoint, &spec.names)?;
        if !["", spec.names.base_prefix].contains(&spec.prefix.as_str()) {
            tracing::warn!(
                "{}: names of tensors begin with `{}`, where transformers expects `{}` or nothing: they are read, but transformers would \
                 run this model, and what is written of it, with random weights; save it without what wraps the model (for DataParallel: \
                 model.module.save_pretrained(OUT))",
                checkpoint.directory().display(),
                spec.prefix,
                spec.names.base_prefix,
            );
        }
        Ok(spec)
    }

    /// Reads a parsed config.json; `file` is named in errors. The prefix stays empty.
    ///
    /// Fields that are absent take the default of transformers. Fields that do not change the hidden states (dropout,
    /// initializer_range, use_cache, id2label …) are ignored.
    ///
    /// # Errors
    /// [`ModelError::Config`]: `model_type` is missing or not among [`architectures::MODEL_TYPES`]; a value is
    /// impossible; or a field asks for mathematics that the executor does not have.
    pub fn from_config(config: &Value, file: &Path) -> Result<Self, ModelError> {
        architectures::read(&ConfigFields::new(file, config))
    }

    /// Columns of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.heads
    }

    /// Whether a linear projection follows the embeddings (ELECTRA with `embedding_size` other than `hidden_size`).
    pub fn has_embeddings_projection(&self) -> bool {
        self.embedding_size != self.hidden_size
    }

    /// Every linear layer of the encoder proper (attention q, k, v, output; feed-forward; the embedding projection), in
    /// execution order. Poolers and heads are not part of it.
    pub fn linear_modules(&self) -> Vec<LinearModule> {
        let mut modules = Vec::with_capacity(1 + self.layers * LayerLinear::ALL.len());
        modules.extend(self.embeddings_projection());
        for layer in 0..self.layers {
            modules.extend(LayerLinear::ALL.map(|role| self.layer_linear(layer, role)));
        }
        modules
    }

    /// One linear layer of a transformer layer.
    pub fn layer_linear(&self, layer: usize, role: LayerLinear) -> LinearModule {
        let (hidden, intermediate) = (self.hidden_size, self.intermediate_size);
        let (path, shape) = match role {
            LayerLinear::Query => (self.names.query, [hidden, hidden]),
            LayerLinear::Key => (self.names.key, [hidden, hidden]),
            LayerLinear::Value => (self.names.value, [hidden, hidden]),
            LayerLinear::AttentionOutput => (self.names.attention_output, [hidden, hidden]),
            LayerLinear::Intermediate => (self.names.intermediate, [intermediate, hidden]),
            LayerLinear::Output => (self.names.output, [hidden, intermediate]),
        };
        LinearModule {
            name: self.layer_module(layer, path),
            shape,
        }
    }

    /// The projection after the embeddings, where there is one.
    pub fn embeddings_projection(&self) -> Option<LinearModule> {
        self.has_embeddings_projection().then(|| LinearModule {
            name: self.module(self.names.embeddings_projection),
            shape: [self.hidden_size, self.embedding_size],
        })
    }

    /// The word embedding table: module name and (vocab, embedding size).
    pub fn word_embeddings(&self) -> LinearModule {
        LinearModule {
            name: self.module(self.names.word_embeddings),
            shape: [self.vocab_size, self.embedding_size],
        }
    }

    /// `path` with the checkpoint's prefix.
    pub(crate) fn module(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// `path` inside layer `layer`, with the checkpoint's prefix.
    pub(crate) fn layer_module(&self, layer: usize, path: &str) -> String {
        format!("{}{}.{layer}.{path}", self.prefix, self.names.layers)
    }

    /// Part of the model that a tensor belongs to, for reports: "embeddings", "attention", "feed-forward",
    /// "normalization", "pooler", "head" or "other".
    pub fn part_of(&self, tensor: &str) -> &'static str {
        let names = &self.names;
        let inside = tensor.strip_prefix(self.prefix.as_str());
        if let Some(path) = inside {
            if let Some((layer, path)) = self.split_layer(path) {
                if layer >= self.layers {
                    return "other";
                }
                let is = |modules: &[&str]| modules.iter().any(|module| belongs_to(path, module));
                return if is(&[names.query, names.key, names.value, names.attention_output]) {
                    "attention"
                } else if is(&[names.intermediate, names.output]) {
                    "feed-forward"
                } else if is(&[names.attention_norm, names.output_norm]) {
                    "normalization"
                } else {
                    "other"
                };
            }
            if belongs_to(path, names.embeddings_norm) {
                return "normalization";
            }
            if self.relative_attention.is_some() && belongs_to(path, names.relative_attention_bias)
            {
                return "attention";
            }
            if self.has_embeddings_projection() && belongs_to(path, names.embeddings_projection) {
                return "embeddings";
            }
            let tables = [
                names.word_embeddings,
                names.position_embeddings,
                names.token_type_embeddings,
            ];
            if tables.iter().any(|table| belongs_to(path, table)) {
                return "embeddings";
            }
            if belongs_to(path, "pooler") {
                return "pooler";
            }
        }
        let first = inside
            .unwrap_or(tensor)
            .split('.')
            .next()
            .unwrap_or_default();
        if HEADS.contains(&first) {
            "head"
        } else {
            "other"
        }
    }

    /// Why the encoder has no use for `tensor`.
    pub(crate) fn reason_unused(&self, tensor: &str) -> String {
        let part = self.part_of(tensor);
        match part {
            "pooler" => return "pooler: not needed for hidden states".to_owned(),
            "head" => return "task head: not needed for hidden states".to_owned(),
            _ => {}
        }
        if tensor.ends_with(".position_ids") || tensor == "position_ids" {
            return "position_ids buffer: computed, not stored".to_owned();
        }
        if tensor.ends_with(".token_type_ids") || tensor == "token_type_ids" {
            return "token_type_ids buffer: computed, not stored".to_owned();
        }
        let layer = tensor
            .strip_prefix(self.prefix.as_str())
            .and_then(|path| self.split_layer(path));
        match layer {
            Some((layer, _)) if layer >= self.layers => {
                format!("layer {layer}: config.json asks for {} layers", self.layers)
            }
            _ if ["attention", "feed-forward", "embeddings"].contains(&part) => {
                "not part of the form in which its module's weight is stored".to_owned()
            }
            _ => format!("not part of a {} encoder", self.model_type),
        }
    }

    /// Splits `encoder.layer.7.output.dense.weight` into (7, "output.dense.weight").
    fn split_layer<'p>(&self, path: &'p str) -> Option<(usize, &'p str)> {
        let (index, path) = path
            .strip_prefix(self.names.layers)?
            .strip_prefix('.')?
            .split_once('.')?;
        Some((index.parse().ok()?, path))
    }
}

/// First path component of task heads, as the model classes of transformers name them.
const HEADS: &[&str] = &[
    "classifier",
    "cls",
    "discriminator_predictions",
    "generator_lm_head",
    "generator_predictions",
    "lm_head",
    "pre_classifier",
    "qa_outputs",
    "score",
    "sequence_summary",
    "vocab_layer_norm",
    "vocab_projector",
    "vocab_transform",
];

fn belongs_to(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// What stands before the word embedding table's module path in the checkpoint's names.
///
/// With several candidates (a student and its teacher in one file) the family's own prefix wins, then none.
fn find_prefix(checkpoint: &Checkpoint, names: &NameTable) -> Result<String, ModelError> {
    let needle = format!("{}.", names.word_embeddings);
    let mut prefixes: Vec<&str> = Vec::new();
    for tensor in checkpoint.tensors() {
        let Some(at) = tensor.name.find(&needle) else {
            continue;
        };
        let prefix = &tensor.name[..at];
        if (prefix.is_empty() || prefix.ends_with('.')) && !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    match prefixes.as_slice() {
        [] => {
            let prefixed = checkpoint
                .tensors()
                .any(|tensor| tensor.name.starts_with(names.base_prefix));
            let prefix = if prefixed { names.base_prefix } else { "" };
            let tensor = format!("{prefix}{}.weight", names.word_embeddings);
            Err(checkpoint.require(&tensor).err().map_or_else(
                || {
                    ModelError::Input(format!(
                        "tensor `{tensor}` appeared while the checkpoint was open"
                    ))
                },
                ModelError::from,
            ))
        }
        [only] => Ok((*only).to_owned()),
        several => [names.base_prefix, ""]
            .into_iter()
            .find(|preferred| several.contains(preferred))
            .map(str::to_owned)
            .ok_or_else(|| ModelError::Config {
                file: checkpoint.config_file(),
                field: "model_type".to_owned(),
                message: format!(
                    "expected one encoder in the checkpoint, found {}: prefixes {}",
                    several.len(),
                    several
                        .iter()
                        .map(|prefix| format!("`{prefix}`"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
                hint: format!(
                    "keep only the tensors of one encoder, or name it `{}`",
                    names.base_prefix
                ),
            }),
    }
}
