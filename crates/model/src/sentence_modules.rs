//! The files that sentence-transformers puts beside a checkpoint: modules.json and what it points to.

mod dense;
mod model_settings;
mod module;
mod module_list;
mod prompts;
mod route_mapping;
mod router;
mod splade;
mod transformer_settings;

use crate::ModelError;
use crate::json_file::{read_json, read_object};
use crate::pooling::{Pooling, PoolingMode};
pub(crate) use dense::{DenseActivation, DenseSettings};
use fewbit_checkpoint::MODULES_FILE;
use model_settings::ModelSettings;
pub(crate) use module::{Feature, PoolingSettings, SentenceModule, no_such_setting};
use module_list::{AFTER_THE_ENCODER, ModuleClass, NamedModule, list_error, read_list};
use prompts::Prompts;
pub(crate) use splade::{SpladeSettings, SpladeStrategy};
use std::path::{Path, PathBuf};
use transformer_settings::{Output, TransformerSettings};

/// Settings of the modules before and after the encoder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SentenceModules {
    /// Directory of config.json, weights and tokenizer.
    pub(crate) transformer: PathBuf,
    /// What runs after the encoder, in order; it gives the text's vector.
    pub(crate) after_encoder: Vec<SentenceModule>,
    /// Longest input in tokens, special tokens included.
    pub(crate) max_seq_length: Option<usize>,
    /// Lowercase texts before the tokenizer sees them.
    pub(crate) lowercase: bool,
    /// The texts that may be put before every text, by name.
    pub(crate) prompts: Prompts,
    /// Put before every text.
    pub(crate) prompt: String,
    /// Columns that are kept of an embedding, after everything else.
    pub(crate) truncate_dim: Option<usize>,
    /// Values that are kept of a sparse embedding, the largest.
    pub(crate) max_active_dims: Option<usize>,
}

/// The tasks that every model has, as they choose its prompts.
const TASKS_OF_EVERY_MODEL: [&str; 2] = ["query", "document"];

impl SentenceModules {
    /// Whether they read logits of words.
    pub(crate) fn pools_logits(&self) -> bool {
        let first = self.after_encoder.first();
        matches!(first, Some(SentenceModule::Splade(_)))
    }

    /// Reads `directory` for `task`. Without modules.json: the encoder is in `directory`, pooling is the mean, nothing is normalized, and
    /// other settings of sentence-transformers are not read, as it does not read them either.
    ///
    /// A task is `query` or `document`, or another that a Router in the model has a route for. It chooses that route, and the prompt
    /// `query` or `document` as `encode_query` and `encode_document` of sentence-transformers do it.
    pub(crate) fn read(directory: &Path, task: Option<&str>) -> Result<Self, ModelError> {
        let file = directory.join(MODULES_FILE);
        let Some(list) = read_json(&file)? else {
            let settings = ModelSettings::default_in(directory);
            if settings.file.exists() {
                tracing::warn!(
                    "{} is not read, as there is no modules.json beside it: sentence-transformers 6.2 does not read it either",
                    settings.file.display()
                );
            }
            check_task(task)?;
            return Ok(Self {
                transformer: directory.to_owned(),
                after_encoder: vec![SentenceModule::Pooling(pooling_by_default(directory)?)],
                max_seq_length: None,
                lowercase: false,
                prompts: settings.prompts,
                prompt: settings.prompt,
                truncate_dim: settings.truncate_dim,
                max_active_dims: None,
            });
        };
        let (modules, routed) = read_list(directory, &file, &list, task)?;
        if !routed {
            check_task(task)?;
        }
        let Some((first, rest)) = modules.split_first() else {
            let message = "expected Transformer and Pooling, found no module".to_owned();
            return Err(list_error(&file, "modules", message));
        };
        let of_words = rest
            .first()
            .is_some_and(|module| module.class == ModuleClass::SpladePooling);
        match first.class {
            ModuleClass::Transformer => {}
            ModuleClass::MlmTransformer if of_words => {}
            ModuleClass::MlmTransformer => {
                return Err(
                    first.error_of_place("SpladePooling after a model with logits of words")
                );
            }
            _ => return Err(first.error_of_place("Transformer as the first module")),
        }
        let after_encoder = read_after_encoder(&file, rest, of_words)?;
        let output = match (of_words, first.class) {
            (false, _) => Output::HiddenStates,
            (true, ModuleClass::MlmTransformer) => Output::LogitsByDefault,
            (true, _) => Output::Logits,
        };
        let transformer = TransformerSettings::read(&first.folder, task, output)?;
        let settings = ModelSettings::read(directory, of_words)?;
        let prompt = match task.filter(|task| TASKS_OF_EVERY_MODEL.contains(task)) {
            Some(task) => settings.prompts.named(task)?.to_owned(),
            None => settings.prompt,
        };
        Ok(Self {
            transformer: first.folder.clone(),
            after_encoder,
            max_seq_length: transformer.max_seq_length,
            lowercase: transformer.lowercase,
            prompts: settings.prompts,
            prompt,
            truncate_dim: settings.truncate_dim,
            max_active_dims: settings.max_active_dims,
        })
    }
}

