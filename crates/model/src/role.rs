//! The roles of modules in an encoder.

/// A role that a module with weights can have. Roles of layers come once a layer, the others once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Table (vocab_size, embedding_size).
    WordEmbeddings,
    /// Table (positions, embedding_size).
    PositionEmbeddings,
    /// Table (token types, embedding_size).
    TokenTypeEmbeddings,
    /// Normalization of the summed embeddings.
    EmbeddingsNorm,
    /// Linear (hidden_size, embedding_size), where the sizes differ.
    EmbeddingsProjection,
    /// Table (buckets of distances, heads) of a bias on attention scores.
    RelativeAttentionBias,
    /// In a layer: normalization of what attention adds to (post-norm) or of what it reads (pre-norm).
    AttentionNorm,
    /// In a layer: linear (hidden_size, hidden_size).
    Query,
    /// In a layer: linear (hidden_size, hidden_size).
    Key,
    /// In a layer: linear (hidden_size, hidden_size).
    Value,
    /// In a layer: queries, keys and values in one linear (3 * hidden_size, hidden_size).
    QueryKeyValue,
    /// In a layer: linear (hidden_size, hidden_size).
    AttentionOutput,
    /// In a layer: normalization of what the feed-forward adds to (post-norm) or of what it reads (pre-norm).
    FeedForwardNorm,
    /// In a layer: the first linear of the feed-forward (intermediate_size, hidden_size).
    Intermediate,
    /// In a layer: the first linear and the gate that its activations are multiplied by, in one (2 * intermediate_size, hidden_size).
    GatedIntermediate,
    /// In a layer: the second linear of the feed-forward (hidden_size, intermediate_size).
    Output,
    /// Normalization after the last layer.
    FinalNorm,
    /// Linear (hidden_size, hidden_size) that the family's model class in transformers has on top of the first token's hidden state; hidden
    /// states do not need it.
    Pooler,
    /// Linear layer of a task head.
    HeadLinear,
    /// Normalization in a task head.
    HeadNorm,
    /// A matrix of a model that fewbit knows by its tensor names alone.
    OtherLinear,
    /// A table of a model that fewbit knows by its tensor names alone.
    OtherTable,
}

/// How a module uses its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleKind {
    /// Multiplies with it.
    Linear,
    /// Looks rows up.
    Table,
    /// Scales and shifts with it.
    Norm,
}

impl Role {
    /// How a module of this role uses its weight.
    pub fn kind(self) -> ModuleKind {
        match self {
            Self::WordEmbeddings
            | Self::PositionEmbeddings
            | Self::TokenTypeEmbeddings
            | Self::RelativeAttentionBias
            | Self::OtherTable => ModuleKind::Table,
            Self::EmbeddingsNorm
            | Self::AttentionNorm
            | Self::FeedForwardNorm
            | Self::FinalNorm
            | Self::HeadNorm => ModuleKind::Norm,
            _ => ModuleKind::Linear,
        }
    }

    /// The part of a model that it belongs to, for reports.
    pub(crate) fn part(self) -> &'static str {
        match self {
            Self::WordEmbeddings
            | Self::PositionEmbeddings
            | Self::TokenTypeEmbeddings
            | Self::EmbeddingsProjection
            | Self::OtherTable => "embeddings",
            Self::RelativeAttentionBias
            | Self::Query
            | Self::Key
            | Self::Value
            | Self::QueryKeyValue
            | Self::AttentionOutput => "attention",
            Self::Intermediate | Self::GatedIntermediate | Self::Output => "feed-forward",
            Self::EmbeddingsNorm
            | Self::AttentionNorm
            | Self::FeedForwardNorm
            | Self::FinalNorm => "normalization",
            Self::Pooler => "pooler",
            Self::HeadLinear | Self::HeadNorm => "head",
            Self::OtherLinear => "other",
        }
    }

    /// Whether there is one in each layer.
    pub(crate) fn is_of_a_layer(self) -> bool {
        matches!(
            self,
            Self::AttentionNorm
                | Self::Query
                | Self::Key
                | Self::Value
                | Self::QueryKeyValue
                | Self::AttentionOutput
                | Self::FeedForwardNorm
                | Self::Intermediate
                | Self::GatedIntermediate
                | Self::Output
        )
    }

    /// Paths at the sites of a post-norm or a pre-norm encoder, see [`crate::tap`]: one for each of the layers that are packed into the
    /// module. Tables have none.
    pub(crate) fn site_paths(self, pre_norm: bool) -> &'static [&'static str] {
        match self {
            Self::EmbeddingsNorm => &["embeddings.LayerNorm"],
            Self::EmbeddingsProjection => &["embeddings_project"],
            Self::AttentionNorm if pre_norm => &["attention.LayerNorm"],
            Self::AttentionNorm => &["attention.output.LayerNorm"],
            Self::Query => &["attention.self.query"],
            Self::Key => &["attention.self.key"],
            Self::Value => &["attention.self.value"],
            Self::QueryKeyValue => &[
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
            ],
            Self::AttentionOutput => &["attention.output.dense"],
            Self::FeedForwardNorm if pre_norm => &["intermediate.LayerNorm"],
            Self::FeedForwardNorm => &["output.LayerNorm"],
            Self::Intermediate => &["intermediate.dense"],
            Self::GatedIntermediate => &["intermediate.dense", "intermediate.gate"],
            Self::Output => &["output.dense"],
            Self::FinalNorm => &["encoder.LayerNorm"],
            _ => &[],
        }
    }

    /// The path at sites of the first layer that reads the same rows.
    pub(crate) fn reads(self) -> Option<&'static str> {
        match self {
            Self::Key | Self::Value => Self::Query.site_paths(false).first().copied(),
            _ => self.site_paths(false).first().copied(),
        }
    }
}
