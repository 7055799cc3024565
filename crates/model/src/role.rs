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
    /// Linear (hidden_size, embedding_size): where the sizes differ, and always in ALBERT.
    EmbeddingsProjection,
    /// Table (buckets of distances, heads) of a bias on attention scores.
    RelativeAttentionBias,
    /// Table (2 * span, hidden_size) of relative positions, see [`DisentangledAttention`](crate::spec::DisentangledAttention).
    RelativePositions,
    /// Normalization of its rows.
    RelativePositionsNorm,
    /// In a layer: normalization of what attention adds to (post-norm) or of what it reads (pre-norm).
    AttentionNorm,
    /// In a layer: linear (heads * head_size, hidden_size).
    Query,
    /// In a layer: linear (key_value_heads * head_size, hidden_size).
    Key,
    /// In a layer: linear (key_value_heads * head_size, hidden_size).
    Value,
    /// In a layer: queries, keys and values, of as many heads each, in one linear (3 * heads * head_size, hidden_size).
    QueryKeyValue,
    /// In a layer: the same with the queries, keys and values of one head after the other.
    QueryKeyValueByHead,
    /// In a layer: vector (heads * head_size) that is added to the queries, where they are not of a linear of their own.
    QueryBias,
    /// In a layer: the same of the values.
    ValueBias,
    /// In a layer: linear (heads * head_size, hidden_size) that makes keys of relative positions.
    PositionKey,
    /// In a layer: linear (heads * head_size, hidden_size) that makes queries of relative positions.
    PositionQuery,
    /// In a layer: normalization of each head of the queries.
    QueryNorm,
    /// In a layer: normalization of each head of the keys.
    KeyNorm,
    /// In a layer: linear (hidden_size, heads * head_size).
    AttentionOutput,
    /// In a layer: normalization of what attention gives, before it is added to the residual stream.
    AttentionOutputNorm,
    /// In a layer: normalization of what the feed-forward adds to (post-norm) or of what it reads (pre-norm).
    FeedForwardNorm,
    /// In a layer: the first linear of the feed-forward (intermediate_size, hidden_size).
    Intermediate,
    /// In a layer: the linear whose outputs the activations of the first one are multiplied by (intermediate_size, hidden_size).
    Gate,
    /// In a layer: the first linear and the gate, in this order, in one (2 * intermediate_size, hidden_size).
    GatedIntermediate,
    /// In a layer: the gate and the first linear, in this order, in one (2 * intermediate_size, hidden_size).
    GateAndIntermediate,
    /// In a layer: the second linear of the feed-forward (hidden_size, intermediate_size).
    Output,
    /// In a layer: normalization of what the feed-forward gives, before it is added to the residual stream.
    OutputNorm,
    /// Convolution (hidden_size, hidden_size / groups * size) over the tokens of the embeddings, beside the first layer.
    Convolution,
    /// Normalization of the output of the first layer with the convolution.
    ConvolutionNorm,
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
    /// The same of a layer that keeps its weight as (in, out) in floats, GPT-2's `Conv1D`; where it is codes, their rows are outputs as of every other layer.
    OtherTransposedLinear,
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
    /// Adds it.
    Bias,
    /// Multiplies neighbouring rows with it.
    Convolution,
}

