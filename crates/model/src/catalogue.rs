//! The modules of a model: one list that loading, sites, selection, calibration and size tables derive from.
//!
//! The catalogue of an encoder follows from its [`EncoderSpec`]: an architecture names the path of each [`Role`]. That of any other
//! checkpoint follows from the names and shapes of its tensors.

mod tensor_names;

use crate::heads::is_head;
pub use crate::role::{ModuleKind, Role};
use crate::spec::{Convolution, EmbeddingsProjection, EncoderSpec, LayerGroups, NormPlacement};
use crate::{ModelError, architectures};
use fewbit_checkpoint::{Checkpoint, CheckpointError, CheckpointErrorKind, StoredWeight};
use std::collections::HashMap;
use std::path::Path;
pub use tensor_names::{experts_of, is_router};

/// A module with weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its role in the model.
    pub role: Role,
    /// The layer that it is in.
    pub layer: Option<usize>,
    /// Path in the checkpoint, prefix included: `bert.encoder.layer.0.output.dense`.
    pub name: String,
    /// (out, in) of a linear layer, (rows, columns) of a table, (1, columns) of a normalization.
    pub shape: [usize; 2],
    /// Whether it has a bias.
    pub bias: bool,
    /// Paths at sites ([`crate::tap`]) of the layers that its rows of outputs are: one, but for fused weights, which are parts of equal size.
    pub sites: Vec<String>,
    /// The site of the rows that a linear layer reads; layers that read the same rows have the same.
    pub input_site: Option<String>,
}

impl Module {
    /// How it uses its weight.
    pub fn kind(&self) -> ModuleKind {
        self.role.kind()
    }

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

