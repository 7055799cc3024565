//! DistilBERT: `model_type` "distilbert".
//!
//! BERT without token types, with names of its own for fields and tensors, and a LayerNorm epsilon that is fixed.
//! `sinusoidal_pos_embds` only says how the stored position table was initialized.

use super::shared_fields::{MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH, activation};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{Biases, EncoderSpec, NameTable, NormPlacement, Positions};

const NAMES: NameTable = NameTable {
    base_prefix: "distilbert.",
    layers: "transformer.layer",
    modules: &[
        (Role::WordEmbeddings, "embeddings.word_embeddings"),
        (Role::PositionEmbeddings, "embeddings.position_embeddings"),
        (Role::EmbeddingsNorm, "embeddings.LayerNorm"),
        (Role::Query, "attention.q_lin"),
        (Role::Key, "attention.k_lin"),
        (Role::Value, "attention.v_lin"),
        (Role::AttentionOutput, "attention.out_lin"),
        (Role::AttentionNorm, "sa_layer_norm"),
        (Role::Intermediate, "ffn.lin1"),
        (Role::Output, "ffn.lin2"),
        (Role::FeedForwardNorm, "output_layer_norm"),
    ],
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let hidden_size = fields.size("dim", 768, 1, MAX_WIDTH)?;
    Ok(EncoderSpec {
        model_type: fields.string("model_type", "")?.to_owned(),
        prefix: String::new(),
        vocab_size: fields.size("vocab_size", 30522, 1, MAX_VOCABULARY)?,
        embedding_size: hidden_size,
        hidden_size,
        layers: fields.size("n_layers", 6, 1, MAX_LAYERS)?,
        heads: fields.size("n_heads", 12, 1, MAX_WIDTH)?,
        intermediate_size: fields.size("hidden_dim", 3072, 1, MAX_WIDTH)?,
        activation: activation(fields, "activation")?,
        norms: NormPlacement::After,
        layer_norm_epsilon: 1e-12,
        biases: Biases::ALL,
        positions: Positions {
            count: fields.size("max_position_embeddings", 512, 1, MAX_POSITIONS)?,
            padding_id: None,
        },
        token_types: 0,
        relative_attention: None,
        rotary: None,
        local_attention: None,
        names: NAMES,
    })
}
