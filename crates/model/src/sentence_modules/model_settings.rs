//! The settings of a whole sentence-transformers model, `config_sentence_transformers.json`.
//!
//! sentence-transformers looks up the fields that it knows and passes over the others; so does fewbit, with a warning.

use crate::ModelError;
use crate::json_file::read_object;
use crate::spec::config_fields::ConfigFields;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Prompts that every model has, empty unless the file has others.
const DEFAULT_PROMPTS: &[&str] = &["query", "document"];

/// Fields that change no embedding: `similarity_fn_name` says how embeddings are best compared.
const WITHOUT_EFFECT: &[&str] = &["__version__", "requirements", "similarity_fn_name"];

/// What changes embeddings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ModelSettings {
    pub(super) file: PathBuf,
    /// Put before every text.
    pub(super) prompt: String,
    /// Columns that are kept of an embedding, after everything else.
    pub(super) truncate_dim: Option<usize>,
}

impl ModelSettings {
    /// Reads the settings in `directory`; the defaults if there are none.
    pub(super) fn read(directory: &Path) -> Result<Self, ModelError> {
        let file = directory.join("config_sentence_transformers.json");
        let mut settings = Self {
            file: file.clone(),
            ..Self::default()
        };
        let Some(value) = read_object(&file)? else {
            return Ok(settings);
        };
        let fields = ConfigFields::new(&file, &value);
        for (field, found) in value.as_object().into_iter().flatten() {
            match field.as_str() {
                _ if found.is_null() => {}
                "prompts" => {}
                "default_prompt_name" => settings.prompt = default_prompt(&fields, found)?,
                "truncate_dim" => {
                    settings.truncate_dim = Some(fields.size(field, 0, 1, 1 << 24)?);
                }
                "model_type" if found != "SentenceTransformer" => {
                    let hint = "fewbit gives one embedding a text; the modules of another kind of model mean something else";
                    return Err(fields.unsupported(field, "\"SentenceTransformer\"", found, hint));
                }
                "model_type" => {}
                _ if WITHOUT_EFFECT.contains(&field.as_str()) => {}
                _ => tracing::warn!(
                    "{}: `{field}` is not known and passed over, as sentence-transformers 6.2 does",
                    file.display()
                ),
            }
        }
        Ok(settings)
    }
}

/// The prompt that the settings in `directory` have under `name`.
pub(crate) fn prompt_named(directory: &Path, name: &str) -> Result<String, ModelError> {
    let file = directory.join("config_sentence_transformers.json");
    let value = read_object(&file)?.unwrap_or(Value::Null);
    let prompts = value["prompts"].as_object();
    if let Some(Value::String(prompt)) = prompts.and_then(|prompts| prompts.get(name)) {
        return Ok(prompt.clone());
    }
    let names: Vec<String> = prompts
        .into_iter()
        .flatten()
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    Err(ModelError::Config {
        file,
        field: "prompts".to_owned(),
        message: format!(
            "expected a prompt named `{name}`, found {}",
            if names.is_empty() {
                "no prompts".to_owned()
            } else {
                names.join(", ")
            }
        ),
        hint: if names.is_empty() {
            "give the text of the prompt with --prompt"
        } else {
            "name one of these with --prompt-name, or give the text with --prompt"
        }
        .to_owned(),
    })
}

fn default_prompt(fields: &ConfigFields<'_>, name: &Value) -> Result<String, ModelError> {
    let prompts = fields.get("prompts").unwrap_or(&Value::Null);
    let prompt = name.as_str().and_then(|name| match &prompts[name] {
        Value::String(prompt) => Some(prompt.clone()),
        // Null stands for an empty prompt.
        Value::Null if DEFAULT_PROMPTS.contains(&name) || prompts.get(name).is_some() => {
            Some(String::new())
        }
        _ => None,
    });
    prompt.ok_or_else(|| {
        let expected = "expected the name of one of `prompts`";
        fields.invalid("default_prompt_name", expected, name)
    })
}
