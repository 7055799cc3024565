//! The small files beside tokenizer.json that hold settings, and which of them counts.

use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::json_file::read_object;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A JSON object with its file; null where there is no file.
#[derive(Debug)]
struct Object {
    file: PathBuf,
    value: Value,
}

impl Object {
    fn read(directory: &Path, name: &str) -> Result<Self, ModelError> {
        let file = directory.join(name);
        let value = read_object(&file)?.unwrap_or(Value::Null);
        Ok(Self { file, value })
    }

    fn fields(&self) -> ConfigFields<'_> {
        ConfigFields::new(&self.file, &self.value)
    }
}

/// tokenizer_config.json, and the older files that count where it has no `added_tokens_decoder`.
#[derive(Debug)]
pub(super) struct Settings {
    config: Object,
    model_config: Object,
    /// special_tokens_map.json and added_tokens.json.
    older: Option<[Object; 2]>,
}

impl Settings {
    /// Reads the files of `directory`; each of them may be absent.
    pub(super) fn read(directory: &Path) -> Result<Self, ModelError> {
        let config = Object::read(directory, "tokenizer_config.json")?;
        let older = match config.fields().get("added_tokens_decoder") {
            Some(_) => None,
            None => Some([
                Object::read(directory, "special_tokens_map.json")?,
                Object::read(directory, "added_tokens.json")?,
            ]),
        };
        Ok(Self {
            config,
            model_config: Object::read(directory, "config.json")?,
            older,
        })
    }

    /// The file that decides about `key`: special_tokens_map.json overrules tokenizer_config.json, and not only in special
    /// tokens.
    pub(super) fn of(&self, key: &str) -> ConfigFields<'_> {
        match &self.older {
            Some([map, _]) if map.fields().get(key).is_some() => map.fields(),
            _ => self.config.fields(),
        }
    }

    /// Whether special_tokens_map.json decides about `key`.
    pub(super) fn is_of_the_map(&self, key: &str) -> bool {
        matches!(&self.older, Some([map, _]) if map.fields().get(key).is_some())
    }

    /// tokenizer_config.json.
    pub(super) fn config(&self) -> ConfigFields<'_> {
        self.config.fields()
    }

    /// config.json of the model.
    pub(super) fn model_config(&self) -> ConfigFields<'_> {
        self.model_config.fields()
    }

    /// The token ids of added_tokens.json, and its fields for errors, where that file counts.
    pub(super) fn added_tokens(
        &self,
    ) -> Option<(ConfigFields<'_>, &serde_json::Map<String, Value>)> {
        let [_, added] = self.older.as_ref()?;
        Some((added.fields(), added.value.as_object()?))
    }

    /// Keys of both files, each once, those of tokenizer_config.json first.
    pub(super) fn keys(&self) -> Vec<&str> {
        let maps = self.older.iter().map(|[map, _]| map);
        let objects = std::iter::once(&self.config).chain(maps);
        let mut keys: Vec<&str> = Vec::new();
        for key in objects
            .filter_map(|object| object.value.as_object())
            .flat_map(|object| object.keys())
        {
            if !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
        keys
    }
}