    /// The rows of a table as `checkpoint` stores them. Quantization configurations speak of linear layers unless they name a table, so one
    /// that is there in floats is taken as it is.
    ///
    /// # Errors
    /// As [`Module::stored_weight`].
    pub fn stored_table<'c>(
        &self,
        checkpoint: &'c Checkpoint,
    ) -> Result<StoredWeight<'c>, CheckpointError> {
        let weight = checkpoint.get(&format!("{}.weight", self.name));
        match weight.filter(|view| view.info.is_readable_float()) {
            Some(view) => {
                view.expect_shape(&self.shape).map_err(about_sizes)?;
                Ok(StoredWeight::Float(view))
            }
            None => self.stored_weight(checkpoint),
        }
    }

    /// The tensors of a normalization's weight and bias: `weight` and `bias`, or `gamma` and `beta` as conversions from TensorFlow once named
    /// them.
    pub fn norm_tensors(&self, checkpoint: &Checkpoint) -> [String; 2] {
        [("weight", "gamma"), ("bias", "beta")].map(|(name, old)| {
            let [name, old] = [name, old].map(|end| format!("{}.{end}", self.name));
            let old_only = checkpoint.contains(&old) && !checkpoint.contains(&name);
            if old_only { old } else { name }
        })
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

/// Every module of a model, in execution order as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    /// What stands before a task model's names of the encoder: `""`, `"bert."` …
    pub prefix: String,
    /// What the model is, for messages: config.json's `model_type`.
    pub model_type: String,
    modules: Vec<Module>,
    /// Path of the list of layers, and how many config.json asks for.
    layers: Option<(String, usize)>,
    /// Path of the list of layers inside of one of those, and how many it has, where layers are in groups.
    inner_layers: Option<(&'static str, usize)>,
}

impl Catalogue {
    /// The catalogue of an encoder.
    pub fn of_encoder(spec: &EncoderSpec) -> Self {
        let (of_layers, others): (Vec<_>, Vec<_>) =
            (spec.names.modules.iter()).partition(|(role, _)| role.is_of_a_layer());
        let is_last = |role: Role| matches!(role, Role::FinalNorm | Role::Pooler);
        let once = |last: bool| {
            let named = others
                .iter()
                .filter(move |(role, _)| is_last(*role) == last);
            named.filter_map(|(role, path)| spec.module_of(*role, None, path))
        };
        let modules = once(false)
            .chain((0..spec.layers).flat_map(|layer| {
                let named = of_layers.iter();
                named.filter_map(move |(role, path)| spec.module_of(*role, Some(layer), path))
            }))
            .chain(once(true));
        Self {
            modules: modules.collect(),
            prefix: spec.prefix.clone(),
            model_type: spec.model_type.clone(),
            layers: Some((spec.names.layers.to_owned(), spec.layers)),
            inner_layers: spec
                .layer_groups
                .map(|groups| (groups.path, spec.layers / groups.groups)),
        }
    }

    /// The catalogue of any checkpoint: of an encoder that fewbit runs, or from the names of its tensors where config.json's `model_type` is another
    /// or the model is defined by code of its own.
    ///
    /// # Errors
    /// Those of [`EncoderSpec::from_checkpoint`], for encoders that fewbit should run; a packed weight whose shape is not said.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        if architectures::is_known(checkpoint.config()) {
            return Ok(EncoderSpec::from_checkpoint(checkpoint)?.catalogue());
        }
        Ok(tensor_names::catalogue(checkpoint)?)
    }

    /// Whether fewbit has the code of the model, so that it can run it.
    pub fn is_of_an_encoder(&self) -> bool {
        self.layers.is_some()
    }

    /// Errors if two modules have the same path, and so claim the same tensors; `file` is named in the error.
    pub(crate) fn refuse_shared_names(&self, file: &Path) -> Result<(), ModelError> {
        let mut seen = HashMap::new();
        for module in &self.modules {
            if let Some(other) = seen.insert(&module.name, module.role) {
                return Err(ModelError::Config {
                    file: file.to_owned(),
                    field: "model_type".to_owned(),
                    message: format!(
                        "expected tensors of one module below `{}`, found two: {other:?} and {:?}",
                        module.name, module.role
                    ),
                    hint: "the name table of this family is wrong".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Every module.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The module of a role, of a layer where the role is one of layers.
    pub fn get(&self, role: Role, layer: Option<usize>) -> Option<&Module> {
        let mut modules = self.modules.iter();
        modules.find(|module| module.role == role && module.layer == layer)
    }

    /// The module of this path.
    pub fn named(&self, name: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.name == name)
    }

    /// Every linear layer of the model proper (attention, feed-forward, the embedding projection), in execution order. Poolers and heads
    /// are not part of it.
    pub fn linear_modules(&self) -> impl Iterator<Item = &Module> {
        let linear = |module: &&Module| module.kind() == ModuleKind::Linear;
        self.modules
            .iter()
            .filter(linear)
            .filter(|module| module.role != Role::Pooler)
    }

    /// The word embedding table, where it is known which that is.
    pub fn word_embeddings(&self) -> Option<&Module> {
        self.get(Role::WordEmbeddings, None)
    }

    /// A module's path without the prefix.
    pub fn without_prefix<'a>(&self, module: &'a str) -> &'a str {
        module.strip_prefix(&self.prefix).unwrap_or(module)
    }

    /// The layers that config.json asks for; none where it is not known which those are.
    pub fn layers(&self) -> usize {
        self.layers.as_ref().map_or(0, |(_, layers)| *layers)
    }

    /// The layers for which `checkpoint` has tensors, counted to the last one; none where it is not known which those are.
    pub fn stored_layers(&self, checkpoint: &Checkpoint) -> usize {
        let layers = checkpoint.tensors().filter_map(|info| {
            let path = info.name.strip_prefix(self.prefix.as_str())?;
            Some(self.split_layer(path)?.0.saturating_add(1))
        });
        layers.max().unwrap_or(0)
    }

    /// Part of the model that a tensor belongs to, for reports: "embeddings", "attention", "feed-forward", "normalization", "pooler",
    /// "head" or "other".
    pub fn part_of(&self, tensor: &str) -> &'static str {
        let owner = |module: &&Module| is_inside(tensor, &module.name);
        match self.modules.iter().find(owner) {
            Some(Module {
                role: Role::OtherLinear | Role::OtherTransposedLinear,
                ..
            }) => tensor_names::part_of(tensor),
            Some(module) => module.role.part(),
            None if self.layers.is_none() => tensor_names::part_of(tensor),
            None => {
                let inside = tensor.strip_prefix(&self.prefix);
                match inside.unwrap_or(tensor).split('.').next() {
                    Some("pooler") if inside.is_some() => "pooler",
                    // Outside of the encoder (DeBERTa).
                    Some("pooler") => "head",
                    Some(first) if is_head(first, true) => "head",
                    _ => "other",
                }
            }
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
        match (layer, &self.layers) {
            (Some((layer, _)), Some((_, layers))) if layer >= *layers => {
                format!("layer {layer}: config.json asks for {layers} layers")
            }
            _ if ["attention", "feed-forward", "embeddings"].contains(&part) => {
                "not part of the form in which its module's weight is stored".to_owned()
            }
            _ => format!("not part of a {} encoder", self.model_type),
        }
    }

    /// Splits `encoder.layer.7.output.dense.weight` into (7, "output.dense.weight").
    fn split_layer<'p>(&self, path: &'p str) -> Option<(usize, &'p str)> {
        let (layers, _) = self.layers.as_ref()?;
        let (index, path) = path
            .strip_prefix(layers.as_str())?
            .strip_prefix('.')?
            .split_once('.')?;
        let index: usize = index.parse().ok()?;
        let Some((inner, size)) = self.inner_layers else {
            return Some((index, path));
        };
        let (inner_index, path) = path
            .strip_prefix(inner)?
            .strip_prefix('.')?
            .split_once('.')?;
        let first = index.saturating_mul(size);
        Some((first.saturating_add(inner_index.parse().ok()?), path))
    }
}

