//! What a model is for, by the model class that config.json names.

use crate::ModelError;
use crate::config_fields::ConfigFields;
use serde::Serialize;
use serde_json::Value;

/// What a head is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Logits of labels for a text.
    SequenceClassification,
    /// Logits of labels for each token.
    TokenClassification,
    /// Two logits for each token: that an answer starts there, and that it ends there.
    QuestionAnswering,
    /// Logits of all words for each token.
    #[serde(rename = "masked-language-modelling")]
    MaskedLm,
}

impl Task {
    /// Every task, with the end of the names of its model classes.
    const CLASSES: [(Self, &'static str); 4] = [
        (Self::SequenceClassification, "ForSequenceClassification"),
        (Self::TokenClassification, "ForTokenClassification"),
        (Self::QuestionAnswering, "ForQuestionAnswering"),
        (Self::MaskedLm, "ForMaskedLM"),
    ];

    /// In words: "sequence classification" …
    pub fn name(self) -> &'static str {
        match self {
            Self::SequenceClassification => "sequence classification",
            Self::TokenClassification => "token classification",
            Self::QuestionAnswering => "question answering",
            Self::MaskedLm => "masked language modelling",
        }
    }

    /// Whether there is one row of logits for each token, and not one for each text.
    pub fn is_of_tokens(self) -> bool {
        self != Self::SequenceClassification
    }

    /// Whether logits belong to labels that the model names.
    pub fn has_labels(self) -> bool {
        matches!(
            self,
            Self::SequenceClassification | Self::TokenClassification
        )
    }
}

/// The model class of transformers that a checkpoint was written by: the first of config.json's `architectures`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelClass<'a>(&'a str);

impl<'a> ModelClass<'a> {
    /// Of a parsed config.json, if it names one.
    pub fn of_config(config: &'a Value) -> Option<Self> {
        config["architectures"].get(0)?.as_str().map(Self)
    }

    /// Its name: `BertForSequenceClassification`.
    pub fn name(&self) -> &'a str {
        self.0
    }

    /// Whether it has more than the encoder or decoder of its family.
    pub fn has_head(&self) -> bool {
        let ends = |end: &str| self.0.ends_with(end);
        match ends("Model") {
            true => ends("LMHeadModel") || ends("DoubleHeadsModel"),
            false => self.0.contains("For"),
        }
    }

    /// The task, where fewbit knows it. BERT's `BertForPreTraining` predicts words with the head of `BertForMaskedLM`.
    pub fn task(&self) -> Option<Task> {
        if self.0 == "BertForPreTraining" {
            return Some(Task::MaskedLm);
        }
        let mut classes = Task::CLASSES.iter();
        let known = classes.find(|(_, end)| self.0.ends_with(end));
        known.map(|(task, _)| *task)
    }

    /// The task of a config.json.
    pub(super) fn task_of(fields: &ConfigFields<'a>) -> Result<Task, ModelError> {
        let ends = Task::CLASSES.map(|(_, end)| format!("…{end}")).join(", ");
        let expected = format!("expected the name of a model class with a task head ({ends})");
        let hint_for_embeddings =
            "this is a model without a task head: `fewbit embed` gives its embeddings";
        let Some(class) = Self::of_config(fields.object()) else {
            let found = match fields.get("architectures") {
                None => "no such field".to_owned(),
                Some(found) => found.to_string(),
            };
            return Err(fields.error(
                "architectures",
                format!("{expected}, found {found}"),
                hint_for_embeddings,
            ));
        };
        class.task().ok_or_else(|| {
            let hint = match class.has_head() {
                true => "fewbit does not run heads of this kind",
                false => hint_for_embeddings,
            };
            fields.error(
                "architectures",
                format!("{expected}, found \"{}\"", class.name()),
                hint,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tasks_of_model_classes() {
        for (class, task, has_head) in [
            (
                "BertForSequenceClassification",
                Some(Task::SequenceClassification),
                true,
            ),
            (
                "XLMRobertaForTokenClassification",
                Some(Task::TokenClassification),
                true,
            ),
            (
                "ModernBertForQuestionAnswering",
                Some(Task::QuestionAnswering),
                true,
            ),
            ("MPNetForMaskedLM", Some(Task::MaskedLm), true),
            ("BertForPreTraining", Some(Task::MaskedLm), true),
            ("ElectraForPreTraining", None, true),
            ("BertForMultipleChoice", None, true),
            ("BertLMHeadModel", None, true),
            ("BertModel", None, false),
        ] {
            let config = json!({"architectures": [class]});
            let class = ModelClass::of_config(&config).unwrap();
            assert_eq!(
                (class.task(), class.has_head()),
                (task, has_head),
                "{}",
                class.name()
            );
        }
        assert_eq!(ModelClass::of_config(&json!({})), None);
        assert_eq!(ModelClass::of_config(&json!({"architectures": []})), None);
    }
}
