//! The fields of config.json that families share, with the most that each of them may be.

use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::spec::{
    Biases, EmbeddingsProjection, EncoderSpec, NameTable, NormPlacement, NormSpec, Positions,
};
use fewbit_kernels::Activation;
use serde_json::Value;

pub(super) const MAX_VOCABULARY: usize = 1 << 24;
pub(super) const MAX_POSITIONS: usize = 1 << 24;
pub(super) const MAX_WIDTH: usize = 1 << 18;
pub(super) const MAX_LAYERS: usize = 1 << 12;

/// The sizes that every family has.
pub(super) struct Sizes {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) intermediate_size: usize,
    pub(super) positions: usize,
}

impl Sizes {
    /// Those of config.json under the names that most families have; `self` has those of a file without them.
    pub(super) fn read(self, fields: &ConfigFields<'_>) -> Result<Self, ModelError> {
        let size = |field, default, most| fields.size(field, default, 1, most);
        Ok(Self {
            vocab_size: size("vocab_size", self.vocab_size, MAX_VOCABULARY)?,
            hidden_size: size("hidden_size", self.hidden_size, MAX_WIDTH)?,
            layers: size("num_hidden_layers", self.layers, MAX_LAYERS)?,
            heads: size("num_attention_heads", self.heads, MAX_WIDTH)?,
            intermediate_size: size("intermediate_size", self.intermediate_size, MAX_WIDTH)?,
            positions: size("max_position_embeddings", self.positions, MAX_POSITIONS)?,
        })
    }

    /// A spec in which all else is as in BERT without token types: what a family has otherwise, it sets.
    pub(super) fn spec(
        self,
        fields: &ConfigFields<'_>,
        names: NameTable,
        activation: Activation,
        norm: NormSpec,
    ) -> Result<EncoderSpec, ModelError> {
        let head_size = self.hidden_size / self.heads;
        Ok(EncoderSpec {
            model_type: fields.string("model_type", "")?.to_owned(),
            prefix: String::new(),
            vocab_size: self.vocab_size,
            embedding_size: self.hidden_size,
            hidden_size: self.hidden_size,
            layers: self.layers,
            heads: self.heads,
            key_value_heads: self.heads,
            head_size,
            intermediate_size: self.intermediate_size,
            activation,
            norms: NormPlacement::After,
            norm,
            biases: Biases::ALL,
            positions: Positions {
                count: self.positions,
                padding_id: None,
            },
            token_types: 0,
            embedding_scale: 1.0,
            score_scale: score_scale(head_size),
            causal: false,
            layer_groups: None,
            embeddings_projection: EmbeddingsProjection::AfterNormIfNarrower,
            relative_attention: None,
            disentangled: None,
            convolution: None,
            rotary: None,
            local_attention: None,
            names,
        })
    }
}

/// What scores of heads of so many columns are multiplied by.
pub(super) fn score_scale(head_size: usize) -> f32 {
    1.0 / (head_size as f32).sqrt()
}

/// The fields that BERT's configuration has and most families took over; defaults are those of transformers.
pub(super) fn read_like_bert(
    fields: &ConfigFields<'_>,
    names: NameTable,
) -> Result<EncoderSpec, ModelError> {
    read_like_bert_of(fields, names, BERT_SIZES)
}

/// The sizes of a BERT without fields.
pub(super) const BERT_SIZES: Sizes = Sizes {
    vocab_size: 30522,
    hidden_size: 768,
    layers: 12,
    heads: 12,
    intermediate_size: 3072,
    positions: 512,
};

/// [`read_like_bert`] with other sizes where config.json does not say them.
pub(super) fn read_like_bert_of(
    fields: &ConfigFields<'_>,
    names: NameTable,
    sizes: Sizes,
) -> Result<EncoderSpec, ModelError> {
    let norm = NormSpec::layer(fields.fraction("layer_norm_eps", 1e-12)?);
    let spec = sizes
        .read(fields)?
        .spec(fields, names, activation(fields, "hidden_act")?, norm)?;
    Ok(EncoderSpec {
        token_types: fields.size("type_vocab_size", 2, 0, MAX_VOCABULARY)?,
        ..spec
    })
}

/// Names of activation functions as transformers spells them; default "gelu".
pub(crate) fn activation(fields: &ConfigFields<'_>, field: &str) -> Result<Activation, ModelError> {
    activation_or(fields, field, "gelu")
}

/// [`activation`] with the default of a family.
pub(super) fn activation_or(
    fields: &ConfigFields<'_>,
    field: &str,
    default: &str,
) -> Result<Activation, ModelError> {
    match fields.string(field, default)? {
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
