//! ELECTRA (BanglaBERT is one): `model_type` "electra".
//!
//! BERT with embeddings that may be narrower than the hidden states; then a projection follows them.

use super::bert;
use super::shared_fields::{MAX_WIDTH, read_like_bert};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::spec::{EncoderSpec, NameTable};

const NAMES: NameTable = NameTable {
    base_prefix: "electra.",
    layers: "encoder.layer",
    modules: bert::MODULES.split_last().expect("all but the pooler").1,
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    // transformers' defaults are those of ELECTRA-small.
    let width = |field: &str, default: usize| fields.size(field, default, 1, MAX_WIDTH);
    Ok(EncoderSpec {
        embedding_size: width("embedding_size", 128)?,
        hidden_size: width("hidden_size", 256)?,
        heads: width("num_attention_heads", 4)?,
        intermediate_size: width("intermediate_size", 1024)?,
        ..read_like_bert(fields, NAMES)?
    })
}
