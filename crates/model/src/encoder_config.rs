//! An [`EncoderSpec`] from a checkpoint: its config.json, and the prefix of its tensors' names.

use crate::config_fields::ConfigFields;
use crate::spec::NameTable;
use crate::{EncoderSpec, ModelError, architectures};
use fewbit_checkpoint::Checkpoint;
use serde_json::Value;
use std::path::Path;

impl EncoderSpec {
    /// Reads config.json and finds the tensor prefix in the checkpoint's names.
    ///
    /// # Errors
    /// As [`EncoderSpec::from_config`], and if no tensor or more than one family of tensors looks like the word
    /// embedding table.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let spec = Self::with_any_prefix(checkpoint)?;
        if !["", spec.names.base_prefix].contains(&spec.prefix.as_str()) {
            tracing::warn!(
                "{}: names of tensors begin with `{}`, where transformers expects `{}` or nothing: they are read, but transformers would \
                 run this model, and what is written of it, with random weights; save it without what wraps the model (for DataParallel: \
                 model.module.save_pretrained(OUT))",
                checkpoint.directory().display(),
                spec.prefix,
                spec.names.base_prefix,
            );
        }
        Ok(spec)
    }

    /// [`EncoderSpec::from_checkpoint`] without a warning about a prefix that transformers does not expect.
    pub(crate) fn with_any_prefix(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        if !checkpoint.has_config() {
            return Err(checkpoint.missing_config().into());
        }
        let file = checkpoint.config_file();
        let mut spec = Self::from_config(checkpoint.config(), &file)?;
        spec.prefix = find_prefix(checkpoint, &spec.names)?;
        if let Some(otherwise) = spec.names.otherwise
            && has_layers(checkpoint, &spec.prefix, otherwise)
            && !has_layers(checkpoint, &spec.prefix, &spec.names)
        {
            spec.names = *otherwise;
        }
        Ok(spec)
    }

    /// Reads a parsed config.json; `file` is named in errors. The prefix stays empty.
    ///
    /// Fields that are absent take the default of transformers. Fields that do not change the hidden states (dropout,
    /// initializer_range, use_cache, id2label …) are ignored.
    ///
    /// # Errors
    /// [`ModelError::Config`]: `model_type` is missing or not among [`architectures::MODEL_TYPES`]; a value is
    /// impossible; or a field asks for mathematics that the executor does not have.
    pub fn from_config(config: &Value, file: &Path) -> Result<Self, ModelError> {
        architectures::read(&ConfigFields::new(file, config))
    }
}

/// Whether the checkpoint has tensors in layers as `names` calls them.
fn has_layers(checkpoint: &Checkpoint, prefix: &str, names: &NameTable) -> bool {
    let start = format!("{prefix}{}.", names.layers);
    checkpoint
        .tensors()
        .any(|tensor| tensor.name.starts_with(&start))
}

/// What stands before the word embedding table's module path in the checkpoint's names.
///
/// With several candidates (a student and its teacher in one file) the family's own prefix wins, then none.
fn find_prefix(checkpoint: &Checkpoint, names: &NameTable) -> Result<String, ModelError> {
    let needle = format!("{}.", names.word_embeddings());
    let mut prefixes: Vec<&str> = Vec::new();
    for tensor in checkpoint.tensors() {
        let Some(at) = tensor.name.find(&needle) else {
            continue;
        };
        let prefix = &tensor.name[..at];
        if (prefix.is_empty() || prefix.ends_with('.')) && !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    match prefixes.as_slice() {
        [] => {
            let prefixed = checkpoint
                .tensors()
                .any(|tensor| tensor.name.starts_with(names.base_prefix));
            let prefix = if prefixed { names.base_prefix } else { "" };
            let tensor = format!("{prefix}{}.weight", names.word_embeddings());
            Err(checkpoint.require(&tensor).err().map_or_else(
                || {
                    ModelError::Input(format!(
                        "tensor `{tensor}` appeared while the checkpoint was open"
                    ))
                },
                ModelError::from,
            ))
        }
        [only] => Ok((*only).to_owned()),
        several => [names.base_prefix, ""]
            .into_iter()
            .find(|preferred| several.contains(preferred))
            .map(str::to_owned)
            .ok_or_else(|| ModelError::Config {
                file: checkpoint.config_file(),
                field: "model_type".to_owned(),
                message: format!(
                    "expected one encoder in the checkpoint, found {}: prefixes {}",
                    several.len(),
                    several
                        .iter()
                        .map(|prefix| format!("`{prefix}`"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
                hint: format!(
                    "keep only the tensors of one encoder, or name it `{}`",
                    names.base_prefix
                ),
            }),
    }
}
