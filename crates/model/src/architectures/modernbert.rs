//! ModernBERT: `model_type` "modernbert".
//!
//! Normalization before attention and feed-forward, no biases, queries, keys and values in one matrix, rotary positions with a base for
//! global and one for local layers, a gated feed-forward.

use super::shared_fields::{MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH, activation};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{
    Biases, EncoderSpec, LocalAttention, NameTable, NormPlacement, Positions, Rotary,
};
use serde_json::Value;

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

/// Values of `layer_types`, which are the keys of `rope_parameters`, too.
const GLOBAL: &str = "full_attention";
const LOCAL: &str = "sliding_attention";

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
            base: rotary_base(fields, GLOBAL, "global_rope_theta", 160_000.0)?,
            local_base: rotary_base(fields, LOCAL, "local_rope_theta", 10_000.0)?,
        }),
        local_attention: Some(LocalAttention {
            // The whole window, of which half is on each side.
            distance: fields.size("local_attention", 128, 2, MAX_POSITIONS)? / 2,
            layers: local_layers(fields, layers)?,
        }),
        names: NAMES,
    })
}

/// From `layer_types`, or `global_attn_every_n_layers` of older files.
fn local_layers(fields: &ConfigFields<'_>, layers: usize) -> Result<Vec<bool>, ModelError> {
    let every = fields.size("global_attn_every_n_layers", 3, 1, MAX_LAYERS)?;
    let Some(types) = fields.get("layer_types").filter(|types| !types.is_null()) else {
        return Ok((0..layers).map(|layer| layer % every > 0).collect());
    };
    let types = types.as_array().filter(|types| types.len() == layers);
    let is_local = |kind: &Value| match kind.as_str() {
        Some(GLOBAL) => Some(false),
        Some(LOCAL) => Some(true),
        _ => None,
    };
    types
        .and_then(|types| types.iter().map(is_local).collect())
        .ok_or_else(|| {
            fields.error(
                "layer_types",
                format!("expected \"{GLOBAL}\" or \"{LOCAL}\" for each of {layers} layers"),
                "correct the value or fetch the file again",
            )
        })
}

/// From `rope_parameters`, or the field `old` of older files.
fn rotary_base(
    fields: &ConfigFields<'_>,
    kind: &str,
    old: &str,
    default: f32,
) -> Result<f32, ModelError> {
    let old = fields.positive(old, default)?;
    let scaling = fields.get("rope_scaling").filter(|value| !value.is_null());
    if let Some(found) = scaling {
        return Err(fields.unsupported("rope_scaling", "none", found, HINT));
    }
    let of_kind = fields.get("rope_parameters").map(|both| &both[kind]);
    let Some(parameters) = of_kind.filter(|parameters| !parameters.is_null()) else {
        return Ok(old);
    };
    let rope_type = &parameters["rope_type"];
    if !rope_type.is_null() && rope_type != "default" {
        let field = format!("rope_parameters.{kind}.rope_type");
        return Err(fields.unsupported(&field, "\"default\"", rope_type, HINT));
    }
    let part = &parameters["partial_rotary_factor"];
    if !part.is_null() && part != 1.0 {
        let field = format!("rope_parameters.{kind}.partial_rotary_factor");
        return Err(fields.unsupported(&field, "1", part, HINT));
    }
    ConfigFields::new(fields.file(), parameters).positive("rope_theta", old)
}

const HINT: &str = "other rotations give other hidden states, so there is no substitute";
