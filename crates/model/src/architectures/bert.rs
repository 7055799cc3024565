//! BERT: `model_type` "bert".

use crate::ModelError;
use crate::spec::config_fields::ConfigFields;
use crate::spec::{EncoderSpec, NameTable};

/// Names that RoBERTa and ELECTRA share, but for the prefix.
pub(super) const NAMES: NameTable = NameTable {
    base_prefix: "bert.",
    word_embeddings: "embeddings.word_embeddings",
    position_embeddings: "embeddings.position_embeddings",
    token_type_embeddings: "embeddings.token_type_embeddings",
    embeddings_norm: "embeddings.LayerNorm",
    embeddings_projection: "embeddings_project",
    relative_attention_bias: "encoder.relative_attention_bias",
    layers: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    intermediate: "intermediate.dense",
    output: "output.dense",
    output_norm: "output.LayerNorm",
    pooler: Some("pooler.dense"),
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    super::read_like_bert(fields, NAMES)
}
