//! BERT: `model_type` "bert".

use super::shared_fields::read_like_bert;
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{EncoderSpec, NameTable};

/// Paths that RoBERTa and ELECTRA share.
pub(super) const MODULES: &[(Role, &str)] = &[
    (Role::WordEmbeddings, "embeddings.word_embeddings"),
    (Role::PositionEmbeddings, "embeddings.position_embeddings"),
    (
        Role::TokenTypeEmbeddings,
        "embeddings.token_type_embeddings",
    ),
    (Role::EmbeddingsNorm, "embeddings.LayerNorm"),
    (Role::EmbeddingsProjection, "embeddings_project"),
    (Role::Query, "attention.self.query"),
    (Role::Key, "attention.self.key"),
    (Role::Value, "attention.self.value"),
    (Role::AttentionOutput, "attention.output.dense"),
    (Role::AttentionNorm, "attention.output.LayerNorm"),
    (Role::Intermediate, "intermediate.dense"),
    (Role::Output, "output.dense"),
    (Role::FeedForwardNorm, "output.LayerNorm"),
    (Role::Pooler, "pooler.dense"),
];

const NAMES: NameTable = NameTable {
    base_prefix: "bert.",
    layers: "encoder.layer",
    modules: MODULES,
    otherwise: None,
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    read_like_bert(fields, NAMES)
}
