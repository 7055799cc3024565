//! DeBERTa: `model_type` "deberta".
//!
//! Disentangled attention with a row of the table for each distance. Queries, keys and values of a head follow one another in one matrix
//! without biases, of which queries and values get theirs afterwards.

use super::disentangled_fields::{self, max_relative_positions};
use super::shared_fields::Sizes;
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{DisentangledAttention, EncoderSpec, NameTable};

const NAMES: NameTable = NameTable {
    base_prefix: "deberta.",
    layers: "encoder.layer",
    modules: &[
        (Role::PositionEmbeddings, "embeddings.position_embeddings"),
        (Role::WordEmbeddings, "embeddings.word_embeddings"),
        (
            Role::TokenTypeEmbeddings,
            "embeddings.token_type_embeddings",
        ),
        (Role::EmbeddingsProjection, "embeddings.embed_proj"),
        (Role::EmbeddingsNorm, "embeddings.LayerNorm"),
        (Role::RelativePositions, "encoder.rel_embeddings"),
        (Role::QueryKeyValueByHead, "attention.self.in_proj"),
        (Role::QueryBias, "attention.self.q_bias"),
        (Role::ValueBias, "attention.self.v_bias"),
        (Role::PositionKey, "attention.self.pos_proj"),
        (Role::PositionQuery, "attention.self.pos_q_proj"),
        (Role::AttentionOutput, "attention.output.dense"),
        (Role::AttentionNorm, "attention.output.LayerNorm"),
        (Role::Intermediate, "intermediate.dense"),
        (Role::Output, "output.dense"),
        (Role::FeedForwardNorm, "output.LayerNorm"),
    ],
    otherwise: None,
};

const SIZES: Sizes = Sizes {
    vocab_size: 50265,
    hidden_size: 768,
    layers: 12,
    heads: 12,
    intermediate_size: 3072,
    positions: 512,
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let (spec, scores) = disentangled_fields::read(fields, NAMES, SIZES)?;
    let disentangled = DisentangledAttention {
        span: max_relative_positions(fields, &spec)?,
        max_distance: None,
        normalized: false,
        content_to_position: scores.content_to_position,
        position_to_content: scores.position_to_content,
        shared_projections: false,
    };
    Ok(EncoderSpec {
        disentangled: scores.are_there(fields)?.then_some(disentangled),
        ..spec
    })
}
