//! The settings of sentence-transformers' Transformer module, `sentence_bert_config.json` and its older names.
//!
//! sentence-transformers passes every field of the file to the module's constructor and fails on one that it does not have. Here
//! a field is honoured, is known to change no embedding, or is an error.

use super::module::no_such_setting;
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::json_file::read_object;
use serde_json::{Map, Value};
use std::path::Path;

/// Names that the file has had, in the order in which they are looked for.
const FILES: &[&str] = &[
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

const MAX_LENGTH: usize = 1 << 24;

/// The settings that change how a text becomes tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TransformerSettings {
    /// Longest input in tokens, special tokens included.
    pub(super) max_seq_length: Option<usize>,
    /// Lowercase texts before the tokenizer sees them.
    pub(super) lowercase: bool,
}

/// What the module gives of each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// Hidden states, which is the default.
    HiddenStates,
    /// Logits of words, for which the settings must ask.
    Logits,
    /// Logits of words, which is the default of the module MLMTransformer.
    LogitsByDefault,
}

impl Output {
    /// The value of `transformer_task`.
    fn task(self) -> &'static str {
        match self {
            Self::HiddenStates => "feature-extraction",
            Self::Logits | Self::LogitsByDefault => "fill-mask",
        }
    }

    /// What is taken of the model's output.
    fn name(self) -> &'static str {
        match self {
            Self::HiddenStates => "last_hidden_state",
            Self::Logits | Self::LogitsByDefault => "logits",
        }
    }
}

/// Fields of the file with nothing to honour: how fast it runs and where files come from.
const WITHOUT_EFFECT: &[&str] = &["cache_dir", "unpad_inputs"];

/// The longest input where a text is embedded for a task, and that task.
const LENGTHS_OF_TASKS: &[(&str, &str)] =
    &[("query_length", "query"), ("document_length", "document")];

/// Arguments of `from_pretrained` that change neither weights nor tokens.
const ARGUMENTS_WITHOUT_EFFECT: &[&str] = &[
    "add_pooling_layer",
    "attn_implementation",
    "cache_dir",
    "clean_up_tokenization_spaces",
    "device_map",
    "dtype",
    "local_files_only",
    "low_cpu_mem_usage",
    "output_attentions",
    "revision",
    "token",
    "torch_dtype",
    "trust_remote_code",
    "use_cache",
    "use_fast",
    "use_safetensors",
];

impl TransformerSettings {
    /// Reads the settings for `task` in `directory`; the defaults if there are none.
    pub(super) fn read(
        directory: &Path,
        task: Option<&str>,
        output: Output,
    ) -> Result<Self, ModelError> {
        for name in FILES {
            let file = directory.join(name);
            if let Some(value) = read_object(&file)? {
                return Self::from_fields(&ConfigFields::new(&file, &value), task, output);
            }
        }
        let file = directory.join(FILES[0]);
        let none = Value::Object(Map::new());
        Self::from_fields(&ConfigFields::new(&file, &none), task, output)
    }

    fn from_fields(
        fields: &ConfigFields<'_>,
        task: Option<&str>,
        output: Output,
    ) -> Result<Self, ModelError> {
        let mut settings = Self::default();
        if output == Output::Logits && fields.get("transformer_task").is_none() {
            require(fields, "transformer_task", &Value::Null, output.task())?;
        }
        for (field, value) in fields.object().as_object().into_iter().flatten() {
            match field.as_str() {
                _ if value.is_null() => {}
                "max_seq_length" => {
                    settings.max_seq_length = Some(fields.size(field, 0, 1, MAX_LENGTH)?);
                }
                "do_lower_case" => settings.lowercase = fields.flag(field, false)?,
                "transformer_task" => require(fields, field, value, output.task())?,
                "module_output_name" => require(fields, field, value, "token_embeddings")?,
                "modality_config" => check_modalities(fields, value, output)?,
                "processing_kwargs" => check_processing(fields, value)?,
                "model_args" | "model_kwargs" | "config_args" | "config_kwargs" => {
                    check_arguments(fields, field, value, &[])?;
                }
                // Read below: they come before `max_seq_length`.
                "tokenizer_args" | "processor_kwargs" | "query_length" | "document_length" => {}
                "query_expansion" if task != Some("query") => {}
                "query_expansion" => {
                    let hint = "fewbit does not fill queries up with tokens; without --task they are embedded as they are";
                    return Err(fields.unsupported(
                        field,
                        "null for the task `query`",
                        value,
                        hint,
                    ));
                }
                _ if WITHOUT_EFFECT.contains(&field.as_str()) => {}
                _ => return Err(no_such_setting(fields, field, value)),
            }
        }
        for field in ["tokenizer_args", "processor_kwargs"] {
            let Some(value) = fields.get(field).filter(|value| !value.is_null()) else {
                continue;
            };
            let right = [("padding_side", "right"), ("truncation_side", "right")];
            check_arguments(fields, field, value, &right)?;
            if value
                .get("model_max_length")
                .is_some_and(|length| !length.is_null())
            {
                let length = ConfigFields::new(fields.file(), value);
                settings.max_seq_length =
                    Some(length.size("model_max_length", 0, 1, MAX_LENGTH)?);
            }
        }
        for (field, of_task) in LENGTHS_OF_TASKS {
            if task == Some(of_task) && fields.get(field).is_some_and(|value| !value.is_null()) {
                settings.max_seq_length = Some(fields.size(field, 0, 1, MAX_LENGTH)?);
            }
        }
        Ok(settings)
    }
}

