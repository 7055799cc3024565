//! The labels of a classifier: `id2label`, `num_labels` and `problem_type` of config.json.

use crate::ModelError;
use crate::config_fields::ConfigFields;
use fewbit_checkpoint::Checkpoint;
use serde::Serialize;
use serde_json::{Map, Value};

/// More labels than any model has: XLM-R's vocabulary is a quarter of it.
const MAX_LABELS: usize = 1 << 20;

/// Labels without names of their own, where config.json says neither which nor how many.
const DEFAULT_LABELS: usize = 2;

/// What the logits of a sequence classifier say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// One of the labels is right.
    SingleLabelClassification,
    /// Any number of labels is right.
    MultiLabelClassification,
    /// Logits are values.
    Regression,
}

impl ProblemType {
    /// As config.json spells them.
    const NAMES: [(Self, &'static str); 3] = [
        (
            Self::SingleLabelClassification,
            "single_label_classification",
        ),
        (Self::MultiLabelClassification, "multi_label_classification"),
        (Self::Regression, "regression"),
    ];
}

/// The names of a head's outputs, and what config.json says they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    /// The field that says how many there are.
    field: &'static str,
    /// config.json `problem_type`, if it says one.
    problem_type: Option<ProblemType>,
}

impl Labels {
    /// Those of a checkpoint: the values of `id2label`; or `LABEL_0` … as many as `num_labels` says; or two of these.
    ///
    /// # Errors
    /// [`ModelError::Config`]: keys of `id2label` are not the numbers from 0 on, another number of labels in `num_labels`, or a `problem_type`
    /// that there is not.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let file = checkpoint.config_file();
        Self::read(&ConfigFields::new(&file, checkpoint.config()))
    }

    fn read(fields: &ConfigFields<'_>) -> Result<Self, ModelError> {
        let given = |field: &str| fields.get(field).filter(|found| !found.is_null());
        let count = match given("num_labels") {
            None => None,
            Some(_) => Some(fields.size("num_labels", DEFAULT_LABELS, 1, MAX_LABELS)?),
        };
        let (names, field) = match given("id2label") {
            Some(Value::Object(map)) => (names(fields, map, count)?, "id2label"),
            Some(other) => {
                let expected = "expected an object whose keys are \"0\", \"1\" …";
                return Err(fields.invalid("id2label", expected, other));
            }
            None => {
                let count = count.unwrap_or(DEFAULT_LABELS);
                let names = (0..count).map(|index| format!("LABEL_{index}"));
                (names.collect(), "num_labels")
            }
        };
        let problem_type = problem_type(fields, names.len())?;
        Ok(Self {
            names,
            field,
            problem_type,
        })
    }

    /// One name for each logit.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many there are, at least one.
    #[allow(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The field of config.json that says how many there are.
    pub(crate) fn field(&self) -> &'static str {
        self.field
    }

    /// What config.json says that logits mean, if it says so.
    pub fn problem_type(&self) -> Option<ProblemType> {
        self.problem_type
    }
}

/// The values of `id2label` in the order of its keys, which must be "0" … "n-1"; `count` is n, where config.json says so.
fn names(
    fields: &ConfigFields<'_>,
    map: &Map<String, Value>,
    count: Option<usize>,
) -> Result<Vec<String>, ModelError> {
    let hint = "label i is the name of logit i; correct config.json or save the model again";
    let at = |key: &str, message: String| fields.error(&format!("id2label.{key}"), message, hint);
    if map.is_empty() {
        return Err(fields.error("id2label", "expected at least one label, found none", hint));
    }
    if let Some(count) = count
        && count != map.len()
    {
        let message = format!(
            "expected {count} labels, as many as `num_labels` says, found {}",
            map.len()
        );
        return Err(fields.error("id2label", message, hint));
    }
    let mut names = vec![None; map.len()];
    for (key, value) in map {
        let index = key.parse::<usize>().ok();
        let Some(name) = index.and_then(|index| names.get_mut(index)) else {
            let expected = format!("expected a key from \"0\" to \"{}\"", map.len() - 1);
            return Err(at(
                key,
                format!(
                    "{expected}, as there are {} labels, found \"{key}\"",
                    map.len()
                ),
            ));
        };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            other => return Err(at(key, format!("expected a name, found {other}"))),
        };
        if name.replace(text).is_some() {
            return Err(at(
                key,
                format!(
                    "expected one name for label {}, found two",
                    index.unwrap_or_default()
                ),
            ));
        }
    }
    // As many keys as places, none of them twice: every place has its name.
    Ok(names.into_iter().flatten().collect())
}

