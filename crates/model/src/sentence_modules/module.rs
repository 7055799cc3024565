//! One module that sentence-transformers runs after the encoder, as its files describe it.

use super::dense::DenseSettings;
use super::module_list::{ModuleClass, NamedModule};
use super::splade::SpladeSettings;
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::json_file::read_object;
use crate::pooling::Pooling;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The file of a module's settings.
pub(super) const CONFIG_FILE: &str = "config.json";

/// The largest width of a vector.
pub(super) const MAX_WIDTH: usize = 1 << 24;

/// What a module reads and writes, by its name in sentence-transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// One vector for each token.
    TokenEmbeddings,
    /// One vector for each text; there from the first pooling on.
    SentenceEmbedding,
}

impl Feature {
    pub(crate) const ALL: [Self; 2] = [Self::TokenEmbeddings, Self::SentenceEmbedding];

    /// Its name in sentence-transformers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TokenEmbeddings => "token_embeddings",
            Self::SentenceEmbedding => "sentence_embedding",
        }
    }

    /// Reads `module_input_name` and `module_output_name`, which must be the same: what a module writes elsewhere, no other reads.
    pub(super) fn read(fields: &ConfigFields<'_>) -> Result<Self, ModelError> {
        let known = |field: &str, found: &Value| {
            let feature = Self::ALL.into_iter().find(|one| found == one.name());
            feature.ok_or_else(|| {
                let supported = Self::ALL.map(|one| format!("\"{}\"", one.name()));
                let hint = "fewbit keeps one vector for each token and one for each text";
                fields.unsupported(field, &supported.join(" or "), found, hint)
            })
        };
        let input = match fields.get("module_input_name") {
            None => Self::SentenceEmbedding,
            Some(found) => known("module_input_name", found)?,
        };
        match fields.get("module_output_name") {
            None | Some(Value::Null) => Ok(input),
            Some(found) if known("module_output_name", found)? == input => Ok(input),
            Some(found) => Err(fields.unsupported(
                "module_output_name",
                &format!("\"{}\", which is read", input.name()),
                found,
                "fewbit runs modules that write what they read",
            )),
        }
    }
}

/// A module after the encoder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SentenceModule {
    /// From the vectors of tokens to one of the text.
    Pooling(PoolingSettings),
    /// From the logits of words for each token to a vector of words for the text.
    Splade(SpladeSettings),
    /// A linear layer with an activation function.
    Dense(DenseSettings),
    /// A layer normalization of the text's vector.
    LayerNorm {
        /// The folder of its weights.
        folder: PathBuf,
        dimension: usize,
    },
    /// L2 normalization.
    Normalize(Feature),
    /// Does nothing where a model is only run.
    Dropout,
}

/// How vectors of tokens become one of the text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PoolingSettings {
    pub(crate) pooling: Pooling,
    /// Whether the prompt's tokens are left out.
    pub(crate) without_prompt: bool,
    /// The width of a token's vector that the configuration names, and that file.
    pub(crate) width: Option<(PathBuf, u64)>,
}

impl SentenceModule {
    /// Whether it reads the vectors of tokens.
    pub(super) fn reads_tokens(&self) -> bool {
        match self {
            Self::Pooling(_) | Self::Splade(_) => true,
            Self::Dense(dense) => dense.feature == Feature::TokenEmbeddings,
            Self::Normalize(feature) => *feature == Feature::TokenEmbeddings,
            Self::LayerNorm { .. } | Self::Dropout => false,
        }
    }

