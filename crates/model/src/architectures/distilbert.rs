//! DistilBERT: `model_type` "distilbert".
//!
//! BERT without token types, with names of its own for fields and tensors, and a LayerNorm epsilon that is fixed.
//! `sinusoidal_pos_embds` only says how the stored position table was initialized.

use super::shared_fields::{
    MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH, Sizes, activation,
};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{EncoderSpec, NameTable, NormSpec};

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
    otherwise: None,
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let size = |field, default, most| fields.size(field, default, 1, most);
    let sizes = Sizes {
        vocab_size: size("vocab_size", 30522, MAX_VOCABULARY)?,
        hidden_size: size("dim", 768, MAX_WIDTH)?,
        layers: size("n_layers", 6, MAX_LAYERS)?,
        heads: size("n_heads", 12, MAX_WIDTH)?,
        intermediate_size: size("hidden_dim", 3072, MAX_WIDTH)?,
        positions: size("max_position_embeddings", 512, MAX_POSITIONS)?,
    };
    let norm = NormSpec::layer(1e-12);
    sizes.spec(fields, NAMES, activation(fields, "activation")?, norm)
}
