//! Families of encoders: which fields of config.json they have, and what their tensors are called.
//!
//! A new family is a file here: a `read` function and a [`NameTable`](crate::spec::NameTable), and a line in `read` and [`MODEL_TYPES`] below.

mod albert;
mod bert;
mod deberta;
mod deberta_v2;
mod decoder;
mod disentangled_fields;
mod distilbert;
mod electra;
mod gemma3;
mod gte;
mod jina_embeddings_v3;
mod layer_types;
mod modernbert;
mod mpnet;
mod nomic_bert;
mod roberta;
mod rotary_positions;
mod shared_fields;

use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::spec::EncoderSpec;
use serde_json::Value;
pub(crate) use shared_fields::activation;

/// Values of `model_type` in config.json that are known.
pub const MODEL_TYPES: &[&str] = &[
    "albert",
    "bert",
    "camembert",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "eurobert",
    "gemma3_text",
    "gte",
    "jina_embeddings_v3",
    "llama",
    "mistral",
    "modernbert",
    "mpnet",
    "new",
    "nomic_bert",
    "qwen2",
    "qwen3",
    "roberta",
    "xlm-roberta",
];

/// Families that look up a type for every token: without a row for it they do not run in transformers either, and leaving the types of the
/// checkpoint out would give other states.
const NEED_TOKEN_TYPES: [&str; 7] = [
    "albert",
    "bert",
    "camembert",
    "electra",
    "jina_embeddings_v3",
    "roberta",
    "xlm-roberta",
];

/// Classes that model directories bring along and that are known here, with their `model_type` and the name of their Python file.
const KNOWN_CLASSES: [(&str, &str, &str); 2] = [
    ("new", "modeling", "New"),
    ("nomic_bert", "modeling_hf_nomic_bert", "NomicBert"),
];

/// Whether config.json describes a model of these families, defined by their own code.
pub(crate) fn is_known(config: &Value) -> bool {
    let model_type = config["model_type"].as_str();
    model_type.is_some_and(|model_type| MODEL_TYPES.contains(&model_type))
        && model_class_of_its_own(config).is_none()
}

/// Whether the model is loaded by code that it brings along, which knows its tensors under the names of its files.
pub(crate) fn has_code_of_its_own(config: &Value) -> bool {
    let classes = config["auto_map"].as_object();
    let is_mapped =
        classes.is_some_and(|classes| classes.keys().any(|class| class.starts_with("AutoModel")));
    // transformers has no such model.
    is_mapped || config["model_type"] == "new"
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
        Some("albert") => albert::read(fields),
        Some("bert") => bert::read(fields),
        Some("roberta" | "xlm-roberta" | "camembert") => roberta::read(fields),
        Some("deberta") => deberta::read(fields),
        Some("deberta-v2") => deberta_v2::read(fields),
        Some("distilbert") => distilbert::read(fields),
        Some("electra") => electra::read(fields),
        Some("eurobert" | "llama" | "mistral" | "qwen2" | "qwen3") => decoder::read(fields),
        Some("gemma3_text") => gemma3::read(fields),
        Some("gte" | "new") => gte::read(fields),
        Some("jina_embeddings_v3") => jina_embeddings_v3::read(fields),
        Some("modernbert") => modernbert::read(fields),
        Some("mpnet") => mpnet::read(fields),
        Some("nomic_bert") => nomic_bert::read(fields),
        _ => return Err(fields.error("model_type", format!("{}, found {found}", known()), hint)),
    }?;
    if spec.token_types == 0 && NEED_TOKEN_TYPES.contains(&spec.model_type.as_str()) {
        return Err(fields.error(
            "type_vocab_size",
            "expected at least 1, found 0",
            "set it to the number of rows of the checkpoint's token_type_embeddings",
        ));
    }
    refuse_other_mathematics(fields, &spec)?;
    // A family whose files say the size of a head need not divide the width among heads.
    if spec.hidden_size % spec.heads != 0 && spec.head_size == spec.hidden_size / spec.heads {
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
    if spec.heads % spec.key_value_heads != 0 {
        return Err(fields.error(
            "num_key_value_heads",
            format!(
                "expected a divisor of `num_attention_heads` {}, found {}",
                spec.heads, spec.key_value_heads
            ),
            "correct config.json or fetch it again",
        ));
    }
    if spec.rotary.is_some() && spec.head_size % 2 != 0 {
        let says_size = fields.get("head_dim").is_some_and(Value::is_number);
        return Err(fields.error(
            if says_size {
                "head_dim"
            } else {
                "num_attention_heads"
            },
            format!(
                "expected heads of an even number of features, found {} of {}",
                spec.heads, spec.head_size
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
fn refuse_other_mathematics(
    fields: &ConfigFields<'_>,
    spec: &EncoderSpec,
) -> Result<(), ModelError> {
    if let Some(found) = fields
        .get("position_embedding_type")
        .filter(|found| !found.is_null())
        && found != "absolute"
        && (spec.rotary.is_none()
            || !["rope", "rotary"].contains(&found.as_str().unwrap_or_default()))
    {
        let hint = "relative position keys are not implemented";
        return Err(fields.unsupported("position_embedding_type", "\"absolute\"", found, hint));
    }
    for field in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
        if fields.flag(field, false)? && !(spec.causal && field == "is_decoder") {
            let hint = "cross attention and generation are not implemented; a model is run once over a whole text";
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

/// The class in `auto_map` that the model is of, if it is not known.
fn model_class_of_its_own(config: &Value) -> Option<(&String, &Value)> {
    let mut classes = config["auto_map"].as_object()?.iter();
    let model_type = config["model_type"].as_str().unwrap_or_default();
    classes.find(|(class, path)| {
        class.starts_with("AutoModel")
            && !is_known_class(model_type, path.as_str().unwrap_or_default())
    })
}

/// Whether `path` (`modeling.NewModel`, or with the repository that the file is in, `owner/name--modeling.NewModel`) is a class of
/// [`KNOWN_CLASSES`].
fn is_known_class(model_type: &str, path: &str) -> bool {
    let (_, path) = path.rsplit_once("--").unwrap_or(("", path));
    KNOWN_CLASSES.iter().any(|(known, file, class)| {
        let found = path.split_once('.');
        *known == model_type
            && found.is_some_and(|(module, name)| module == *file && name.starts_with(class))
    })
}