fn problem_type(
    fields: &ConfigFields<'_>,
    labels: usize,
) -> Result<Option<ProblemType>, ModelError> {
    let Some(found) = fields.get("problem_type").filter(|found| !found.is_null()) else {
        return Ok(None);
    };
    let mut names = ProblemType::NAMES.iter();
    let Some(&(problem_type, _)) = names.find(|(_, name)| found == name) else {
        let names = ProblemType::NAMES.map(|(_, name)| name).join(", ");
        return Err(fields.invalid("problem_type", &format!("expected one of {names}"), found));
    };
    if problem_type == ProblemType::SingleLabelClassification && labels == 1 {
        return Err(fields.error(
            "problem_type",
            "expected more than one label for \"single_label_classification\", found 1",
            "transformers refuses this too: \"regression\" gives the value itself",
        ));
    }
    Ok(Some(problem_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    fn read(config: &Value) -> Result<Labels, ModelError> {
        Labels::read(&ConfigFields::new(Path::new("config.json"), config))
    }

    #[test]
    fn names_and_how_many() {
        for (config, expected) in [
            (json!({}), &["LABEL_0", "LABEL_1"][..]),
            (json!({"num_labels": 1}), &["LABEL_0"]),
            (
                json!({"num_labels": null, "id2label": null}),
                &["LABEL_0", "LABEL_1"],
            ),
            (
                json!({"id2label": {"1": "b", "0": "a", "2": "c"}}),
                &["a", "b", "c"],
            ),
            (
                json!({"id2label": {"0": 0, "1": 5}, "num_labels": 2}),
                &["0", "5"],
            ),
        ] {
            assert_eq!(read(&config).unwrap().names(), expected, "{config}");
        }
        let eleven: Map<String, Value> = (0..11)
            .map(|index| (index.to_string(), json!(format!("l{index}"))))
            .collect();
        let labels = read(&json!({ "id2label": eleven })).unwrap();
        assert_eq!(labels.names()[10], "l10");
    }

    #[test]
    fn what_is_refused() {
        let error = |config: Value| read(&config).unwrap_err().to_string();
        let texts = [
            error(json!({"id2label": {"0": "a", "2": "b"}})),
            error(json!({"id2label": {"0": "a", "one": "b"}})),
            error(json!({"id2label": {"0": "a", "00": "b"}})),
            error(json!({"id2label": {"0": "a", "-1": "b"}})),
            error(json!({"id2label": {"0": "a", "1": null}})),
            error(json!({"id2label": {}})),
            error(json!({"id2label": ["a", "b"]})),
            error(json!({"id2label": {"0": "a", "1": "b"}, "num_labels": 3})),
            error(json!({"id2label": {"0": "a", "1": "b"}, "num_labels": 1})),
            error(json!({"num_labels": 0})),
            error(json!({"problem_type": "classification"})),
            error(json!({"problem_type": "single_label_classification", "num_labels": 1})),
        ];
        insta::assert_snapshot!(texts.join("\n\n"), @r#"
        config.json: `id2label.2`: expected a key from "0" to "1", as there are 2 labels, found "2"
          hint: label i is the name of logit i; correct config.json or save the model again

        config.json: `id2label.one`: expected a key from "0" to "1", as there are 2 labels, found "one"
          hint: label i is the name of logit i; correct config.json or save the model again

        config.json: `id2label.00`: expected one name for label 0, found two
          hint: label i is the name of logit i; correct config.json or save the model again

        config.json: `id2label.-1`: expected a key from "0" to "1", as there are 2 labels, found "-1"
          hint: label i is the name of logit i; correct config.json or save the model again

        config.json: `id2label.1`: expected a name, found null
          hint: label i is the name of logit i; correct config.json or save the model again

        config.json: `id2label`: expected at least one label, found none
          hint: label i is the name of logit i; correct config.json or save the model again

        config.json: `id2label`: expected an object whose keys are "0", "1" …, found ["a","b"]
          hint: correct the value or fetch the file again

        config.json: `id2label`: expected 3 labels, as many as `num_labels` says, found 2
          hint: label i is the name of logit i; correct config.json or save the model again

        config.json: `id2label`: expected 1 labels, as many as `num_labels` says, found 2
          hint: label i is the name of logit i; correct config.json or save the model again

        config.json: `num_labels`: expected a whole number from 1 to 1048576, found 0
          hint: correct the value or fetch the file again

        config.json: `problem_type`: expected one of single_label_classification, multi_label_classification, regression, found "classification"
          hint: correct the value or fetch the file again

        config.json: `problem_type`: expected more than one label for "single_label_classification", found 1
          hint: transformers refuses this too: "regression" gives the value itself
        "#);
    }
}