    /// Reads the settings of `module`; none for one that is not run after the encoder.
    pub(super) fn read(module: &NamedModule) -> Result<Option<Self>, ModelError> {
        let file = module.folder.join(CONFIG_FILE);
        Ok(Some(match module.class {
            ModuleClass::Transformer | ModuleClass::MlmTransformer | ModuleClass::Router => {
                return Ok(None);
            }
            ModuleClass::SpladePooling => {
                let value = read_object(&file)?.unwrap_or_else(|| json!({}));
                Self::Splade(SpladeSettings::read(&ConfigFields::new(&file, &value))?)
            }
            ModuleClass::Pooling => {
                let value = required(module, &file)?;
                Self::Pooling(PoolingSettings::read(&ConfigFields::new(&file, &value))?)
            }
            ModuleClass::Dense => {
                let value = required(module, &file)?;
                let fields = ConfigFields::new(&file, &value);
                Self::Dense(DenseSettings::read(&module.folder, &fields)?)
            }
            ModuleClass::LayerNorm => {
                let value = required(module, &file)?;
                let fields = ConfigFields::new(&file, &value);
                refuse_unknown(&fields, &["dimension"])?;
                Self::LayerNorm {
                    folder: module.folder.clone(),
                    dimension: required_size(&fields, "dimension")?,
                }
            }
            ModuleClass::Normalize => Self::Normalize(match read_object(&file)? {
                None => Feature::SentenceEmbedding,
                Some(value) => Feature::read(&ConfigFields::new(&file, &value))?,
            }),
            ModuleClass::Dropout => {
                let value = read_object(&file)?.unwrap_or_else(|| json!({}));
                let fields = ConfigFields::new(&file, &value);
                refuse_unknown(&fields, &["dropout"])?;
                if let Some(found) = fields.get("dropout")
                    && !found.as_f64().is_some_and(|p| (0.0..=1.0).contains(&p))
                {
                    return Err(fields.invalid("dropout", "expected a number from 0 to 1", found));
                }
                Self::Dropout
            }
        }))
    }

    /// Its name in sentence-transformers.
    pub(crate) fn class(&self) -> &'static str {
        let class = match self {
            Self::Pooling(_) => ModuleClass::Pooling,
            Self::Splade(_) => ModuleClass::SpladePooling,
            Self::Dense(_) => ModuleClass::Dense,
            Self::LayerNorm { .. } => ModuleClass::LayerNorm,
            Self::Normalize(_) => ModuleClass::Normalize,
            Self::Dropout => ModuleClass::Dropout,
        };
        class.name()
    }

    /// Whether it changes the text's vector, which must be there.
    pub(super) fn needs_sentence_embedding(&self) -> bool {
        match self {
            Self::Dense(dense) => dense.feature == Feature::SentenceEmbedding,
            Self::LayerNorm { .. } | Self::Dropout => true,
            Self::Pooling(_) | Self::Splade(_) | Self::Normalize(_) => false,
        }
    }
}

impl PoolingSettings {
    fn read(fields: &ConfigFields<'_>) -> Result<Self, ModelError> {
        let width = Pooling::width_of(fields)?;
        Ok(Self {
            pooling: Pooling::from_config(fields)?,
            without_prompt: !fields.flag("include_prompt", true)?,
            width: width.map(|width| (fields.file().to_owned(), width)),
        })
    }
}

/// The settings of a module that cannot do without.
fn required(module: &NamedModule, file: &Path) -> Result<Value, ModelError> {
    read_object(file)?.ok_or_else(|| {
        let message = format!("expected a file {}, found none", file.display());
        module.error_of_folder(message)
    })
}

/// A field that must be there, a whole number from 1 on.
pub(super) fn required_size(fields: &ConfigFields<'_>, field: &str) -> Result<usize, ModelError> {
    if fields.get(field).is_none() {
        let expected = format!("expected a whole number from 1 to {MAX_WIDTH}");
        return Err(fields.invalid(field, &expected, &Value::Null));
    }
    fields.size(field, 0, 1, MAX_WIDTH)
}

/// sentence-transformers passes every field to the module's constructor, which fails over one that it does not have.
pub(super) fn refuse_unknown(fields: &ConfigFields<'_>, known: &[&str]) -> Result<(), ModelError> {
    match fields.unknown(|name| known.contains(&name)) {
        None => Ok(()),
        Some((name, found)) => Err(no_such_setting(fields, name, found)),
    }
}

/// The error for a field that a module's constructor does not have.
pub(crate) fn no_such_setting(fields: &ConfigFields<'_>, field: &str, found: &Value) -> ModelError {
    let hint = "sentence-transformers 6.2 has no such setting and does not load the file; if the field does nothing, take it out";
    fields.unsupported(field, "no such field", found, hint)
}
