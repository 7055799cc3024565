//! The files that sentence-transformers puts beside a checkpoint: modules.json and what it points to.

mod model_settings;
mod prompts;
mod transformer_settings;

use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::json_file::{read_json, read_object, type_name};
use crate::pooling::Pooling;
use fewbit_checkpoint::MODULES_FILE;
use model_settings::ModelSettings;
use prompts::Prompts;
use serde_json::Value;
use std::path::{Component, Path, PathBuf};
use transformer_settings::TransformerSettings;

/// Settings of the modules before and after the encoder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SentenceModules {
    /// Directory of config.json, weights and tokenizer.
    pub(crate) transformer: PathBuf,
    pub(crate) pooling: Pooling,
    /// L2-normalize the pooled vector.
    pub(crate) normalize: bool,
    /// Longest input in tokens, special tokens included.
    pub(crate) max_seq_length: Option<usize>,
    /// Lowercase texts before the tokenizer sees them.
    pub(crate) lowercase: bool,
    /// The texts that may be put before every text, by name.
    pub(crate) prompts: Prompts,
    /// Put before every text.
    pub(crate) prompt: String,
    /// Whether the prompt's tokens are pooled.
    pub(crate) include_prompt: bool,
    /// Columns that are kept of an embedding, after everything else.
    pub(crate) truncate_dim: Option<usize>,
    /// The width of the encoder that the pooling configuration names, and that file.
    pub(crate) pooling_width: Option<(PathBuf, u64)>,
}

const MODULE_HINT: &str = "fewbit runs Transformer, Pooling and Normalize; leaving a module out would give other embeddings";

impl SentenceModules {
    /// Reads `directory`. Without modules.json: the encoder is in `directory`, pooling is the mean, nothing is normalized, and other
    /// settings of sentence-transformers are not read, as it does not read them either.
    pub(crate) fn read(directory: &Path) -> Result<Self, ModelError> {
        let settings = ModelSettings::default_in(directory);
        let mut modules = Self {
            transformer: directory.to_owned(),
            pooling: Pooling::default(),
            normalize: false,
            max_seq_length: None,
            lowercase: false,
            prompts: settings.prompts,
            prompt: settings.prompt,
            include_prompt: true,
            truncate_dim: settings.truncate_dim,
            pooling_width: None,
        };
        let file = directory.join(MODULES_FILE);
        let Some(list) = read_json(&file)? else {
            if settings.file.exists() {
                tracing::warn!(
                    "{} is not read, as there is no modules.json beside it: sentence-transformers 6.2 does not read it either",
                    settings.file.display()
                );
            }
            return Ok(modules);
        };
        let include_prompt = modules.read_list(directory, &file, &list)?;
        let transformer = TransformerSettings::read(&modules.transformer)?;
        modules.max_seq_length = transformer.max_seq_length;
        modules.lowercase = transformer.lowercase;
        let settings = ModelSettings::read(directory)?;
        if !include_prompt && !settings.prompt.is_empty() {
            return Err(ModelError::Config {
                file: settings.file,
                field: "default_prompt_name".to_owned(),
                message: "expected no default prompt, because pooling leaves the prompt's tokens out (`include_prompt` is false)"
                    .to_owned(),
                hint: "put the prompt before the texts yourself and set `default_prompt_name` to null; its tokens are then pooled"
                    .to_owned(),
            });
        }
        modules.include_prompt = include_prompt;
        modules.prompts = settings.prompts;
        modules.prompt = settings.prompt;
        modules.truncate_dim = settings.truncate_dim;
        Ok(modules)
    }

    /// Reads every module of `list`, which is in `file`; returns whether pooling includes a prompt's tokens.
    fn read_list(
        &mut self,
        directory: &Path,
        file: &Path,
        list: &Value,
    ) -> Result<bool, ModelError> {
        let Some(entries) = list.as_array() else {
            let message = format!("expected a list of modules, found {}", type_name(list));
            return Err(list_error(file, "modules", message));
        };
        let mut include_prompt = None;
        for (index, entry) in entries.iter().enumerate() {
            refuse_shared_module_name(file, entries, index)?;
            let path = directory.join(module_path(file, list, index)?);
            match (module_class(entry), index) {
                (Some("Transformer"), 0) => self.transformer = path,
                (Some("Pooling"), 1) => {
                    include_prompt = Some(self.read_pooling(file, index, &path)?);
                }
                (Some("Normalize"), _) if include_prompt.is_some() => {
                    check_normalize(&path.join("config.json"))?;
                    self.normalize = true;
                }
                _ => return Err(unexpected_module(file, entry, index)),
            }
        }
        include_prompt.ok_or_else(|| missing_pooling(file, entries))
    }

