//! GTE v1.5 and its kin: `model_type` "gte" of transformers, and "new", whose code is the models' own.
//!
//! BERT with rotary positions and a gated feed-forward.

use super::rotary_positions::RotarySource;
use super::shared_fields::{MAX_VOCABULARY, Sizes, activation};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{Biases, EncoderSpec, NameTable, NormSpec, Rotary};
use serde_json::Value;

/// Names in files.
const NAMES: NameTable = NameTable {
    base_prefix: "gte.",
    layers: "encoder.layer",
    modules: &[
        (Role::WordEmbeddings, "embeddings.word_embeddings"),
        (
            Role::TokenTypeEmbeddings,
            "embeddings.token_type_embeddings",
        ),
        (Role::EmbeddingsNorm, "embeddings.LayerNorm"),
        (Role::QueryKeyValue, "attention.qkv_proj"),
        (Role::AttentionOutput, "attention.o_proj"),
        (Role::AttentionNorm, "attn_ln"),
        (Role::GateAndIntermediate, "mlp.up_gate_proj"),
        (Role::Output, "mlp.down_proj"),
        (Role::FeedForwardNorm, "mlp_ln"),
        (Role::Pooler, "pooler.dense"),
    ],
    otherwise: Some(&MODULE_NAMES),
};

/// Names of the modules in transformers, whose loader renames what it reads.
const MODULE_NAMES: NameTable = NameTable {
    base_prefix: "gte.",
    layers: "layers",
    modules: &[
        (Role::WordEmbeddings, "embeddings.word_embeddings"),
        (
            Role::TokenTypeEmbeddings,
            "embeddings.token_type_embeddings",
        ),
        (Role::EmbeddingsNorm, "embeddings.LayerNorm"),
        (Role::Query, "self_attn.q_proj"),
        (Role::Key, "self_attn.k_proj"),
        (Role::Value, "self_attn.v_proj"),
        (Role::AttentionOutput, "self_attn.o_proj"),
        (Role::AttentionNorm, "post_attention_layernorm"),
        (Role::Intermediate, "mlp.gate_proj"),
        (Role::Gate, "mlp.up_proj"),
        (Role::Output, "mlp.down_proj"),
        (Role::FeedForwardNorm, "post_mlp_layernorm"),
        (Role::Pooler, "pooler.dense"),
    ],
    otherwise: None,
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let is_own = fields.string("model_type", "")? == "new";
    if is_own {
        refuse_other_settings(fields)?;
    }
    let sizes = Sizes {
        vocab_size: if is_own { 30528 } else { 250_048 },
        hidden_size: 768,
        layers: 12,
        heads: 12,
        intermediate_size: 3072,
        positions: if is_own { 2048 } else { 8192 },
    };
    let norm = NormSpec::layer(fields.fraction("layer_norm_eps", 1e-12)?);
    let activation = activation(fields, "hidden_act")?;
    let names = NameTable {
        base_prefix: if is_own { "new." } else { NAMES.base_prefix },
        ..NAMES
    };
    let spec = sizes.read(fields)?.spec(fields, names, activation, norm)?;
    let base = if is_own { 10_000.0 } else { 160_000.0 };
    let rotary =
        RotarySource::of_all_layers(base, spec.head_size, spec.positions.count).read(fields)?;
    Ok(EncoderSpec {
        biases: Biases {
            intermediate: false,
            ..Biases::ALL
        },
        token_types: fields.size("type_vocab_size", 1, 0, MAX_VOCABULARY)?,
        rotary: Some(Rotary::of_all_layers(rotary)),
        ..spec
    })
}

/// Settings of the models' own code that give other hidden states.
fn refuse_other_settings(fields: &ConfigFields<'_>) -> Result<(), ModelError> {
    const HINT: &str = "other settings give other hidden states, so there is no substitute";
    let usual = [
        ("position_embedding_type", Value::from("rope")),
        ("layer_norm_type", Value::from("layer_norm")),
        ("pack_qkv", Value::Bool(true)),
        ("logn_attention_scale", Value::Bool(false)),
    ];
    usual
        .iter()
        .try_for_each(|(field, usual)| fields.expect_usual(field, usual, HINT))
}
