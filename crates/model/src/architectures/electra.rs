//! ELECTRA (BanglaBERT is one): `model_type` "electra".
//!
//! BERT with embeddings that may be narrower than the hidden states; then a projection follows them.

use super::bert;
use super::shared_fields::{BERT_SIZES, MAX_WIDTH, Sizes, read_like_bert_of};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::spec::{EncoderSpec, NameTable};

const NAMES: NameTable = NameTable {
    base_prefix: "electra.",
    layers: "encoder.layer",
    modules: bert::MODULES.split_last().expect("all but the pooler").1,
    otherwise: None,
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    // transformers' defaults are those of ELECTRA-small.
    let sizes = Sizes {
        hidden_size: 256,
        heads: 4,
        intermediate_size: 1024,
        ..BERT_SIZES
    };
    Ok(EncoderSpec {
        embedding_size: fields.size("embedding_size", 128, 1, MAX_WIDTH)?,
        ..read_like_bert_of(fields, NAMES, sizes)?
    })
}
