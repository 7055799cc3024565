//! Nomic BERT: `model_type` "nomic_bert", as transformers has it and as the model's own code has it.
//!
//! BERT with rotary positions, a gated feed-forward and no biases but those of norms.

use super::rotary_positions::RotarySource;
use super::shared_fields::{
    MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH, Sizes, activation_or,
};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{Biases, EncoderSpec, NameTable, NormSpec, Rotary};
use fewbit_kernels::Activation;
use serde_json::Value;

/// Names in files.
const NAMES: NameTable = NameTable {
    base_prefix: "nomic_bert.",
    layers: "encoder.layers",
    modules: &[
        (Role::WordEmbeddings, "embeddings.word_embeddings"),
        (
            Role::TokenTypeEmbeddings,
            "embeddings.token_type_embeddings",
        ),
        (Role::EmbeddingsNorm, "emb_ln"),
        (Role::QueryKeyValue, "attn.Wqkv"),
        (Role::AttentionOutput, "attn.out_proj"),
        (Role::AttentionNorm, "norm1"),
        (Role::Gate, "mlp.fc11"),
        (Role::Intermediate, "mlp.fc12"),
        (Role::Output, "mlp.fc2"),
        (Role::FeedForwardNorm, "norm2"),
    ],
    otherwise: Some(&MODULE_NAMES),
};

/// Names of the modules in transformers, whose loader renames what it reads.
const MODULE_NAMES: NameTable = NameTable {
    base_prefix: "nomic_bert.",
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
    ],
    otherwise: None,
};

const DEFAULT_BASE: f32 = 1000.0;

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let sizes = Sizes {
        vocab_size: 30528,
        hidden_size: 768,
        layers: 12,
        heads: 12,
        intermediate_size: 3072,
        positions: 2048,
    };
    // Fields of the model's own code.
    let is_own = fields.get("n_embd").is_some();
    let sizes = if is_own {
        sizes_of_own_code(fields)?
    } else {
        sizes.read(fields)?
    };
    let (activation, epsilon, base_field) = match is_own {
        true => (
            activation_of_own_code(fields)?,
            "layer_norm_epsilon",
            "rotary_emb_base",
        ),
        false => (
            activation_or(fields, "hidden_act", "silu")?,
            "layer_norm_eps",
            "rope_theta",
        ),
    };
    let norm = NormSpec::layer(fields.fraction(epsilon, 1e-12)?);
    let spec = sizes.spec(fields, NAMES, activation, norm)?;
    let source = RotarySource {
        base_field,
        ..RotarySource::of_all_layers(DEFAULT_BASE, spec.head_size, spec.positions.count)
    };
    let rotary = source.read(fields)?;
    // The model's own code does without a table; transformers looks one up.
    let least = usize::from(!is_own);
    Ok(EncoderSpec {
        biases: Biases {
            norm: true,
            ..Biases::NONE
        },
        token_types: fields.size("type_vocab_size", 2, least, MAX_VOCABULARY)?,
        rotary: Some(Rotary::of_all_layers(rotary)),
        ..spec
    })
}

fn sizes_of_own_code(fields: &ConfigFields<'_>) -> Result<Sizes, ModelError> {
    let size = |field, default, most| fields.size(field, default, 1, most);
    Ok(Sizes {
        vocab_size: size("vocab_size", 30528, MAX_VOCABULARY)?,
        hidden_size: size("n_embd", 768, MAX_WIDTH)?,
        layers: size("n_layer", 12, MAX_LAYERS)?,
        heads: size("n_head", 12, MAX_WIDTH)?,
        intermediate_size: size("n_inner", 3072, MAX_WIDTH)?,
        positions: size("n_positions", 2048, MAX_POSITIONS)?,
    })
}

/// Names of gated activation functions; errors for other settings that change the mathematics.
fn activation_of_own_code(fields: &ConfigFields<'_>) -> Result<Activation, ModelError> {
    const HINT: &str = "other settings give other hidden states, so there is no substitute";
    let usual = [
        ("prenorm", Value::Bool(false)),
        ("use_rms_norm", Value::Bool(false)),
        ("parallel_block", Value::Bool(false)),
        ("causal", Value::Bool(false)),
        ("qkv_proj_bias", Value::Bool(false)),
        ("mlp_fc1_bias", Value::Bool(false)),
        ("mlp_fc2_bias", Value::Bool(false)),
        ("rotary_emb_interleaved", Value::Bool(false)),
        ("rotary_emb_fraction", Value::from(1.0)),
        ("rotary_emb_scale_base", Value::Null),
        ("rotary_scaling_factor", Value::Null),
        ("num_experts", Value::from(0)),
    ];
    for (field, usual) in usual.iter().filter(|(field, _)| !fields.is_null(field)) {
        fields.expect_usual(field, usual, HINT)?;
    }
    let activation = match fields.string("activation_function", "gelu")? {
        "swiglu" => Activation::Silu,
        "geglu" => Activation::Gelu,
        other => {
            let supported = "\"swiglu\" or \"geglu\"";
            let found = Value::from(other);
            return Err(fields.unsupported("activation_function", supported, &found, HINT));
        }
    };
    let said = [
        "layer_norm_epsilon",
        "mlp_fc1_bias",
        "mlp_fc2_bias",
        "qkv_proj_bias",
        "rotary_emb_base",
        "rotary_emb_fraction",
    ];
    match said.iter().find(|field| fields.get(field).is_none()) {
        None => Ok(activation),
        Some(field) => Err(fields.error(
            field,
            "expected a value, found no such field",
            "files of the model's own code say it; its defaults are not known here",
        )),
    }
}