const OTHER_STATES: &str =
    "fewbit gives the last hidden states of texts only, or logits of words to SpladePooling";

fn require(
    fields: &ConfigFields<'_>,
    field: &str,
    found: &Value,
    supported: &str,
) -> Result<(), ModelError> {
    if found == supported {
        return Ok(());
    }
    Err(fields.unsupported(field, &format!("\"{supported}\""), found, OTHER_STATES))
}

/// Texts must be plain input of `forward`, of which `output` is taken. (Where messages are known, texts become messages.)
fn check_modalities(
    fields: &ConfigFields<'_>,
    value: &Value,
    output: Output,
) -> Result<(), ModelError> {
    let text = &value["text"];
    let found = &text["method_output_name"];
    let plain = found == output.name()
        || found
            .as_array()
            .is_some_and(|path| path.len() == 1 && path[0] == output.name());
    if text.is_object() && !plain {
        let supported = format!("\"{}\"", output.name());
        return Err(fields.unsupported("modality_config", &supported, found, OTHER_STATES));
    }
    if text["method"] != "forward" || value.get("message").is_some() {
        let supported = "texts, and no messages, as input of \"forward\"";
        return Err(fields.unsupported("modality_config", supported, value, OTHER_STATES));
    }
    Ok(())
}

/// Options of the tokenizer's call, by modality: only what fewbit does anyway.
fn check_processing(fields: &ConfigFields<'_>, value: &Value) -> Result<(), ModelError> {
    let Some(modalities) = value.as_object() else {
        return Err(fields.invalid("processing_kwargs", "expected an object", value));
    };
    for (modality, options) in modalities {
        if !["text", "common"].contains(&modality.as_str()) {
            continue;
        }
        for (option, found) in options.as_object().into_iter().flatten() {
            let usual = match option.as_str() {
                "padding" => found == true || found == "longest",
                "truncation" => found == true || found == "longest_first",
                "return_tensors" => true,
                _ => false,
            };
            if !usual {
                let field = format!("processing_kwargs.{modality}.{option}");
                let hint = "say the longest input with `max_seq_length`; other options of the tokenizer are not honoured";
                return Err(fields.unsupported(
                    &field,
                    "padding and truncation as usual",
                    found,
                    hint,
                ));
            }
        }
    }
    Ok(())
}

/// Arguments of `from_pretrained`; `usual` are those with a value that fewbit has anyway.
fn check_arguments(
    fields: &ConfigFields<'_>,
    field: &str,
    value: &Value,
    usual: &[(&str, &str)],
) -> Result<(), ModelError> {
    let Some(arguments) = value.as_object() else {
        return Err(fields.invalid(field, "expected an object", value));
    };
    let tokenizer = !usual.is_empty();
    for (argument, found) in arguments {
        let harmless = found.is_null()
            || ARGUMENTS_WITHOUT_EFFECT.contains(&argument.as_str())
            || usual
                .iter()
                .any(|(name, value)| argument == name && found == value)
            || (tokenizer && argument == "model_max_length");
        if !harmless {
            let hint = "it would change the model or its tokens: set the value in config.json or tokenizer_config.json instead";
            let field = format!("{field}.{argument}");
            return Err(fields.unsupported(&field, "no such argument", found, hint));
        }
    }
    Ok(())
}