impl EncoderSpec {
    /// Every module of the encoder.
    pub fn catalogue(&self) -> Catalogue {
        Catalogue::of_encoder(self)
    }

    /// Path of a layer, without the prefix.
    fn layer_path(&self, layer: usize) -> String {
        let layers = self.names.layers;
        match self.layer_groups {
            None => format!("{layers}.{layer}"),
            Some(LayerGroups { groups, path, .. }) => {
                let size = self.layers / groups;
                format!("{layers}.{}.{path}.{}", layer / size, layer % size)
            }
        }
    }

    /// The module that has `role`, where the model has one.
    fn module_of(&self, role: Role, layer: Option<usize>, path: &str) -> Option<Module> {
        let (hidden, intermediate) = (self.hidden_size, self.intermediate_size);
        let pre_norm = self.is_pre_norm();
        let (queries, keys) = (self.query_columns(), self.key_value_columns());
        let (shape, bias) = match role {
            Role::WordEmbeddings => ([self.vocab_size, self.embedding_size], false),
            Role::PositionEmbeddings => ([self.positions.count, self.embedding_size], false),
            Role::TokenTypeEmbeddings if self.token_types == 0 => return None,
            Role::TokenTypeEmbeddings => ([self.token_types, self.embedding_size], false),
            Role::EmbeddingsNorm => ([1, self.normalized_embedding_size()], self.biases.norm),
            Role::EmbeddingsProjection if !self.has_embeddings_projection() => return None,
            Role::EmbeddingsProjection => {
                let before_norm = EmbeddingsProjection::BeforeNormIfNarrower;
                let bias = self.embeddings_projection != before_norm;
                ([hidden, self.embedding_size], bias)
            }
            Role::RelativeAttentionBias => ([self.relative_attention?.rows, self.heads], false),
            Role::RelativePositions => ([2 * self.disentangled?.span, hidden], false),
            Role::RelativePositionsNorm if !self.disentangled?.normalized => return None,
            Role::RelativePositionsNorm => ([1, hidden], self.biases.norm),
            Role::PositionKey | Role::PositionQuery if self.disentangled?.shared_projections => {
                return None;
            }
            Role::PositionKey if !self.disentangled?.content_to_position => return None,
            Role::PositionQuery if !self.disentangled?.position_to_content => return None,
            // In DeBERTa, without a bias where keys of tokens have none.
            Role::PositionKey => ([queries, hidden], !self.names.has(Role::QueryBias)),
            Role::PositionQuery => ([queries, hidden], true),
            Role::QueryKeyValueByHead => ([3 * queries, hidden], false),
            Role::QueryBias | Role::ValueBias => ([1, queries], true),
            Role::Convolution => {
                let Convolution { size, groups, .. } = self.convolution?;
                ([hidden, hidden / groups * size], true)
            }
            Role::ConvolutionNorm if self.convolution.is_none() => return None,
            Role::ConvolutionNorm => ([1, hidden], self.biases.norm),
            Role::AttentionNorm
                if layer == Some(0) && self.norms == NormPlacement::BeforeButFirst =>
            {
                return None;
            }
            Role::AttentionNorm | Role::FeedForwardNorm | Role::FinalNorm => {
                ([1, hidden], self.biases.norm)
            }
            Role::AttentionOutputNorm | Role::OutputNorm => ([1, hidden], self.biases.norm),
            Role::QueryNorm | Role::KeyNorm => ([1, self.head_size], self.biases.norm),
            Role::Query => ([queries, hidden], self.biases.query_key_value),
            Role::Key | Role::Value => ([keys, hidden], self.biases.query_key_value),
            Role::QueryKeyValue => ([3 * queries, hidden], self.biases.query_key_value),
            Role::AttentionOutput => ([hidden, queries], self.biases.attention_output),
            Role::Intermediate | Role::Gate => ([intermediate, hidden], self.biases.intermediate),
            Role::GatedIntermediate | Role::GateAndIntermediate => {
                ([2 * intermediate, hidden], self.biases.intermediate)
            }
            Role::Output => ([hidden, intermediate], self.biases.output),
            Role::Pooler => ([hidden, hidden], true),
            Role::HeadLinear
            | Role::HeadNorm
            | Role::OtherLinear
            | Role::OtherTransposedLinear
            | Role::OtherTable => {
                return None;
            }
        };
        let (name, site) = match layer {
            Some(layer) => (
                format!("{}{}.{path}", self.prefix, self.layer_path(layer)),
                format!("encoder.layer.{layer}."),
            ),
            None => (format!("{}{path}", self.prefix), String::new()),
        };
        let input_site = (role.kind() == ModuleKind::Linear)
            .then(|| role.reads())
            .flatten()
            .map(|path| format!("{site}{path}.input"));
        let sites = role.site_paths(pre_norm).iter();
        Some(Module {
            role,
            layer,
            name,
            shape,
            bias,
            sites: sites.map(|path| format!("{site}{path}")).collect(),
            input_site,
        })
    }
}

