//! ALBERT: `model_type` "albert".
//!
//! BERT with narrow embeddings that are always projected, and with groups of layers that run several times each.

use super::shared_fields::{MAX_LAYERS, MAX_VOCABULARY, MAX_WIDTH, Sizes, activation_or};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{EmbeddingsProjection, EncoderSpec, LayerGroups, NameTable, NormSpec};

const NAMES: NameTable = NameTable {
    base_prefix: "albert.",
    layers: "encoder.albert_layer_groups",
    modules: &[
        (Role::WordEmbeddings, "embeddings.word_embeddings"),
        (Role::PositionEmbeddings, "embeddings.position_embeddings"),
        (
            Role::TokenTypeEmbeddings,
            "embeddings.token_type_embeddings",
        ),
        (Role::EmbeddingsNorm, "embeddings.LayerNorm"),
        (
            Role::EmbeddingsProjection,
            "encoder.embedding_hidden_mapping_in",
        ),
        (Role::Query, "attention.query"),
        (Role::Key, "attention.key"),
        (Role::Value, "attention.value"),
        (Role::AttentionOutput, "attention.dense"),
        (Role::AttentionNorm, "attention.LayerNorm"),
        (Role::Intermediate, "ffn"),
        (Role::Output, "ffn_output"),
        (Role::FeedForwardNorm, "full_layer_layer_norm"),
        (Role::Pooler, "pooler"),
    ],
    otherwise: None,
};

/// transformers' defaults are those of xxlarge.
const SIZES: Sizes = Sizes {
    vocab_size: 30000,
    hidden_size: 4096,
    layers: 12,
    heads: 64,
    intermediate_size: 16384,
    positions: 512,
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let activation = activation_or(fields, "hidden_act", "gelu_new")?;
    let norm = NormSpec::layer(fields.fraction("layer_norm_eps", 1e-12)?);
    let spec = SIZES.read(fields)?.spec(fields, NAMES, activation, norm)?;
    let passes = spec.layers;
    let groups = fields.size("num_hidden_groups", 1, 1, passes)?;
    let in_a_group = fields.size("inner_group_num", 1, 1, MAX_LAYERS / passes)?;
    Ok(EncoderSpec {
        embedding_size: fields.size("embedding_size", 128, 1, MAX_WIDTH)?,
        embeddings_projection: EmbeddingsProjection::AfterNorm,
        token_types: fields.size("type_vocab_size", 2, 0, MAX_VOCABULARY)?,
        layers: groups * in_a_group,
        layer_groups: Some(LayerGroups {
            groups,
            passes,
            path: "albert_layers",
        }),
        ..spec
    })
}
