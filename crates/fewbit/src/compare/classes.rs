//! Models of labels in a comparison: whether they are compared as such, and their figures.

use super::CompareTexts;
use crate::Error;
use fewbit_checkpoint::{Checkpoint, MODULES_FILE};
use fewbit_evaluate::{ClassLogits, ClassificationQuality, ClassifierAgreement};
use fewbit_model::task_head::ModelClass;
use fewbit_model::{
    Embeddings, Predictor, PredictorSettings, ScoreFunction, Task, WeightOnlyArithmetic,
};
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;

/// The labels of the model that is compared, and the right ones of the texts.
pub(super) struct Classes {
    function: ScoreFunction,
    /// The number of each text's right label; empty, where none are known.
    right: Vec<usize>,
}

/// What a model of labels makes of the texts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClassFigures {
    /// How close its logits are to those of the original; none for the original.
    pub agreement: Option<ClassifierAgreement>,
    /// How often its labels are right; none without right labels.
    pub quality: Option<ClassificationQuality>,
}

impl Classes {
    /// Those of the model in `source`, whose weights are `checkpoint`, if it has a head for sequence classification and `texts` are no scored
    /// pairs, which are for embeddings.
    ///
    /// # Errors
    /// Texts for a classifier and another model; a right label that the model does not have.
    pub(super) fn of(
        checkpoint: &Checkpoint,
        source: &Path,
        texts: &CompareTexts,
        weight_only: Option<WeightOnlyArithmetic>,
    ) -> Result<Option<Self>, Error> {
        let needed = matches!(texts, CompareTexts::Classes(_));
        let refused = |found: &str| {
            Error::Compare(format!(
                "{}: expected a model with a head for sequence classification, found {found}\n  hint: --label-column and --pair-column are for such models; leave them out to compare embeddings",
                source.display()
            ))
        };
        let class = ModelClass::of_config(checkpoint.config());
        let task = class.and_then(|class| class.task());
        if matches!(texts, CompareTexts::Pairs(_)) || task != Some(Task::SequenceClassification) {
            return match needed {
                true => Err(refused(&class.map_or_else(
                    || "one that names no class".to_owned(),
                    |class| format!("`{}`", class.name()),
                ))),
                false => Ok(None),
            };
        }
        let settings = PredictorSettings {
            weight_only,
            ..PredictorSettings::default()
        };
        let predictor = match Predictor::open_with_settings(source, &settings) {
            Ok(predictor) => predictor,
            Err(error) if needed => return Err(error.into()),
            Err(error) => {
                tracing::warn!("embeddings are compared, because the head cannot be run: {error}");
                return Ok(None);
            }
        };
        // sentence-transformers makes embeddings of any class of model.
        if !needed
            && predictor.model().cross_encoder().is_none()
            && source.join(MODULES_FILE).exists()
        {
            return Ok(None);
        }
        // The scores of a cross-encoder with several labels are its logits; what it says of a text is still one of the labels.
        let is_classifier =
            predictor.labels().len() > 1 && predictor.model().cross_encoder().is_some();
        let function = match predictor.score_function() {
            ScoreFunction::Identity if is_classifier => ScoreFunction::Softmax,
            function => function,
        };
        let right = match texts {
            CompareTexts::Classes(texts) => right_labels(&texts.labels, &predictor, function)?,
            _ => Vec::new(),
        };
        Ok(Some(Self { function, right }))
    }

    /// The figures of the model `name`, whose logits are `found`, against those of the original.
    ///
    /// # Errors
    /// The logits do not belong together.
    pub(super) fn figures(
        &self,
        name: &str,
        reference: Option<&Embeddings>,
        found: &Embeddings,
    ) -> Result<ClassFigures, Error> {
        let logits = ClassLogits {
            columns: found.columns,
            values: &found.values,
        };
        let agreement = |reference: &Embeddings| {
            let reference = ClassLogits {
                columns: reference.columns,
                values: &reference.values,
            };
            ClassifierAgreement::between(name, reference, logits, self.function)
        };
        let quality = || ClassificationQuality::evaluate(&logits.labels(), &self.right);
        Ok(ClassFigures {
            agreement: reference.map(agreement).transpose()?,
            quality: (!self.right.is_empty()).then(quality).transpose()?,
        })
    }
}

/// The numbers of labels: a label is the model's name of it, or its number.
fn right_labels(
    labels: &[String],
    predictor: &Predictor,
    function: ScoreFunction,
) -> Result<Vec<usize>, Error> {
    let names = predictor.labels();
    if !labels.is_empty() && (function != ScoreFunction::Softmax || names.len() < 2) {
        return Err(Error::Compare(format!(
            "{}: expected a model that gives one of several labels, found one whose scores are {} of {} logits\n  hint: leave out --label-column",
            predictor.directory().display(),
            match function {
                ScoreFunction::Softmax => "the softmax",
                ScoreFunction::Sigmoid => "the sigmoid",
                ScoreFunction::Identity => "the values",
            },
            names.len()
        )));
    }
    let numbers: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
    let number = |(row, label): (usize, &String)| {
        let by_number = || label.parse().ok().filter(|&number| number < names.len());
        let found = numbers.get(label.as_str()).copied().or_else(by_number);
        found.ok_or_else(|| {
            const SHOWN: usize = 8;
            let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
            let more = if names.len() > SHOWN { ", …" } else { "" };
            Error::Compare(format!(
                "label of text {}: expected one of the model's {} labels ({}{more}) or its number, found `{label}`\n  hint: `id2label` of config.json names them",
                row + 1,
                names.len(),
                shown.join(", ")
            ))
        })
    };
    labels.iter().enumerate().map(number).collect()
}