/// Whether `tensor` is one of the module `module`, or the module itself.
pub(crate) fn is_inside(tensor: &str, module: &str) -> bool {
    tensor
        .strip_prefix(module)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::NameTable;
    use serde_json::json;

    #[test]
    fn two_modules_that_claim_one_tensor_are_refused() {
        let file = Path::new("config.json");
        let config = json!({"model_type": "bert", "num_hidden_layers": 1});
        let mut spec = EncoderSpec::from_config(&config, file).unwrap();
        spec.catalogue().refuse_shared_names(file).unwrap();
        spec.names = NameTable {
            modules: &[
                (Role::WordEmbeddings, "words"),
                (Role::Query, "query"),
                (Role::Key, "query"),
            ],
            ..spec.names
        };
        let error = spec.catalogue().refuse_shared_names(file).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("one module below `encoder.layer.0.query`, found two: Query and Key"),
            "{text}"
        );
    }

    #[test]
    fn only_the_models_own_prefix_is_cut() {
        let config = json!({"model_type": "bert", "num_hidden_layers": 1});
        let mut spec = EncoderSpec::from_config(&config, Path::new("config.json")).unwrap();
        let mut without_prefix = |module: &str, prefix: &str| {
            prefix.clone_into(&mut spec.prefix);
            spec.catalogue().without_prefix(module).to_owned()
        };
        assert_eq!(
            without_prefix("bert.encoder.layer.0", "bert."),
            "encoder.layer.0"
        );
        assert_eq!(without_prefix("encoder.layer.0", ""), "encoder.layer.0");
        assert_eq!(without_prefix("classifier", "bert."), "classifier");
    }
}
