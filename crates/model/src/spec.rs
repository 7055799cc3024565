//! One description of an encoder, filled from config.json.
//!
//! [`EncoderSpec`] says what is computed (sizes, activation, placement of norms, positions, masks, biases) and [`NameTable`] under which names
//! the checkpoint holds the weights. The executor knows nothing else about a family; `encoder_config` fills both in from a checkpoint, and
//! [`crate::catalogue`] makes the list of modules of them.

use crate::ModelError;
use crate::role::Role;
use fewbit_kernels::{Activation, NormKind};
use std::f64::consts::TAU;

/// Declarative description of an encoder: `layers` transformer layers of attention and a feed-forward, each added to the residual stream, on
/// top of summed embeddings. A decoder that is run once over a whole text is one with causal attention.
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
    /// Attention heads.
    pub heads: usize,
    /// Heads that keys and values have; divides `heads`.
    pub key_value_heads: usize,
    /// Columns of one attention head.
    pub head_size: usize,
    /// Columns inside the feed-forward.
    pub intermediate_size: usize,
    /// The function between the matrices of the feed-forward.
    pub activation: Activation,
    /// Where a layer has its normalizations.
    pub norms: NormPlacement,
    /// What normalizations compute.
    pub norm: NormSpec,
    /// Which modules have biases.
    pub biases: Biases,
    /// The positions of tokens.
    pub positions: Positions,
    /// Rows of the token type table; 0: the family has none.
    pub token_types: usize,
    /// Multiplies word embeddings.
    pub embedding_scale: f32,
    /// Multiplies attention scores; 1 / sqrt(head_size) as a rule.
    pub score_scale: f32,
    /// Whether tokens attend to themselves and those before only.
    pub causal: bool,
    /// Layers that share their weights.
    pub layer_groups: Option<LayerGroups>,
    /// Where a projection of the embeddings stands.
    pub embeddings_projection: EmbeddingsProjection,
    /// A learned bias on the attention scores.
    pub relative_attention: Option<RelativeAttention>,
    /// Scores between tokens and relative positions.
    pub disentangled: Option<DisentangledAttention>,
    /// A convolution beside the first layer.
    pub convolution: Option<Convolution>,
    /// Rotation of queries and keys by their positions.
    pub rotary: Option<Rotary>,
    /// Layers whose tokens attend to near ones only.
    pub local_attention: Option<LocalAttention>,
    /// Module paths without `prefix`.
    pub names: NameTable,
}

/// Where a layer has its normalizations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// After each addition to the residual stream (BERT).
    After,
    /// Of what attention and feed-forward read, and one after the last layer; attention of the first layer, which reads normalized
    /// embeddings, has none (ModernBERT).
    BeforeButFirst,
    /// Of what attention and feed-forward read, and one after the last layer (Llama).
    Before,
    /// As [`NormPlacement::Before`], and of what attention and feed-forward give, before it is added (Gemma 3).
    Around,
}

/// What normalizations compute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// LayerNorm or RMSNorm.
    pub kind: NormKind,
    /// Added to the variance or the mean of squares.
    pub epsilon: f32,
    /// Added to the stored weights: 1 where the checkpoint has their differences to 1 (Gemma).
    pub weight_offset: f32,
}

impl NormSpec {
    /// LayerNorm.
    pub const fn layer(epsilon: f32) -> Self {
        Self {
            kind: NormKind::Layer,
            epsilon,
            weight_offset: 0.0,
        }
    }

    /// RMSNorm.
    pub const fn root_mean_square(epsilon: f32) -> Self {
        Self {
            kind: NormKind::RootMeanSquare,
            ..Self::layer(epsilon)
        }
    }
}

/// Which modules have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// Queries, keys and values.
    pub query_key_value: bool,
    /// The projection of what attention gives.
    pub attention_output: bool,
    /// The first linear layer of the feed-forward, and its gate.
    pub intermediate: bool,
    /// The second linear layer of the feed-forward.
    pub output: bool,
    /// Normalizations.
    pub norm: bool,
}

impl Biases {
    /// Everything has one.
    pub const ALL: Self = Self {
        query_key_value: true,
        attention_output: true,
        intermediate: true,
        output: true,
        norm: true,
    };

    /// Nothing has one.
    pub const NONE: Self = Self {
        query_key_value: false,
        attention_output: false,
        intermediate: false,
        output: false,
        norm: false,
    };
}

/// The positions of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// Rows of the position embedding table, or positions that rotations are made for.
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

/// Layers that run several times, with the same weights (ALBERT). `EncoderSpec::layers` counts layers with weights of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerGroups {
    /// Groups of layers; `layers / groups` layers are in each.
    pub groups: usize,
    /// How often a group runs, all groups together: in order, each as often as the others or once more.
    pub passes: usize,
    /// The list of the layers of a group; paths inside a layer follow `{NameTable::layers}.{group}.{path}.{index}.`.
    pub path: &'static str,
}

