//! RoBERTa, XLM-RoBERTa and CamemBERT: `model_type` "roberta", "xlm-roberta", "camembert".
//!
//! BERT with positions that are counted from `pad_token_id` + 1 on (so a table of 514 rows serves 512 tokens), and
//! usually a single token type. All three give the encoder the prefix `roberta.`.

use super::bert;
use super::shared_fields::{padding_id, read_like_bert};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::spec::{EncoderSpec, NameTable, Positions};

const NAMES: NameTable = NameTable {
    base_prefix: "roberta.",
    layers: "encoder.layer",
    modules: bert::MODULES,
    otherwise: None,
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let spec = read_like_bert(fields, NAMES)?;
    let positions = Positions {
        padding_id: padding_id(fields)?,
        ..spec.positions
    };
    Ok(EncoderSpec { positions, ..spec })
}