/// The modules after the encoder, in order; `of_words`, where the first of them pools logits of words.
fn read_after_encoder(
    file: &Path,
    rest: &[NamedModule],
    of_words: bool,
) -> Result<Vec<SentenceModule>, ModelError> {
    let mut after_encoder = Vec::with_capacity(rest.len());
    let mut has_sentence_embedding = false;
    for (index, module) in rest.iter().enumerate() {
        if module.class == ModuleClass::SpladePooling && index > 0 {
            return Err(module.error_of_place("SpladePooling right after the encoder only"));
        }
        let Some(read) = SentenceModule::read(module)? else {
            return Err(module.error_of_place(AFTER_THE_ENCODER));
        };
        if of_words && index > 0 && read.reads_tokens() {
            return Err(module.error_of_place(
                "a module of the text's vector, as SpladePooling has made logits of the tokens' vectors",
            ));
        }
        if read.needs_sentence_embedding() && !has_sentence_embedding {
            return Err(module.error_of_place("Pooling before what changes a text's vector"));
        }
        has_sentence_embedding |=
            matches!(read, SentenceModule::Pooling(_) | SentenceModule::Splade(_));
        // Normalize passes over a vector that is not there.
        if has_sentence_embedding || read != SentenceModule::Normalize(Feature::SentenceEmbedding) {
            after_encoder.push(read);
        }
    }
    if !has_sentence_embedding {
        let message = "expected Pooling among the modules, found none".to_owned();
        return Err(list_error(file, "modules", message));
    }
    Ok(after_encoder)
}

/// Errors over a task that a model without a Router does not have. (sentence-transformers passes over it.)
fn check_task(task: Option<&str>) -> Result<(), ModelError> {
    match task.filter(|task| !TASKS_OF_EVERY_MODEL.contains(task)) {
        None => Ok(()),
        Some(task) => Err(ModelError::Input(format!(
            "task: expected `query` or `document`, as the model has no Router with other routes, found `{task}`\n  hint: leave it out, or name a prompt of the model instead"
        ))),
    }
}

