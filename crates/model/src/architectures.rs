//! Families of encoders: which fields of config.json they have, and what their tensors are called.
//!
//! A new family is a file here: a `read` function and a [`NameTable`], and a line in `read` and [`MODEL_TYPES`] below.

mod bert;
mod distilbert;
mod electra;
mod layer_types;
mod modernbert;
mod mpnet;
mod roberta;
mod rotary_positions;

use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::spec::{Biases, EncoderSpec, NameTable, NormPlacement, Positions};
use fewbit_kernels::Activation;
use serde_json::Value;

/// Values of `model_type` in config.json that are known.
pub const MODEL_TYPES: &[&str] = &[
    "bert",
    "camembert",
    "distilbert",
    "electra",
    "modernbert",
    "mpnet",
    "roberta",
    "xlm-roberta",
];

const MAX_VOCABULARY: usize = 1 << 24;
const MAX_POSITIONS: usize = 1 << 24;
const MAX_WIDTH: usize = 1 << 18;
const MAX_LAYERS: usize = 1 << 12;

/// Whether config.json describes a model of these families, defined by their own code.
pub(crate) fn is_known(config: &Value) -> bool {
    let model_type = config["model_type"].as_str();
    model_type.is_some_and(|model_type| MODEL_TYPES.contains(&model_type))
        && model_class_of_its_own(config).is_none()
}

pub(crate) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let known = || format!("expected one of {}", MODEL_TYPES.join(", "));
    let hint = "fewbit runs encoders of these families; of any other model it converts weights alone (fp16, bf16, weight-only, nf4, fp4)";
    let Some(found) = fields.get("model_type") else {
        return Err(fields.error(
            "model_type",
            format!("{}, found no such field", known()),
            hint,
        ));
    };
    let spec = match found.as_str() {
        Some("bert") => bert::read(fields),
        Some("roberta" | "xlm-roberta" | "camembert") => roberta::read(fields),
        Some("distilbert") => distilbert::read(fields),
        Some("electra") => electra::read(fields),
        Some("modernbert") => modernbert::read(fields),
        Some("mpnet") => mpnet::read(fields),
        _ => return Err(fields.error("model_type", format!("{}, found {found}", known()), hint)),
    }?;
    // These look up a type for every token: without a row for it they do not run in transformers either, and leaving the types of
    // the checkpoint out would give other states. (The other families have no types, whatever the field says.)
    if spec.token_types == 0
        && !["distilbert", "modernbert", "mpnet"].contains(&spec.model_type.as_str())
    {
        return Err(fields.error(
            "type_vocab_size",
            "expected at least 1, found 0",
            "set it to the number of rows of the checkpoint's token_type_embeddings",
        ));
    }
    refuse_other_mathematics(fields)?;
    if spec.hidden_size % spec.heads != 0 {
        let (hidden_size, heads) = width_fields(&spec.model_type);
        return Err(fields.error(
            heads,
            format!(
                "expected a divisor of `{hidden_size}` {}, found {}",
                spec.hidden_size, spec.heads
            ),
            "correct config.json or fetch it again",
        ));
    }
    if spec.rotary.is_some() && spec.head_size() % 2 != 0 {
        return Err(fields.error(
            "num_attention_heads",
            format!(
                "expected heads of an even number of features, found {} of {}",
                spec.heads,
                spec.head_size()
            ),
            "rotary positions turn pairs of features",
        ));
    }
    if spec.positions.max_tokens() == 0 {
        return Err(fields.error(
            "max_position_embeddings",
            format!(
                "expected more than `pad_token_id` + 1, found {}",
                spec.positions.count
            ),
            "positions of this family are counted from `pad_token_id` + 1 on",
        ));
    }
    Ok(spec)
}

fn width_fields(model_type: &str) -> (&'static str, &'static str) {
    if model_type == "distilbert" {
        ("dim", "n_heads")
    } else {
        ("hidden_size", "num_attention_heads")
    }
}

/// Fields that any family may carry and that change what the hidden states are.
fn refuse_other_mathematics(fields: &ConfigFields<'_>) -> Result<(), ModelError> {
    if let Some(found) = fields
        .get("position_embedding_type")
        .filter(|found| !found.is_null())
        && found != "absolute"
    {
        let hint = "relative position keys are not implemented; only models trained with absolute positions run";
        return Err(fields.unsupported("position_embedding_type", "\"absolute\"", found, hint));
    }
    for field in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
        if fields.flag(field, false)? {
            let hint = "fewbit runs bidirectional encoders only";
            return Err(fields.unsupported(field, "false", &Value::Bool(true), hint));
        }
    }
    if let Some(found) = fields
        .get("feed_forward_type")
        .filter(|found| !found.is_null())
        && found != "original"
    {
        let hint = "a gated feed-forward has other tensors and other values";
        return Err(fields.unsupported("feed_forward_type", "\"original\"", found, hint));
    }
    refuse_custom_code(fields)?;
    if let Some(found) = fields.get("pruned_heads") {
        let none = match found {
            Value::Null => true,
            Value::Object(layers) => layers
                .values()
                .all(|heads| heads.as_array().is_some_and(Vec::is_empty)),
            Value::Array(heads) => heads.is_empty(),
            _ => false,
        };
        if !none {
            let hint = "attention layers with removed heads have other shapes; use the model before pruning";
            return Err(fields.unsupported("pruned_heads", "{}", found, hint));
        }
    }
    Ok(())
}

/// `auto_map` names classes in Python files beside the model, which compute what no one can know from config.json. A class
/// of the configuration alone does no harm.
fn refuse_custom_code(fields: &ConfigFields<'_>) -> Result<(), ModelError> {
    match fields.get("auto_map") {
        None | Some(Value::Null | Value::Object(_)) => {}
        Some(other) => return Err(fields.invalid("auto_map", "expected an object", other)),
    }
    match model_class_of_its_own(fields.object()) {
        None => Ok(()),
        Some((class, found)) => Err(fields.unsupported(
            &format!("auto_map.{class}"),
            "no model class of its own",
            found,
            "the model is defined by Python code of its own, not by its `model_type`",
        )),
    }
}

/// The class in `auto_map` that the model is of.
fn model_class_of_its_own(config: &Value) -> Option<(&String, &Value)> {
    let mut classes = config["auto_map"].as_object()?.iter();
    classes.find(|(class, _)| class.starts_with("AutoModel"))
}

/// The fields that BERT's configuration has and most families took over; defaults are those of transformers.
fn read_like_bert(fields: &ConfigFields<'_>, names: NameTable) -> Result<EncoderSpec, ModelError> {
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
fn activation(fields: &ConfigFields<'_>, field: &str) -> Result<Activation, ModelError> {
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
fn padding_id(fields: &ConfigFields<'_>) -> Result<Option<u32>, ModelError> {
    let padding_id = fields.size("pad_token_id", 1, 0, MAX_POSITIONS)?;
    Ok(u32::try_from(padding_id).ok())
}
