//! The prompts of a sentence-transformers model: texts that stand before every text, by name.

use crate::ModelError;
use crate::config_fields::ConfigFields;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Prompts that every model has, empty unless its settings have others.
const OF_EVERY_MODEL: [&str; 2] = ["query", "document"];

/// Names and texts, each name once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompts {
    /// The settings that they come from.
    file: PathBuf,
    texts: Vec<(String, String)>,
}

impl Prompts {
    /// The prompts of a model without settings.
    pub(super) fn of_every_model(file: &Path) -> Self {
        let texts = OF_EVERY_MODEL.map(|name| (name.to_owned(), String::new()));
        Self {
            file: file.to_owned(),
            texts: texts.into(),
        }
    }

    /// Takes in `found`, the `prompts` of the settings: texts by name, where null is an empty text.
    pub(super) fn extend(
        &mut self,
        fields: &ConfigFields<'_>,
        found: &Value,
    ) -> Result<(), ModelError> {
        let Some(prompts) = found.as_object() else {
            return Err(fields.invalid("prompts", "expected an object of texts by name", found));
        };
        for (name, text) in prompts {
            let text = match text {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => {
                    let field = format!("prompts.{name}");
                    return Err(fields.invalid(&field, "expected a text", other));
                }
            };
            match self.texts.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = text,
                None => self.texts.push((name.clone(), text)),
            }
        }
        Ok(())
    }

    /// The text of the prompt `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut texts = self.texts.iter();
        let found = texts.find(|(known, _)| known == name);
        found.map(|(_, text)| text.as_str())
    }

    /// The text of the prompt that the caller chose by name.
    ///
    /// # Errors
    /// There is none of this name.
    pub(crate) fn named(&self, name: &str) -> Result<&str, ModelError> {
        self.get(name).ok_or_else(|| {
            let names = |texts: &[(String, String)]| {
                let names: Vec<_> = texts.iter().map(|(name, _)| format!("`{name}`")).collect();
                names.join(", ")
            };
            let none = self.texts.iter().all(|(_, text)| text.is_empty());
            let (found, hint) = if none {
                (
                    format!("only {}, which are empty", names(&self.texts)),
                    "give the text of the prompt with --prompt",
                )
            } else {
                (
                    names(&self.texts),
                    "name one of these with --prompt-name, or give the text with --prompt",
                )
            };
            ModelError::Config {
                file: self.file.clone(),
                field: "prompts".to_owned(),
                message: format!("expected a prompt named `{name}`, found {found}"),
                hint: hint.to_owned(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn prompts(settings: &Value) -> Result<Prompts, String> {
        let file = Path::new("settings.json");
        let mut prompts = Prompts::of_every_model(file);
        let fields = ConfigFields::new(file, settings);
        prompts
            .extend(&fields, &settings["prompts"])
            .map_err(|error| error.to_string())?;
        Ok(prompts)
    }

    /// As sentence-transformers 6.2: `query` and `document` are there, empty, and null is an empty text.
    #[test]
    fn every_model_has_a_query_and_a_document_prompt() {
        let found = prompts(&json!({"prompts": {"query": "query: ", "passage": null}})).unwrap();
        let texts = ["query", "document", "passage"].map(|name| found.named(name).unwrap());
        assert_eq!(texts, ["query: ", "", ""]);
        assert_eq!(found.get("other"), None);
        insta::assert_snapshot!(found.named("other").unwrap_err(), @r"
        settings.json: `prompts`: expected a prompt named `other`, found `query`, `document`, `passage`
          hint: name one of these with --prompt-name, or give the text with --prompt
        ");
        let without = Prompts::of_every_model(Path::new("settings.json"));
        assert_eq!(without.named("query").unwrap(), "");
        insta::assert_snapshot!(without.named("passage").unwrap_err(), @r"
        settings.json: `prompts`: expected a prompt named `passage`, found only `query`, `document`, which are empty
          hint: give the text of the prompt with --prompt
        ");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        insta::assert_snapshot!(prompts(&json!({"prompts": {"query": 5}})).unwrap_err(), @r"
        settings.json: `prompts.query`: expected a text, found 5
          hint: correct the value or fetch the file again
        ");
        insta::assert_snapshot!(prompts(&json!({"prompts": ["query: "]})).unwrap_err(), @r#"
        settings.json: `prompts`: expected an object of texts by name, found ["query: "]
          hint: correct the value or fetch the file again
        "#);
    }
}