    /// Takes over the configuration of pooling in the folder `path`; returns whether it includes a prompt's tokens. `index` is that of its
    /// module in the list that `file` holds.
    fn read_pooling(&mut self, file: &Path, index: usize, path: &Path) -> Result<bool, ModelError> {
        let config = path.join("config.json");
        let value = read_object(&config)?.ok_or_else(|| {
            let message = format!("expected a file {}, found none", config.display());
            list_error(file, format!("{index}.path"), message)
        })?;
        let fields = ConfigFields::new(&config, &value);
        self.pooling = Pooling::from_config(&fields)?;
        let include_prompt = fields.flag("include_prompt", true)?;
        let width = Pooling::width_of(&fields)?;
        self.pooling_width = width.map(|width| (config, width));
        Ok(include_prompt)
    }
}

/// An error about the list of modules that `file` holds.
fn list_error(file: &Path, field: impl Into<String>, message: String) -> ModelError {
    ModelError::Config {
        file: file.to_owned(),
        field: field.into(),
        message,
        hint: MODULE_HINT.to_owned(),
    }
}

/// Modules are kept by name: of two with one name, the second would take the place of the first.
fn refuse_shared_module_name(
    file: &Path,
    entries: &[Value],
    index: usize,
) -> Result<(), ModelError> {
    let name = &entries[index]["name"];
    let mut before = entries[..index].iter();
    if name.is_null() || !before.any(|other| other["name"] == *name) {
        return Ok(());
    }
    let message = format!("expected a name of its own for each module, found {name} before");
    Err(list_error(file, format!("{index}.name"), message))
}

/// The class of a module of sentence-transformers, without its package; none for a module of another package.
fn module_class(entry: &Value) -> Option<&str> {
    let name = entry["type"].as_str()?;
    let ours = name.starts_with("sentence_transformers.");
    name.rsplit('.').next().filter(|_| ours)
}

/// The folder of module `index`, inside the model directory.
fn module_path<'l>(file: &Path, list: &'l Value, index: usize) -> Result<&'l Path, ModelError> {
    let found = &list[index]["path"];
    inner_path(found).ok_or_else(|| {
        let expected = "expected \"\" or the path of a folder inside the model directory";
        ConfigFields::new(file, list).invalid(&format!("{index}.path"), expected, found)
    })
}

/// The error of a module that does not belong at its place in the list.
fn unexpected_module(file: &Path, entry: &Value, index: usize) -> ModelError {
    let name = entry["type"].as_str().unwrap_or_default();
    let expected = match index {
        0 => "Transformer",
        1 => "Pooling",
        _ => "Normalize",
    };
    let message = format!("expected a sentence-transformers {expected} module, found `{name}`");
    list_error(file, format!("{index}.type"), message)
}

/// The error of a list of modules that ends before pooling.
fn missing_pooling(file: &Path, entries: &[Value]) -> ModelError {
    if entries.is_empty() {
        let message = "expected Transformer and Pooling, found no module".to_owned();
        return list_error(file, "modules", message);
    }
    let message = "expected a sentence-transformers Pooling module, found no more modules";
    list_error(file, "1.type", message.to_owned())
}

/// A path that cannot leave the directory it is joined to (but through a symbolic link inside): a model directory may come
/// from anybody.
fn inner_path(value: &Value) -> Option<&Path> {
    let path = Path::new(value.as_str()?);
    let stays = path
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    stays.then_some(path)
}

