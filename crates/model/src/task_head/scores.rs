//! From the logits of a sequence classifier to its scores: which function.

use super::labels::{Labels, ProblemType};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::json_file::read_object;
use fewbit_checkpoint::{Checkpoint, MODULES_FILE};
use serde::Serialize;
use serde_json::Value;

/// The function that turns the logits of a text into scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScoreFunction {
    /// exp(x_i) / sum exp(x_j): probabilities of which one label is right.
    Softmax,
    /// 1 / (1 + exp(-x)) of each: a probability for each label.
    Sigmoid,
    /// The logits themselves.
    Identity,
}

impl ScoreFunction {
    /// That of transformers 5.23's text-classification pipeline: none for regression, the sigmoid for several labels at once and for a single
    /// logit, softmax otherwise. (Training decides otherwise what one logit is: without a `problem_type` it is regression there.)
    pub fn of_pipeline(labels: &Labels) -> Self {
        match labels.problem_type() {
            Some(ProblemType::Regression) => Self::Identity,
            Some(ProblemType::MultiLabelClassification) => Self::Sigmoid,
            _ if labels.len() == 1 => Self::Sigmoid,
            _ => Self::Softmax,
        }
    }
}

/// What sentence-transformers' CrossEncoder says of a model that it wrote.
///
/// Read as its version 6.2 does: `activation_fn` of config_sentence_transformers.json where there is a modules.json beside it, then `activation_fn`
/// of `sentence_transformers` in config.json, then the older `sbert_ce_default_activation_function` there. A function that is not PyTorch's own
/// is passed over with a warning, and where none is named it is the sigmoid for one label and none for several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrossEncoder {
    /// The function of its scores.
    pub scores: ScoreFunction,
}

const OLD_FIELD: &str = "sbert_ce_default_activation_function";

impl CrossEncoder {
    /// What the files of `checkpoint` say; none where CrossEncoder did not write them.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a function that fewbit does not have; a file that is no JSON object.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        labels: &Labels,
    ) -> Result<Option<Self>, ModelError> {
        let directory = checkpoint.directory();
        let own_file = directory.join("config_sentence_transformers.json");
        let own = match directory.join(MODULES_FILE).exists() {
            true => read_object(&own_file)?,
            false => None,
        };
        let own = own.filter(|settings| settings["model_type"] == "CrossEncoder");
        let config_file = checkpoint.config_file();
        let config = ConfigFields::new(&config_file, checkpoint.config());
        let in_config = config
            .get("sentence_transformers")
            .filter(|found| found.is_object());
        if own.is_none() && in_config.is_none() && config.get(OLD_FIELD).is_none() {
            return Ok(None);
        }
        if let Some(own) = &own {
            refuse_prompt(&ConfigFields::new(&own_file, own))?;
        }
        // The first file that names a function of PyTorch decides.
        let own = own.as_ref().map(|own| ConfigFields::new(&own_file, own));
        let inner = in_config.map(|inner| ConfigFields::new(&config_file, inner));
        let named = [
            own.map(|fields| (fields, "activation_fn")),
            inner.map(|fields| (fields, "activation_fn")),
            Some((config, OLD_FIELD)),
        ];
        let mut scores = None;
        for (fields, field) in named.into_iter().flatten() {
            scores = match fields.get(field).unwrap_or(&Value::Null) {
                Value::Null => None,
                Value::String(path) => function(&fields, field, path)?,
                other => return Err(fields.invalid(field, "expected the path of a class", other)),
            };
            if scores.is_some() {
                break;
            }
        }
        let default = match labels.len() {
            1 => ScoreFunction::Sigmoid,
            _ => ScoreFunction::Identity,
        };
        Ok(Some(Self {
            scores: scores.unwrap_or(default),
        }))
    }
}

/// CrossEncoder puts a default prompt before the first text, which fewbit does not.
fn refuse_prompt(fields: &ConfigFields<'_>) -> Result<(), ModelError> {
    const FIELD: &str = "default_prompt_name";
    match fields.get(FIELD).filter(|name| !name.is_null()) {
        None => Ok(()),
        Some(name) => Err(fields.unsupported(
            FIELD,
            "null",
            name,
            "put the prompt before the texts yourself and set the field to null",
        )),
    }
}

/// The function of this path; none for one that sentence-transformers passes over.
fn function(
    fields: &ConfigFields<'_>,
    field: &str,
    path: &str,
) -> Result<Option<ScoreFunction>, ModelError> {
    if !path.starts_with("torch.") {
        tracing::warn!(
            "{}: `{field}`: `{path}` is no function of PyTorch: the default takes its place, as in sentence-transformers without trust_remote_code",
            fields.file().display()
        );
        return Ok(None);
    }
    match path.rsplit('.').next() {
        Some("Sigmoid") => Ok(Some(ScoreFunction::Sigmoid)),
        Some("Identity") => Ok(Some(ScoreFunction::Identity)),
        Some("Softmax") => Ok(Some(ScoreFunction::Softmax)),
        _ => {
            let supported = "Sigmoid, Identity or Softmax of torch.nn";
            let hint = "another function would give other scores";
            Err(fields.unsupported(field, supported, &path.into(), hint))
        }
    }
}
