//! Gemma 3 as an encoder of texts (EmbeddingGemma is one): `model_type` "gemma3_text".
//!
//! As [`super::decoder`], with normalizations around attention and feed-forward whose weights are differences to 1, word embeddings that are
//! scaled, and a base of rotary positions for global and one for local layers.

use super::layer_types::{GLOBAL, LOCAL, local_layers};
use super::rotary_positions::RotarySource;
use super::shared_fields::{MAX_LAYERS, MAX_POSITIONS, MAX_WIDTH, Sizes, activation_or};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{
    Biases, EncoderSpec, LocalAttention, NameTable, NormPlacement, NormSpec, Rotary,
};
use serde_json::Value;

const NAMES: NameTable = NameTable {
    base_prefix: "model.",
    layers: "layers",
    modules: &[
        (Role::WordEmbeddings, "embed_tokens"),
        (Role::AttentionNorm, "input_layernorm"),
        (Role::Query, "self_attn.q_proj"),
        (Role::QueryNorm, "self_attn.q_norm"),
        (Role::Key, "self_attn.k_proj"),
        (Role::KeyNorm, "self_attn.k_norm"),
        (Role::Value, "self_attn.v_proj"),
        (Role::AttentionOutput, "self_attn.o_proj"),
        (Role::AttentionOutputNorm, "post_attention_layernorm"),
        (Role::FeedForwardNorm, "pre_feedforward_layernorm"),
        (Role::Intermediate, "mlp.gate_proj"),
        (Role::Gate, "mlp.up_proj"),
        (Role::Output, "mlp.down_proj"),
        (Role::OutputNorm, "post_feedforward_layernorm"),
        (Role::FinalNorm, "norm"),
    ],
    otherwise: None,
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let sizes = Sizes {
        vocab_size: 262_208,
        hidden_size: 2304,
        layers: 26,
        heads: 8,
        intermediate_size: 9216,
        positions: 131_072,
    };
    let norm = NormSpec {
        weight_offset: 1.0,
        ..NormSpec::root_mean_square(fields.fraction("rms_norm_eps", 1e-6)?)
    };
    let activation = activation_or(fields, "hidden_activation", "gelu_pytorch_tanh")?;
    let spec = sizes.read(fields)?.spec(fields, NAMES, activation, norm)?;
    const HINT: &str =
        "capped scores and other masks give other hidden states, so there is no substitute";
    let usual = [
        ("attn_logit_softcapping", Value::Null),
        ("is_causal", Value::Bool(true)),
    ];
    for (field, usual) in usual.iter().filter(|(field, _)| !fields.is_null(field)) {
        fields.expect_usual(field, usual, HINT)?;
    }
    let head_size = fields.size("head_dim", 256, 1, MAX_WIDTH)?;
    let rotary = |layer_type, base_field, default_base, scaled| RotarySource {
        layer_type: Some(layer_type),
        base_field,
        default_base,
        scaled,
        head_size,
        positions: spec.positions.count,
    };
    let attention_bias = fields.flag("attention_bias", false)?;
    const BIDIRECTIONAL: &str = "use_bidirectional_attention";
    let causal = fields.is_null(BIDIRECTIONAL) || !fields.flag(BIDIRECTIONAL, false)?;
    let window = fields.size("sliding_window", 4096, 1, MAX_POSITIONS)?;
    let every = fields.size("sliding_window_pattern", 6, 1, MAX_LAYERS)?;
    let scalar = fields.positive("query_pre_attn_scalar", 256.0)?;
    Ok(EncoderSpec {
        key_value_heads: fields.size("num_key_value_heads", 4, 1, MAX_WIDTH)?,
        head_size,
        score_scale: 1.0 / scalar.sqrt(),
        embedding_scale: (spec.hidden_size as f64).sqrt() as f32,
        norms: NormPlacement::Around,
        biases: Biases {
            query_key_value: attention_bias,
            attention_output: attention_bias,
            ..Biases::NONE
        },
        causal,
        rotary: Some(Rotary {
            global: rotary(GLOBAL, "rope_theta", 1_000_000.0, true).read(fields)?,
            local: rotary(LOCAL, "rope_local_base_freq", 10_000.0, false).read(fields)?,
        }),
        local_attention: Some(LocalAttention {
            // A causal window counts the token itself; one to both sides is the whole of it.
            distance: if causal { window - 1 } else { window / 2 },
            layers: local_layers(fields, spec.layers, |layer| (layer + 1) % every > 0)?,
        }),
        ..spec
    })
}