/// The Normalize module has no settings but, since version 6, the names of what it reads and writes.
fn check_normalize(file: &Path) -> Result<(), ModelError> {
    let Some(value) = read_object(file)? else {
        return Ok(());
    };
    let fields = ConfigFields::new(file, &value);
    for field in ["module_input_name", "module_output_name"] {
        if let Some(found) = fields.get(field).filter(|found| !found.is_null())
            && found != "sentence_embedding"
        {
            return Err(fields.unsupported(field, "\"sentence_embedding\"", found, MODULE_HINT));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn directory(files: &[(&str, Value)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join("1_Pooling")).expect("created");
        for (name, value) in files {
            std::fs::write(directory.path().join(name), value.to_string()).expect("written");
        }
        directory
    }

    fn error(files: &[(&str, Value)]) -> String {
        let directory = directory(files);
        let error = SentenceModules::read(directory.path()).expect_err("refused");
        error
            .to_string()
            .replace(&directory.path().display().to_string(), "DIR")
    }

    fn module(kind: &str, path: &str) -> Value {
        json!({"type": format!("sentence_transformers.models.{kind}"), "path": path})
    }

    #[test]
    fn a_plain_checkpoint_gives_the_mean_and_does_not_normalize() {
        let directory = directory(&[]);
        let modules = SentenceModules::read(directory.path()).expect("reads");
        assert_eq!(modules.transformer, directory.path());
        assert_eq!(
            (modules.pooling, modules.normalize),
            (Pooling::default(), false)
        );
        assert_eq!(
            (modules.max_seq_length, modules.prompt.as_str()),
            (None, "")
        );
    }

    #[test]
    fn what_is_refused() {
        let transformer = || module("Transformer", "");
        let pooling = || module("Pooling", "1_Pooling");
        let two = || ("modules.json", json!([transformer(), pooling()]));
        let mean = |include_prompt: bool| {
            (
                "1_Pooling/config.json",
                json!({"pooling_mode": "mean", "include_prompt": include_prompt}),
            )
        };
        let prompts = |name: &str| {
            (
                "config_sentence_transformers.json",
                json!({"prompts": {"query": "query: "}, "default_prompt_name": name}),
            )
        };
        let paths = |path: &str| {
            error(&[
                (
                    "modules.json",
                    json!([transformer(), module("Pooling", path)]),
                ),
                mean(true),
            ])
        };
        let texts = [
            error(&[("modules.json", json!({}))]),
            error(&[("modules.json", json!([]))]),
            paths("../outside"),
            paths("1_Pooling/../../outside"),
            paths("/outside"),
            error(&[(
                "modules.json",
                json!([{"type": "sentence_transformers.models.Transformer", "path": 7}]),
            )]),
            error(&[(
                "modules.json",
                json!([{"type": "sentence_transformers.models.Transformer"}]),
            )]),
            error(&[two(), ("1_Pooling/config.json", json!("mean"))]),
            error(&[
                two(),
                mean(true),
                ("sentence_bert_config.json", json!([{"max_seq_length": 4}])),
            ]),
            error(&[
                two(),
                mean(true),
                ("config_sentence_transformers.json", Value::Null),
            ]),
            error(&[("modules.json", json!([transformer()]))]),
            error(&[two()]),
            error(&[("modules.json", json!([module("BoW", "")]))]),
            error(&[
                (
                    "modules.json",
                    json!([{"type": "my_package.Transformer", "path": ""}, pooling()]),
                ),
                mean(true),
            ]),
            error(&[
                (
                    "modules.json",
                    json!([transformer(), module("LSTM", "1_LSTM"), pooling()]),
                ),
                mean(true),
            ]),
            error(&[
                ("modules.json", json!([transformer(), pooling(), pooling()])),
                mean(true),
            ]),
            error(&[two(), mean(false), prompts("query")]),
            error(&[two(), mean(true), prompts("passage")]),
            error(&[
                two(),
                mean(true),
                ("sentence_bert_config.json", json!({"max_seq_length": 0})),
            ]),
            error(&[
                two(),
                mean(true),
                (
                    "sentence_bert_config.json",
                    json!({"transformer_task": "fill-mask"}),
                ),
            ]),
        ];
        insta::assert_snapshot!(texts.join("\n\n"), @r#"
        DIR/modules.json: `modules`: expected a list of modules, found an object
          hint: fewbit runs Transformer, Pooling and Normalize; leaving a module out would give other embeddings

        DIR/modules.json: `modules`: expected Transformer and Pooling, found no module
          hint: fewbit runs Transformer, Pooling and Normalize; leaving a module out would give other embeddings

        DIR/modules.json: `1.path`: expected "" or the path of a folder inside the model directory, found "../outside"
          hint: correct the value or fetch the file again

        DIR/modules.json: `1.path`: expected "" or the path of a folder inside the model directory, found "1_Pooling/../../outside"
          hint: correct the value or fetch the file again

        DIR/modules.json: `1.path`: expected "" or the path of a folder inside the model directory, found "/outside"
          hint: correct the value or fetch the file again

        DIR/modules.json: `0.path`: expected "" or the path of a folder inside the model directory, found 7
          hint: correct the value or fetch the file again

        DIR/modules.json: `0.path`: expected "" or the path of a folder inside the model directory, found null
          hint: correct the value or fetch the file again

        DIR/1_Pooling/config.json: expected a JSON object, found a string
          hint: fetch the file again

        DIR/sentence_bert_config.json: expected a JSON object, found a list
          hint: fetch the file again

        DIR/config_sentence_transformers.json: expected a JSON object, found null
          hint: fetch the file again

        DIR/modules.json: `1.type`: expected a sentence-transformers Pooling module, found no more modules
          hint: fewbit runs Transformer, Pooling and Normalize; leaving a module out would give other embeddings

        DIR/modules.json: `1.path`: expected a file DIR/1_Pooling/config.json, found none
          hint: fewbit runs Transformer, Pooling and Normalize; leaving a module out would give other embeddings

        DIR/modules.json: `0.type`: expected a sentence-transformers Transformer module, found `sentence_transformers.models.BoW`
          hint: fewbit runs Transformer, Pooling and Normalize; leaving a module out would give other embeddings

        DIR/modules.json: `0.type`: expected a sentence-transformers Transformer module, found `my_package.Transformer`
          hint: fewbit runs Transformer, Pooling and Normalize; leaving a module out would give other embeddings

        DIR/modules.json: `1.type`: expected a sentence-transformers Pooling module, found `sentence_transformers.models.LSTM`
          hint: fewbit runs Transformer, Pooling and Normalize; leaving a module out would give other embeddings

        DIR/modules.json: `2.type`: expected a sentence-transformers Normalize module, found `sentence_transformers.models.Pooling`
          hint: fewbit runs Transformer, Pooling and Normalize; leaving a module out would give other embeddings

        DIR/config_sentence_transformers.json: `default_prompt_name`: expected no default prompt, because pooling leaves the prompt's tokens out (`include_prompt` is false)
          hint: put the prompt before the texts yourself and set `default_prompt_name` to null; its tokens are then pooled

        DIR/config_sentence_transformers.json: `default_prompt_name`: expected the name of one of `prompts`, found "passage"
          hint: correct the value or fetch the file again

        DIR/sentence_bert_config.json: `max_seq_length`: expected a whole number from 1 to 16777216, found 0
          hint: correct the value or fetch the file again

        DIR/sentence_bert_config.json: `transformer_task`: supported is "feature-extraction", found "fill-mask"
          hint: fewbit gives the last hidden states of texts only
        "#);
        let broken = directory(&[two(), mean(true)]);
        std::fs::write(broken.path().join("modules.json"), "[{").expect("written");
        let error = SentenceModules::read(broken.path())
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("modules.json: expected JSON: EOF while parsing"),
            "{error}"
        );
    }

    /// A prompt's tokens may be left out of pooling where there is no prompt.
    #[test]
    fn include_prompt_is_harmless_without_a_default_prompt() {
        let directory = directory(&[
            (
                "modules.json",
                json!([module("Transformer", ""), module("Pooling", "1_Pooling")]),
            ),
            (
                "1_Pooling/config.json",
                json!({"pooling_mode": "cls", "include_prompt": false}),
            ),
            (
                "config_sentence_transformers.json",
                json!({"prompts": {"query": "query: "}, "default_prompt_name": null}),
            ),
        ]);
        assert_eq!(
            SentenceModules::read(directory.path())
                .expect("reads")
                .prompt,
            ""
        );
    }
}
