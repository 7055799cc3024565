//! The settings of a whole sentence-transformers model, `config_sentence_transformers.json`.
//!
//! sentence-transformers looks up the fields that it knows and passes over the others; so does fewbit, with a warning.

use super::prompts::Prompts;
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::json_file::read_object;
use std::path::{Path, PathBuf};

/// The file's name.
const FILE: &str = "config_sentence_transformers.json";

/// Fields that change no embedding: `similarity_fn_name` says how embeddings are best compared.
const WITHOUT_EFFECT: &[&str] = &["__version__", "requirements", "similarity_fn_name"];

/// The settings that change embeddings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelSettings {
    pub(super) file: PathBuf,
    pub(super) prompts: Prompts,
    /// Put before every text unless another is asked for.
    pub(super) prompt: String,
    /// Columns that are kept of an embedding, after everything else.
    pub(super) truncate_dim: Option<usize>,
    /// Values that are kept of a sparse embedding, the largest.
    pub(super) max_active_dims: Option<usize>,
}

impl ModelSettings {
    /// The settings of a model in `directory` that has no such file.
    pub(super) fn default_in(directory: &Path) -> Self {
        let file = directory.join(FILE);
        Self {
            prompts: Prompts::of_every_model(&file),
            file,
            prompt: String::new(),
            truncate_dim: None,
            max_active_dims: None,
        }
    }

    /// Reads the settings in `directory`; the defaults if there are none. `sparse` says whether the modules give sparse embeddings, which
    /// a model of their own kind has, and which are not cut.
    pub(super) fn read(directory: &Path, sparse: bool) -> Result<Self, ModelError> {
        let mut settings = Self::default_in(directory);
        let file = settings.file.clone();
        let Some(value) = read_object(&file)? else {
            return Ok(settings);
        };
        let fields = ConfigFields::new(&file, &value);
        for (field, found) in value.as_object().into_iter().flatten() {
            match field.as_str() {
                _ if found.is_null() => {}
                "prompts" => settings.prompts.extend(&fields, found)?,
                // Read below: it names one of `prompts`, which may stand behind it.
                "default_prompt_name" => {}
                "model_type" if sparse && found == "SparseEncoder" => {}
                "max_active_dims" if sparse => {
                    settings.max_active_dims = Some(fields.size(field, 0, 1, 1 << 24)?);
                }
                "truncate_dim" if sparse => {
                    let hint = "the columns of a sparse embedding are words; say how many are kept with `max_active_dims`";
                    return Err(fields.unsupported(field, "null", found, hint));
                }
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
        if let Some(name) = fields
            .get("default_prompt_name")
            .filter(|name| !name.is_null())
        {
            let prompt = name.as_str().and_then(|name| settings.prompts.get(name));
            let expected = "expected the name of one of `prompts`";
            let prompt =
                prompt.ok_or_else(|| fields.invalid("default_prompt_name", expected, name))?;
            settings.prompt = prompt.to_owned();
        }
        Ok(settings)
    }
}
