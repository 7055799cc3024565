//! MPNet: `model_type` "mpnet".
//!
//! BERT without token types, with positions counted as RoBERTa does, and a learned bias on the attention scores that
//! depends on the distance between tokens. The padding id, the number of buckets and the largest distance are constants
//! of transformers' implementation: `pad_token_id` does not move the positions, and `relative_attention_num_buckets`
//! only sizes the table.

use super::shared_fields::{MAX_VOCABULARY, MAX_WIDTH, read_like_bert};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{EncoderSpec, NameTable, Positions, RelativeAttention};

const NAMES: NameTable = NameTable {
    base_prefix: "mpnet.",
    layers: "encoder.layer",
    modules: &[
        (Role::WordEmbeddings, "embeddings.word_embeddings"),
        (Role::PositionEmbeddings, "embeddings.position_embeddings"),
        (Role::EmbeddingsNorm, "embeddings.LayerNorm"),
        (
            Role::RelativeAttentionBias,
            "encoder.relative_attention_bias",
        ),
        (Role::Query, "attention.attn.q"),
        (Role::Key, "attention.attn.k"),
        (Role::Value, "attention.attn.v"),
        (Role::AttentionOutput, "attention.attn.o"),
        (Role::AttentionNorm, "attention.LayerNorm"),
        (Role::Intermediate, "intermediate.dense"),
        (Role::Output, "output.dense"),
        (Role::FeedForwardNorm, "output.LayerNorm"),
        (Role::Pooler, "pooler.dense"),
    ],
    otherwise: None,
};

const PADDING_ID: u32 = 1;
const BUCKETS: usize = 32;
const MAX_DISTANCE: usize = 128;

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let spec = read_like_bert(fields, NAMES)?;
    let rows = fields.size(
        "relative_attention_num_buckets",
        BUCKETS,
        BUCKETS,
        MAX_WIDTH,
    )?;
    Ok(EncoderSpec {
        vocab_size: fields.size("vocab_size", 30527, 1, MAX_VOCABULARY)?,
        positions: Positions {
            padding_id: Some(PADDING_ID),
            ..spec.positions
        },
        token_types: 0,
        relative_attention: Some(RelativeAttention {
            rows,
            buckets: BUCKETS,
            max_distance: MAX_DISTANCE,
        }),
        ..spec
    })
}
