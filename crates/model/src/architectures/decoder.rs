//! Decoders that embed or rank texts: `model_type` "llama", "mistral", "qwen2", "qwen3", and EuroBERT, "eurobert", which attends to all tokens.
//!
//! RMSNorm before attention and feed-forward, rotary positions, fewer heads of keys and values than of queries, a gated feed-forward. One pass
//! over a whole text: no cache, no language model head.

use super::layer_types::local_layers;
use super::rotary_positions::RotarySource;
use super::shared_fields::{
    MAX_LAYERS, MAX_POSITIONS, MAX_WIDTH, Sizes, activation_or, score_scale,
};
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
        (Role::WordEmbeddings, "embed_tokens"),
        (Role::AttentionNorm, "input_layernorm"),
        (Role::Query, "self_attn.q_proj"),
        (Role::Key, "self_attn.k_proj"),
        (Role::Value, "self_attn.v_proj"),
        (Role::AttentionOutput, "self_attn.o_proj"),
        (Role::FeedForwardNorm, "post_attention_layernorm"),
        (Role::Intermediate, "mlp.gate_proj"),
        (Role::Gate, "mlp.up_proj"),
        (Role::Output, "mlp.down_proj"),
        (Role::FinalNorm, "norm"),
    ],
    otherwise: None,
};

/// Qwen3 normalizes each head of queries and keys.
const QWEN3_NAMES: NameTable = NameTable {
    modules: &[
        (Role::WordEmbeddings, "embed_tokens"),
        (Role::AttentionNorm, "input_layernorm"),
        (Role::Query, "self_attn.q_proj"),
        (Role::QueryNorm, "self_attn.q_norm"),
        (Role::Key, "self_attn.k_proj"),
        (Role::KeyNorm, "self_attn.k_norm"),
        (Role::Value, "self_attn.v_proj"),
        (Role::AttentionOutput, "self_attn.o_proj"),
        (Role::FeedForwardNorm, "post_attention_layernorm"),
        (Role::Intermediate, "mlp.gate_proj"),
        (Role::Gate, "mlp.up_proj"),
        (Role::Output, "mlp.down_proj"),
        (Role::FinalNorm, "norm"),
    ],
    ..NAMES
};

/// What is of one family: the defaults of transformers.
struct Family {
    names: NameTable,
    sizes: Sizes,
    /// As many as heads where there is none.
    key_value_heads: Option<usize>,
    /// The hidden size divided by the heads where there is none.
    head_size: Option<usize>,
    epsilon: f32,
    base: f32,
}

/// The family of a `model_type`.
fn family(model_type: &str) -> Family {
    let sizes = |vocab_size, hidden_size, intermediate_size, positions| Sizes {
        vocab_size,
        hidden_size,
        layers: 32,
        heads: 32,
        intermediate_size,
        positions,
    };
    let llama = Family {
        names: NAMES,
        sizes: sizes(32000, 4096, 11008, 2048),
        key_value_heads: None,
        head_size: None,
        epsilon: 1e-6,
        base: 10_000.0,
    };
    match model_type {
        "mistral" => Family {
            sizes: sizes(32000, 4096, 14336, 4096 * 32),
            key_value_heads: Some(8),
            ..llama
        },
        "qwen2" => Family {
            sizes: sizes(151_936, 4096, 22016, 32768),
            key_value_heads: Some(32),
            ..llama
        },
        "qwen3" => Family {
            names: QWEN3_NAMES,
            sizes: sizes(151_936, 4096, 22016, 32768),
            key_value_heads: Some(32),
            head_size: Some(128),
            ..llama
        },
        "eurobert" => Family {
            sizes: Sizes {
                layers: 12,
                heads: 12,
                ..sizes(128_256, 768, 3072, 8192)
            },
            epsilon: 1e-5,
            ..llama
        },
        _ => llama,
    }
}

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let model_type = fields.string("model_type", "")?;
    let family = family(model_type);
    let norm = NormSpec::root_mean_square(fields.fraction("rms_norm_eps", family.epsilon)?);
    let activation = activation_or(fields, "hidden_act", "silu")?;
    let spec = family
        .sizes
        .read(fields)?
        .spec(fields, family.names, activation, norm)?;
    // null is not the default: it says that a file has no number of its own.
    let size = |field, default, of_null| match fields.is_null(field) {
        true => Ok(of_null),
        false => fields.size(field, default, 1, MAX_WIDTH),
    };
    let head_size = family.head_size.unwrap_or(spec.head_size);
    let head_size = size("head_dim", head_size, head_size)?;
    let key_value_heads = family.key_value_heads.unwrap_or(spec.heads);
    let key_value_heads = size("num_key_value_heads", key_value_heads, spec.heads)?;
    let attention_bias = fields.flag("attention_bias", false)?;
    let feed_forward_bias = fields.flag("mlp_bias", false)?;
    let rotary =
        RotarySource::of_all_layers(family.base, head_size, spec.positions.count).read(fields)?;
    let causal = model_type != "eurobert" && fields.flag("is_causal", true)?;
    Ok(EncoderSpec {
        key_value_heads,
        head_size,
        score_scale: score_scale(head_size),
        norms: NormPlacement::Before,
        biases: match model_type {
            "llama" | "eurobert" => Biases {
                query_key_value: attention_bias,
                attention_output: attention_bias,
                intermediate: feed_forward_bias,
                output: feed_forward_bias,
                norm: false,
            },
            "qwen3" => Biases {
                query_key_value: attention_bias,
                attention_output: attention_bias,
                ..Biases::NONE
            },
            "qwen2" => Biases {
                query_key_value: true,
                ..Biases::NONE
            },
            _ => Biases::NONE,
        },
        causal,
        rotary: Some(Rotary::of_all_layers(rotary)),
        local_attention: local_attention(fields, model_type, spec.layers, causal)?,
        ..spec
    })
}

/// Sliding windows: of all layers of Mistral, of the last ones of Qwen where these are asked for.
fn local_attention(
    fields: &ConfigFields<'_>,
    model_type: &str,
    layers: usize,
    causal: bool,
) -> Result<Option<LocalAttention>, ModelError> {
    let is_null = fields.is_null("sliding_window");
    let of_qwen = ["qwen2", "qwen3"].contains(&model_type);
    let first = match model_type {
        "mistral" if !is_null => 0,
        _ if of_qwen && !is_null && fields.flag("use_sliding_window", false)? => {
            fields.size("max_window_layers", 28, 0, MAX_LAYERS)?
        }
        _ => {
            if of_qwen && local_layers(fields, layers, |_| false)?.contains(&true) {
                return Err(fields.error(
                    "layer_types",
                    "expected no \"sliding_attention\", found some without a window",
                    "`use_sliding_window` and `sliding_window` say that there is one",
                ));
            }
            return Ok(None);
        }
    };
    // A causal window counts the token itself; one to both sides has so many tokens on each.
    let window = fields.size("sliding_window", 4096, 1, MAX_POSITIONS)?;
    let distance = window - usize::from(causal);
    let layers = match model_type {
        "mistral" => vec![true; layers],
        _ => local_layers(fields, layers, |layer| layer >= first)?,
    };
    Ok(Some(LocalAttention { distance, layers }))
}
