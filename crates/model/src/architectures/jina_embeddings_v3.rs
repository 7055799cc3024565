//! Jina embeddings v3: `model_type` "jina_embeddings_v3" of transformers, without its adapters or with them merged.
//!
//! XLM-RoBERTa with rotary positions.

use super::rotary_positions::RotarySource;
use super::shared_fields::{MAX_VOCABULARY, Sizes, activation};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{EncoderSpec, NameTable, NormSpec, Rotary};

/// Names in files.
const NAMES: NameTable = NameTable {
    base_prefix: "roberta.",
    layers: "encoder.layers",
    modules: &[
        (Role::WordEmbeddings, "embeddings.word_embeddings"),
        (
            Role::TokenTypeEmbeddings,
            "embeddings.token_type_embeddings",
        ),
        (Role::EmbeddingsNorm, "emb_ln"),
        (Role::QueryKeyValue, "mixer.Wqkv"),
        (Role::AttentionOutput, "mixer.out_proj"),
        (Role::AttentionNorm, "norm1"),
        (Role::Intermediate, "mlp.fc1"),
        (Role::Output, "mlp.fc2"),
        (Role::FeedForwardNorm, "norm2"),
        (Role::Pooler, "pooler.dense"),
    ],
    otherwise: Some(&MODULE_NAMES),
};

/// Names of the modules in transformers, whose loader renames what it reads.
const MODULE_NAMES: NameTable = NameTable {
    base_prefix: "roberta.",
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
        (Role::Intermediate, "mlp.fc1"),
        (Role::Output, "mlp.fc2"),
        (Role::FeedForwardNorm, "post_mlp_layernorm"),
        (Role::Pooler, "pooler.dense"),
    ],
    otherwise: None,
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let sizes = Sizes {
        vocab_size: 250_002,
        hidden_size: 1024,
        layers: 24,
        heads: 16,
        intermediate_size: 4096,
        positions: 8194,
    };
    let norm = NormSpec::layer(fields.fraction("layer_norm_eps", 1e-5)?);
    let activation = activation(fields, "hidden_act")?;
    let spec = sizes.read(fields)?.spec(fields, NAMES, activation, norm)?;
    let source = RotarySource::of_all_layers(20_000.0, spec.head_size, spec.positions.count);
    let rotary = source.read(fields)?;
    Ok(EncoderSpec {
        token_types: fields.size("type_vocab_size", 1, 0, MAX_VOCABULARY)?,
        rotary: Some(Rotary::of_all_layers(rotary)),
        ..spec
    })
}