impl Role {
    /// How a module of this role uses its weight.
    pub fn kind(self) -> ModuleKind {
        match self {
            Self::WordEmbeddings
            | Self::PositionEmbeddings
            | Self::TokenTypeEmbeddings
            | Self::RelativeAttentionBias
            | Self::RelativePositions
            | Self::OtherTable => ModuleKind::Table,
            Self::QueryBias | Self::ValueBias => ModuleKind::Bias,
            Self::Convolution => ModuleKind::Convolution,
            Self::EmbeddingsNorm
            | Self::AttentionNorm
            | Self::QueryNorm
            | Self::KeyNorm
            | Self::AttentionOutputNorm
            | Self::FeedForwardNorm
            | Self::OutputNorm
            | Self::RelativePositionsNorm
            | Self::ConvolutionNorm
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
            | Self::QueryKeyValueByHead
            | Self::QueryBias
            | Self::ValueBias
            | Self::RelativePositions
            | Self::PositionKey
            | Self::PositionQuery
            | Self::AttentionOutput => "attention",
            Self::Intermediate
            | Self::Gate
            | Self::GatedIntermediate
            | Self::GateAndIntermediate
            | Self::Convolution
            | Self::Output => "feed-forward",
            Self::EmbeddingsNorm
            | Self::AttentionNorm
            | Self::QueryNorm
            | Self::KeyNorm
            | Self::AttentionOutputNorm
            | Self::FeedForwardNorm
            | Self::OutputNorm
            | Self::RelativePositionsNorm
            | Self::ConvolutionNorm
            | Self::FinalNorm => "normalization",
            Self::Pooler => "pooler",
            Self::HeadLinear | Self::HeadNorm => "head",
            Self::OtherLinear | Self::OtherTransposedLinear => "other",
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
                | Self::QueryKeyValueByHead
                | Self::QueryBias
                | Self::ValueBias
                | Self::PositionKey
                | Self::PositionQuery
                | Self::QueryNorm
                | Self::KeyNorm
                | Self::AttentionOutput
                | Self::AttentionOutputNorm
                | Self::FeedForwardNorm
                | Self::Intermediate
                | Self::Gate
                | Self::GatedIntermediate
                | Self::GateAndIntermediate
                | Self::Output
                | Self::OutputNorm
        )
    }

    /// The roles of the layers that are packed into the module, in the order of its rows; its own where that is one layer.
    pub(crate) fn parts(self) -> Vec<Self> {
        match self {
            Self::QueryKeyValue => vec![Self::Query, Self::Key, Self::Value],
            Self::GatedIntermediate => vec![Self::Intermediate, Self::Gate],
            Self::GateAndIntermediate => vec![Self::Gate, Self::Intermediate],
            one => vec![one],
        }
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
            Self::QueryKeyValue | Self::QueryKeyValueByHead => &[
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
            ],
            Self::PositionKey => &["attention.self.position_key"],
            Self::PositionQuery => &["attention.self.position_query"],
            Self::ConvolutionNorm => &["encoder.conv.LayerNorm"],
            Self::QueryNorm => &["attention.self.query_norm"],
            Self::KeyNorm => &["attention.self.key_norm"],
            Self::AttentionOutput => &["attention.output.dense"],
            Self::AttentionOutputNorm => &["attention.output.LayerNorm"],
            Self::FeedForwardNorm if pre_norm => &["intermediate.LayerNorm"],
            Self::FeedForwardNorm => &["output.LayerNorm"],
            Self::Intermediate => &["intermediate.dense"],
            Self::Gate => &["intermediate.gate"],
            Self::GatedIntermediate => &["intermediate.dense", "intermediate.gate"],
            Self::GateAndIntermediate => &["intermediate.gate", "intermediate.dense"],
            Self::Output => &["output.dense"],
            Self::OutputNorm => &["output.LayerNorm"],
            Self::FinalNorm => &["encoder.LayerNorm"],
            _ => &[],
        }
    }

    /// The path at sites of the first layer that reads the same rows.
    pub(crate) fn reads(self) -> Option<&'static str> {
        match self {
            Self::Key | Self::Value => Self::Query.site_paths(false).first().copied(),
            Self::Gate | Self::GateAndIntermediate => {
                Self::Intermediate.site_paths(false).first().copied()
            }
            _ => self.site_paths(false).first().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn sites_of_a_packed_module_are_those_of_its_parts() {
        for packed in [
            Role::QueryKeyValue,
            Role::GatedIntermediate,
            Role::GateAndIntermediate,
        ] {
            let parts = packed.parts();
            assert!(parts.len() > 1, "{packed:?}");
            let sites: Vec<&str> = parts
                .iter()
                .flat_map(|part| part.site_paths(false))
                .copied()
                .collect();
            assert_eq!(packed.site_paths(false), sites, "{packed:?}");
        }
    }
}