/// Where a projection of the embeddings stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddingsProjection {
    /// After their normalization, where `embedding_size` differs from `hidden_size` (ELECTRA).
    AfterNormIfNarrower,
    /// After their normalization, whatever the sizes (ALBERT).
    AfterNorm,
    /// Before their normalization and without a bias, where the sizes differ (DeBERTa).
    BeforeNormIfNarrower,
}

/// Scores between the contents of tokens and their relative positions, beside those between contents (disentangled attention: He et al.
/// 2021, DeBERTa). Keys and queries of positions are projections of the rows of a table that all layers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DisentangledAttention {
    /// Half of the rows of the table: those of distances to one side.
    pub span: usize,
    /// `None`: each distance has a row of its own, further ones the last. `Some(d)`: distances beyond half of `span` share rows that grow
    /// geometrically up to d (DeBERTa-v3).
    pub max_distance: Option<usize>,
    /// Whether the rows are normalized.
    pub normalized: bool,
    /// Whether queries of tokens meet keys of positions.
    pub content_to_position: bool,
    /// Whether keys of tokens meet queries of positions.
    pub position_to_content: bool,
    /// Whether the projections are those of the tokens.
    pub shared_projections: bool,
}

/// A convolution over the tokens of the embeddings, which is added to the output of the first layer (DeBERTa-v2 xlarge).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Tokens that it looks at, an odd number.
    pub size: usize,
    /// Parts of the columns that do not see one another.
    pub groups: usize,
    /// Applied to what it gives.
    pub activation: Activation,
}

/// Rotary position embeddings (Su et al. 2021, RoFormer), with the halves of a head paired: features i and i + head_size / 2 turn by
/// `position * frequencies[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    /// Of layers whose tokens attend to all.
    pub global: RotaryFrequencies,
    /// Of layers of [`LocalAttention`].
    pub local: RotaryFrequencies,
}

impl Rotary {
    /// The same rotations in every layer.
    pub fn of_all_layers(frequencies: RotaryFrequencies) -> Self {
        Self {
            global: frequencies.clone(),
            local: frequencies,
        }
    }
}

/// By what pairs of features turn from one position to the next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RotaryFrequencies {
    /// (head_size / 2), in radians.
    pub frequencies: Vec<f32>,
    /// Multiplies cosines and sines; 1 but for some scaled rotations.
    pub factor: f32,
    /// How the frequencies follow from a few numbers.
    pub rule: RotaryRule,
}

/// How frequencies of rotations follow from a few numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum RotaryRule {
    /// `base^(-2 i / head_size) / divisor`
    Plain {
        /// `rope_theta`
        base: f32,
        /// 1, or the factor of linear scaling.
        divisor: f32,
    },
    /// Plain ones, long waves of which are stretched (`llama3`).
    Llama3(Llama3Rotation),
    /// YaRN with the paper's numbers: a ramp from 32 turns over the original positions to one, whole features for its ends, and cosines and sines that are multiplied by
    /// `1 + 0.1 ln factor`.
    Yarn {
        /// `rope_theta`
        base: f32,
        /// What features that turn seldom are stretched by.
        factor: f32,
        /// Positions of the model before it was stretched.
        original: f32,
    },
    /// Otherwise.
    #[default]
    Scaled,
}

/// Plain frequencies, each divided by a number of its own, as Llama 3.1 has it: those that turn less than `low` times over the original positions by `factor`, those that turn
/// more than `high` times by 1, those between by what lies between.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Llama3Rotation {
    /// `rope_theta`
    pub base: f32,
    /// What long waves are stretched by.
    pub factor: f32,
    /// `low_freq_factor`
    pub low: f32,
    /// `high_freq_factor`
    pub high: f32,
    /// Positions of the model before it was stretched.
    pub original: f32,
}

impl Llama3Rotation {
    /// What each of so many plain frequencies is divided by.
    ///
    /// ```
    /// use fewbit_model::spec::Llama3Rotation;
    ///
    /// let rotation = Llama3Rotation { base: 1e4, factor: 8.0, low: 1.0, high: 4.0, original: 100.0 };
    /// // 15.9 and 0.16 turns over 100 positions.
    /// assert_eq!(rotation.divisors(2).collect::<Vec<_>>(), [1.0, 8.0]);
    /// // 2.5 turns: half of the way from 1 to 4.
    /// let middle = Llama3Rotation { original: 250.0 * std::f32::consts::TAU, ..rotation };
    /// let divisor = middle.divisors(2).last().unwrap();
    /// assert!((divisor - 1.0 / (0.5 / 8.0 + 0.5)).abs() < 1e-5);
    /// ```
    pub fn divisors(self, features: usize) -> impl Iterator<Item = f64> {
        (0..features).map(move |feature| {
            let exponent = feature as f64 / features as f64;
            self.divisor(f64::from(self.base).powf(-exponent))
        })
    }

