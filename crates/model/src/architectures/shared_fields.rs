//! The fields of config.json that families share, with the most that each of them may be.

use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::spec::{Biases, EncoderSpec, NameTable, NormPlacement, Positions};
use fewbit_kernels::Activation;
use serde_json::Value;

pub(super) const MAX_VOCABULARY: usize = 1 << 24;
pub(super) const MAX_POSITIONS: usize = 1 << 24;
pub(super) const MAX_WIDTH: usize = 1 << 18;
pub(super) const MAX_LAYERS: usize = 1 << 12;

/// The fields that BERT's configuration has and most families took over; defaults are those of transformers.
pub(super) fn read_like_bert(
    fields: &ConfigFields<'_>,
    names: NameTable,
) -> Result<EncoderSpec, ModelError> {
    let hidden_size = fields.size("hidden_size", 768, 1, MAX_WIDTH)?;
    Ok(EncoderSpec {
        model_type: fields.string("model_type", "")?.to_owned(),
        prefix: String::new(),
        vocab_size: fields.size("vocab_size", 30522, 1, MAX_VOCABULARY)?,
        embedding_size: hidden_size,
        hidden_size,
        layers: fields.size("num_hidden_layers", 12, 1, MAX_LAYERS)?,
        heads: fields.size("num_attention_heads", 12, 1, MAX_WIDTH)?,
        intermediate_size: fields.size("intermediate_size", 3072, 1, MAX_WIDTH)?,
        activation: activation(fields, "hidden_act")?,
        norms: NormPlacement::After,
        biases: Biases::ALL,
        layer_norm_epsilon: fields.fraction("layer_norm_eps", 1e-12)?,
        positions: Positions {
            count: fields.size("max_position_embeddings", 512, 1, MAX_POSITIONS)?,
            padding_id: None,
        },
        token_types: fields.size("type_vocab_size", 2, 0, MAX_VOCABULARY)?,
        relative_attention: None,
        rotary: None,
        local_attention: None,
        names,
    })
}

/// Names of activation functions as transformers spells them; default "gelu".
pub(crate) fn activation(fields: &ConfigFields<'_>, field: &str) -> Result<Activation, ModelError> {
    match fields.string(field, "gelu")? {
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh" => Ok(Activation::GeluTanh),
        "quick_gelu" => Ok(Activation::QuickGelu),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        "tanh" => Ok(Activation::Tanh),
        "linear" => Ok(Activation::Identity),
        other => Err(fields.unsupported(
            field,
            "one of gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, relu, silu, tanh, linear",
            &Value::from(other),
            "the activation function changes every hidden state, so there is no substitute",
        )),
    }
}

/// `pad_token_id` of families that count positions from it on.
pub(super) fn padding_id(fields: &ConfigFields<'_>) -> Result<Option<u32>, ModelError> {
    let padding_id = fields.size("pad_token_id", 1, 0, MAX_POSITIONS)?;
    Ok(u32::try_from(padding_id).ok())
}
