//! ModernBERT: `model_type` "modernbert".
//!
//! Normalization before attention and feed-forward, no biases, queries, keys and values in one matrix, rotary positions with a base for
//! global and one for local layers, a gated feed-forward.

use super::layer_types::{GLOBAL, LOCAL, local_layers};
use super::rotary_positions::RotarySource;
use super::shared_fields::{MAX_LAYERS, MAX_POSITIONS, Sizes, activation};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{
    Biases, EncoderSpec, LocalAttention, NameTable, NormPlacement, NormSpec, Rotary,
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
    otherwise: None,
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let sizes = Sizes {
        vocab_size: 50368,
        hidden_size: 768,
        layers: 22,
        heads: 12,
        intermediate_size: 1152,
        positions: 8192,
    };
    let norm = NormSpec::layer(fields.fraction("norm_eps", 1e-5)?);
    let activation = activation(fields, "hidden_activation")?;
    let spec = sizes.read(fields)?.spec(fields, NAMES, activation, norm)?;
    let rotary = |layer_type, base_field, default_base| RotarySource {
        layer_type: Some(layer_type),
        base_field,
        default_base,
        scaled: true,
        head_size: spec.head_size,
        positions: spec.positions.count,
    };
    let attention_bias = fields.flag("attention_bias", false)?;
    let feed_forward_bias = fields.flag("mlp_bias", false)?;
    let every = fields.size("global_attn_every_n_layers", 3, 1, MAX_LAYERS)?;
    Ok(EncoderSpec {
        norms: NormPlacement::BeforeButFirst,
        biases: Biases {
            query_key_value: attention_bias,
            attention_output: attention_bias,
            intermediate: feed_forward_bias,
            output: feed_forward_bias,
            norm: fields.flag("norm_bias", false)?,
        },
        rotary: Some(Rotary {
            global: rotary(GLOBAL, "global_rope_theta", 160_000.0).read(fields)?,
            local: rotary(LOCAL, "local_rope_theta", 10_000.0).read(fields)?,
        }),
        local_attention: Some(LocalAttention {
            // The whole window, of which half is on each side.
            distance: fields.size("local_attention", 128, 2, MAX_POSITIONS)? / 2,
            layers: local_layers(fields, spec.layers, |layer| layer % every > 0)?,
        }),
        ..spec
    })
}