    /// What a plain frequency is divided by.
    pub(crate) fn divisor(self, frequency: f64) -> f64 {
        let [factor, low, high, original] =
            [self.factor, self.low, self.high, self.original].map(f64::from);
        let turns = original * frequency / TAU;
        if turns > high {
            1.0
        } else if turns < low {
            factor
        } else {
            let share = (turns - low) / (high - low);
            1.0 / ((1.0 - share) / factor + share)
        }
    }
}

/// Layers whose tokens attend to near ones only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAttention {
    /// A token attends to those at most so far away, on each side (with causal attention: before it).
    pub distance: usize,
    /// Whether each layer is one of these.
    pub layers: Vec<bool>,
}

/// Module paths of a family, without the checkpoint's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameTable {
    /// The prefix that task models of this family give the encoder, with its dot.
    pub base_prefix: &'static str,
    /// The list of layers; paths inside a layer follow `{layers}.{index}.`.
    pub layers: &'static str,
    /// The path of each role that the family has, in execution order. [`Role::WordEmbeddings`] is one of them.
    pub modules: &'static [(Role, &'static str)],
    /// The names that the modules have in transformers, whose loader renames what it reads, if not these. Files may have them, too; what is
    /// converted gets them ([`crate::open_checkpoint`]).
    pub otherwise: Option<&'static NameTable>,
}

impl NameTable {
    /// Whether the family has modules of this role.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.modules.iter().any(|(known, _)| *known == role)
    }

    /// Path of the word embedding table.
    pub(crate) fn word_embeddings(&self) -> &'static str {
        let mut modules = self.modules.iter();
        let table = modules.find(|(role, _)| *role == Role::WordEmbeddings);
        table.map_or("", |(_, path)| path)
    }
}

impl EncoderSpec {
    /// Columns of the queries of a token.
    pub fn query_columns(&self) -> usize {
        self.heads * self.head_size
    }

    /// Columns of the keys, and of the values, of a token.
    pub fn key_value_columns(&self) -> usize {
        self.key_value_heads * self.head_size
    }

    /// Whether layers normalize what attention and feed-forward read (pre-norm), instead of the residual stream after each addition
    /// (post-norm).
    pub fn is_pre_norm(&self) -> bool {
        self.norms != NormPlacement::After
    }

    /// Whether there is a linear projection of the embeddings.
    pub fn has_embeddings_projection(&self) -> bool {
        self.embedding_size != self.hidden_size
            || self.embeddings_projection == EmbeddingsProjection::AfterNorm
    }

    /// Columns of the embeddings when they are normalized.
    pub(crate) fn normalized_embedding_size(&self) -> usize {
        match self.embeddings_projection {
            EmbeddingsProjection::BeforeNormIfNarrower => self.hidden_size,
            _ => self.embedding_size,
        }
    }

    /// The layers in the order in which they run, by their numbers among those with weights of their own.
    pub fn passes(&self) -> Vec<usize> {
        let Some(LayerGroups { groups, passes, .. }) = self.layer_groups else {
            return (0..self.layers).collect();
        };
        let size = self.layers / groups;
        // As transformers divides.
        let group = |pass: usize| (pass as f64 / (passes as f64 / groups as f64)) as usize;
        (0..passes)
            .flat_map(|pass| group(pass) * size..(group(pass) + 1) * size)
            .collect()
    }

    /// Whether tokens have positions that are looked up in a table.
    pub fn looks_up_positions(&self) -> bool {
        self.names.has(Role::PositionEmbeddings)
    }

    /// Whether something depends on how many places lie between two tokens.
    pub fn knows_distances(&self) -> bool {
        self.rotary.is_some()
            || self.relative_attention.is_some()
            || self.disentangled.is_some()
            || self.local_attention.is_some()
            || self.convolution.is_some()
    }

    /// Tokens of the longest sequence that the model can run.
    pub fn longest_sequence(&self) -> usize {
        let has_positions = self.looks_up_positions();
        match self.disentangled {
            // Far distances share a row.
            Some(_) if !has_positions => usize::MAX,
            _ => self.positions.max_tokens(),
        }
    }

    /// Errors if inputs of `max_tokens` tokens, where so many are asked for, are longer than [`EncoderSpec::longest_sequence`].
    pub(crate) fn check_max_tokens(&self, max_tokens: Option<usize>) -> Result<(), ModelError> {
        let positions = self.longest_sequence();
        match max_tokens {
            Some(max_tokens) if max_tokens > positions => Err(ModelError::Input(format!(
                "max_tokens: expected at most {positions}, found {max_tokens}\n  hint: the model has no positions beyond that"
            ))),
            _ => Ok(()),
        }
    }
}