/// How a model without modules.json is pooled: the last token of a causal language model, the mean of others, as in sentence-transformers.
fn pooling_by_default(directory: &Path) -> Result<PoolingSettings, ModelError> {
    let config = read_object(&directory.join("config.json"))?.unwrap_or_default();
    let class = config["architectures"][0].as_str().unwrap_or_default();
    let is_causal = class.ends_with("ForCausalLM") && config["is_causal"] != false;
    Ok(PoolingSettings {
        pooling: match is_causal {
            true => Pooling::from(PoolingMode::LastToken),
            false => Pooling::default(),
        },
        ..PoolingSettings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pooling::PoolingMode;
    use serde_json::{Value, json};

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
        let error = SentenceModules::read(directory.path(), None).expect_err("refused");
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
        let modules = SentenceModules::read(directory.path(), None).expect("reads");
        assert_eq!(modules.transformer, directory.path());
        let mean = SentenceModule::Pooling(PoolingSettings::default());
        assert_eq!(modules.after_encoder, [mean]);
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
                ("modules.json", json!([pooling(), transformer()])),
                mean(true),
            ]),
            error(&[(
                "modules.json",
                json!([transformer(), module("Dropout", "1_Dropout")]),
            )]),
            error(&[
                (
                    "modules.json",
                    json!([transformer(), pooling(), transformer()]),
                ),
                mean(true),
            ]),
            error(&[(
                "modules.json",
                json!([transformer(), module("Router", "1_Router")]),
            )]),
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
          hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

        DIR/modules.json: `modules`: expected Transformer and Pooling, found no module
          hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

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

        DIR/modules.json: `modules`: expected Pooling among the modules, found none
          hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

        DIR/modules.json: `1.path`: expected a file DIR/1_Pooling/config.json, found none
          hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

        DIR/modules.json: `0.type`: expected a module of sentence-transformers, Transformer or Router, found `sentence_transformers.models.BoW`
          hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

        DIR/modules.json: `0.type`: expected a module of sentence-transformers, Transformer or Router, found `my_package.Transformer`
          hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

        DIR/modules.json: `1.type`: expected a module of sentence-transformers, Pooling, Dense, LayerNorm, Normalize, Dropout or Router, found `sentence_transformers.models.LSTM`
          hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

        DIR/modules.json: `0.type`: expected Transformer as the first module, found Pooling
          hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

        DIR/modules.json: `1.type`: expected Pooling before what changes a text's vector, found Dropout
          hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

        DIR/modules.json: `2.type`: expected Pooling, Dense, LayerNorm, Normalize, Dropout or Router, found Transformer
          hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

        DIR/modules.json: `1.path`: expected a file DIR/1_Router/router_config.json, found none
          hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

        DIR/config_sentence_transformers.json: `default_prompt_name`: expected the name of one of `prompts`, found "passage"
          hint: correct the value or fetch the file again

        DIR/sentence_bert_config.json: `max_seq_length`: expected a whole number from 1 to 16777216, found 0
          hint: correct the value or fetch the file again

        DIR/sentence_bert_config.json: `transformer_task`: supported is "feature-extraction", found "fill-mask"
          hint: fewbit gives the last hidden states of texts only, or logits of words to SpladePooling
        "#);
        let broken = directory(&[two(), mean(true)]);
        std::fs::write(broken.path().join("modules.json"), "[{").expect("written");
        let error = SentenceModules::read(broken.path(), None)
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("modules.json: expected JSON: EOF while parsing"),
            "{error}"
        );
    }

    /// The settings of modules in any order; Normalize has nothing to do before there is a vector, and Dropout nothing at all.
    #[test]
    fn modules_are_read_in_order() {
        let dense = json!({"in_features": 4, "out_features": 2, "activation_function": "torch.nn.Identity"});
        let directory = directory(&[
            (
                "modules.json",
                json!([
                    module("Transformer", ""),
                    module("Normalize", "0_Normalize"),
                    module("Pooling", "1_Pooling"),
                    module("Dropout", "2_Dropout"),
                    module("Dense", "1_Pooling"),
                ]),
            ),
            ("1_Pooling/config.json", dense),
        ]);
        std::fs::create_dir(directory.path().join("0_Normalize")).expect("created");
        // Of a Dense module: unknown to Pooling.
        let error = SentenceModules::read(directory.path(), None).expect_err("refused");
        assert!(
            error
                .to_string()
                .contains("`in_features`: supported is no such field"),
            "{error}"
        );
        let pooling = json!({"pooling_mode": "cls", "include_prompt": false});
        let file = directory.path().join("1_Pooling/config.json");
        std::fs::write(&file, pooling.to_string()).expect("written");
        let error = SentenceModules::read(directory.path(), None).expect_err("refused");
        assert!(
            error
                .to_string()
                .contains("`in_features`: expected a whole number"),
            "{error}"
        );
        let list = json!([
            module("Transformer", ""),
            module("Normalize", "0_Normalize"),
            module("Pooling", "1_Pooling"),
            module("Dropout", "2_Dropout"),
            module("Normalize", "0_Normalize"),
        ]);
        std::fs::write(directory.path().join("modules.json"), list.to_string()).expect("written");
        let modules = SentenceModules::read(directory.path(), None).expect("reads");
        let pooling = PoolingSettings {
            pooling: PoolingMode::Cls.into(),
            without_prompt: true,
            width: None,
        };
        assert_eq!(
            modules.after_encoder,
            [
                SentenceModule::Pooling(pooling),
                SentenceModule::Dropout,
                SentenceModule::Normalize(Feature::SentenceEmbedding),
            ]
        );
    }

    /// `query` and `document` are tasks of every model and choose its prompts; others need a Router.
    #[test]
    fn a_task_chooses_the_prompt() {
        let files = [
            (
                "modules.json",
                json!([module("Transformer", ""), module("Pooling", "1_Pooling")]),
            ),
            ("1_Pooling/config.json", json!({"pooling_mode": "mean"})),
            (
                "config_sentence_transformers.json",
                json!({"prompts": {"query": "query: ", "web": "web: "}, "default_prompt_name": "web"}),
            ),
            (
                "sentence_bert_config.json",
                json!({"max_seq_length": 9, "query_length": 5, "document_length": null}),
            ),
        ];
        let directory = directory(&files);
        let read = |task| SentenceModules::read(directory.path(), task);
        let of_task = |task| {
            read(task)
                .map(|read| (read.prompt, read.max_seq_length))
                .expect("reads")
        };
        assert_eq!(of_task(None), ("web: ".to_owned(), Some(9)));
        assert_eq!(of_task(Some("query")), ("query: ".to_owned(), Some(5)));
        assert_eq!(of_task(Some("document")), (String::new(), Some(9)));
        insta::assert_snapshot!(read(Some("web")).expect_err("refused"), @r"
        task: expected `query` or `document`, as the model has no Router with other routes, found `web`
          hint: leave it out, or name a prompt of the model instead
        ");
    }
}
