//! ModernBERT: `model_type` "modernbert".
//!
//! Normalization before attention and feed-forward, no biases, queries, keys and values in one matrix, rotary positions with a base for
//! global and one for local layers, a gated feed-forward.

use super::layer_types::{GLOBAL, LOCAL, local_layers};
use super::rotary_positions;
use super::shared_fields::{MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH, activation};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{
    Biases, EncoderSpec, LocalAttention, NameTable, NormPlacement, Positions, Rotary,
};

const NAMES: NameTable = NameTable {
    base_prefix: "model.",
    layers: "layers",
    modules: &[
        (Role::WordEmbeddings, "embeddings.tok_embeddings"),
        (Role::EmbeddingsNorm, "embeddings.norm"),
        (Role::AttentionNorm, "attn_norm"),
        (Role::QueryKeyValue, "attn.Wqkv"),
        (Role::AttentionOutput, "attn.Wo"),
        (Role::FeedForwardNorm, "mlp_norm"),
        (Role::GatedIntermediate, "mlp.Wi"),
        (Role::Output, "mlp.Wo"),
        (Role::FinalNorm, "final_norm"),
    ],
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let hidden_size = fields.size("hidden_size", 768, 1, MAX_WIDTH)?;
    let layers = fields.size("num_hidden_layers", 22, 1, MAX_LAYERS)?;
    Ok(EncoderSpec {
        model_type: fields.string("model_type", "")?.to_owned(),
        prefix: String::new(),
        vocab_size: fields.size("vocab_size", 50368, 1, MAX_VOCABULARY)?,
        embedding_size: hidden_size,
        hidden_size,
        layers,
        heads: fields.size("num_attention_heads", 12, 1, MAX_WIDTH)?,
        intermediate_size: fields.size("intermediate_size", 1152, 1, MAX_WIDTH)?,
        activation: activation(fields, "hidden_activation")?,
        norms: NormPlacement::BeforeButFirst,
        layer_norm_epsilon: fields.fraction("norm_eps", 1e-5)?,
        biases: Biases {
            attention: fields.flag("attention_bias", false)?,
            feed_forward: fields.flag("mlp_bias", false)?,
            norm: fields.flag("norm_bias", false)?,
        },
        positions: Positions {
            count: fields.size("max_position_embeddings", 8192, 1, MAX_POSITIONS)?,
            padding_id: None,
        },
        token_types: 0,
        relative_attention: None,
        rotary: Some(Rotary {
            base: rotary_positions::base(fields, GLOBAL, "global_rope_theta", 160_000.0)?,
            local_base: rotary_positions::base(fields, LOCAL, "local_rope_theta", 10_000.0)?,
        }),
        local_attention: Some(LocalAttention {
            // The whole window, of which half is on each side.
            distance: fields.size("local_attention", 128, 2, MAX_POSITIONS)? / 2,
            layers: local_layers(fields, layers, "global_attn_every_n_layers", 3)?,
        }),
        names: NAMES,
    })
}
