//! What is predicted of rows, task by task.

use crate::arguments::PredictArguments;
use crate::failure::UsageError;
use anyhow::Result;
use fewbit::model::Task;
use fewbit::model::prediction::{
    Aggregation, Answer, AnswerOptions, Classification, Entity, LabelScore, MaskCandidate,
    TextInput,
};
use fewbit::{EncodeOptions, Predictor};
use serde::Serialize;

/// What the flags ask of a model.
pub(crate) struct Wanted {
    /// None: as many as the task gives by default.
    top_k: Option<usize>,
    aggregation: Aggregation,
    answers: AnswerOptions,
    query: Option<String>,
}

/// A prediction as a line of JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    #[serde(flatten)]
    pub(crate) prediction: Prediction,
    /// Whether the text was cut at the model's limit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) truncated: bool,
}

/// What a model says of one row.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Prediction {
    /// Of a model with one label.
    Score {
        score: f32,
    },
    Labels {
        labels: Vec<LabelScore>,
    },
    Entities {
        entities: Vec<Entity>,
    },
    Answers {
        answers: Vec<Answer>,
    },
    Masks {
        masks: Vec<Vec<MaskCandidate>>,
    },
}

impl Wanted {
    /// What is wanted of a model for `task`.
    ///
    /// # Errors
    /// A flag that goes with another task.
    pub(super) fn of(arguments: &PredictArguments, task: Task) -> Result<Self, UsageError> {
        use Task::{MaskedLm, QuestionAnswering, SequenceClassification, TokenClassification};
        let flags: [(&str, bool, &[Task]); 6] = [
            (
                "--pair-column",
                arguments.pair_column.is_some(),
                &[SequenceClassification, QuestionAnswering],
            ),
            (
                "--query",
                arguments.query.is_some(),
                &[SequenceClassification],
            ),
            (
                "--top-k",
                arguments.top_k.is_some(),
                &[SequenceClassification, QuestionAnswering, MaskedLm],
            ),
            (
                "--aggregation",
                arguments.aggregation.is_some(),
                &[TokenClassification],
            ),
            (
                "--max-answer-tokens",
                arguments.max_answer_tokens.is_some(),
                &[QuestionAnswering],
            ),
            (
                "--allow-no-answer",
                arguments.allow_no_answer,
                &[QuestionAnswering],
            ),
        ];
        let foreign = flags
            .iter()
            .find(|(_, given, tasks)| *given && !tasks.contains(&task));
        if let Some((flag, _, tasks)) = foreign {
            let names: Vec<&str> = tasks.iter().map(|task| task.name()).collect();
            return Err(UsageError(format!(
                "{flag}: expected a model for {}, found one for {}\n  hint: leave it out, or name another model",
                names.join(" or "),
                task.name()
            )));
        }
        let answers = AnswerOptions::default();
        Ok(Self {
            top_k: arguments.top_k,
            aggregation: arguments
                .aggregation
                .map_or(Aggregation::Simple, Into::into),
            answers: AnswerOptions {
                top_k: arguments.top_k.unwrap_or(answers.top_k),
                max_answer_tokens: arguments
                    .max_answer_tokens
                    .unwrap_or(answers.max_answer_tokens),
                handle_impossible_answer: arguments.allow_no_answer,
            },
            query: arguments.query.clone(),
        })
    }
}

/// A line for each row, in order.
pub(super) fn predict(
    predictor: &Predictor,
    wanted: &Wanted,
    rows: &[Vec<String>],
    options: &EncodeOptions,
) -> Result<Vec<Line>> {
    let text = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let texts = || rows.iter().map(|row| text(row, 0)).collect::<Vec<_>>();
    let line = |prediction, truncated| Line {
        prediction,
        truncated,
    };
    Ok(match predictor.task() {
        Task::SequenceClassification => {
            let input = |row: &'_ Vec<String>| -> (String, Option<String>) {
                match &wanted.query {
                    Some(query) => (query.clone(), Some(text(row, 0))),
                    None => (text(row, 0), row.get(1).cloned()),
                }
            };
            let owned: Vec<_> = rows.iter().map(input).collect();
            let inputs: Vec<TextInput<'_>> = owned
                .iter()
                .map(|(text, pair)| TextInput {
                    text,
                    pair: pair.as_deref(),
                })
                .collect();
            let found = predictor.classify(&inputs, options)?;
            found
                .into_iter()
                .map(|found| labels(found, wanted.top_k))
                .collect()
        }
        Task::TokenClassification => {
            let found = predictor.tag(&texts(), wanted.aggregation, options)?;
            found
                .into_iter()
                .map(|found| {
                    let entities = found.entities;
                    line(Prediction::Entities { entities }, found.truncated)
                })
                .collect()
        }
        Task::QuestionAnswering => {
            let questions: Vec<_> = rows
                .iter()
                .map(|row| (text(row, 0), text(row, 1)))
                .collect();
            let found = predictor.answer(&questions, wanted.answers, options)?;
            found
                .into_iter()
                .map(|answers| line(Prediction::Answers { answers }, false))
                .collect()
        }
        Task::MaskedLm => {
            const CANDIDATES: usize = 5;
            let top_k = wanted.top_k.unwrap_or(CANDIDATES);
            let found = predictor.fill_masks(&texts(), top_k, options)?;
            found
                .into_iter()
                .map(|found| {
                    let masks = found.masks;
                    line(Prediction::Masks { masks }, found.truncated)
                })
                .collect()
        }
    })
}

fn labels(found: Classification, top_k: Option<usize>) -> Line {
    let mut labels = found.labels;
    let prediction = match labels[..] {
        [LabelScore { score, .. }] => Prediction::Score { score },
        _ => {
            labels.truncate(top_k.unwrap_or(1));
            Prediction::Labels { labels }
        }
    };
    Line {
        prediction,
        truncated: found.truncated,
    }
}
