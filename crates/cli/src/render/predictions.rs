//! Tables of predictions: a row for each label, entity, answer or word, below the number of its text.

use super::numbers::{shortened, without_control_characters};
use super::table::{self, Column, number, text as word};
use crate::commands::predict::{Line, Prediction};

/// Most characters of a text, or of a word of it, in a table.
const WIDTH: usize = 60;
/// Digits of a score after the point.
const DIGITS: usize = 4;

/// The predictions of `rows`, of which the first is number `before` + 1 of the input.
pub(crate) fn table(before: usize, rows: &[Vec<String>], predictions: &[Line]) -> String {
    let Some(first) = predictions.first() else {
        return String::new();
    };
    let cells = predictions.iter().zip(rows).enumerate();
    let cells = cells.flat_map(|(index, (line, row))| {
        let mut rows = cells_of(&line.prediction, row);
        if rows.is_empty() {
            rows.push(vec!["-".to_owned()]);
        }
        rows.into_iter().enumerate().map(move |(place, cells)| {
            let name = match place {
                0 => (before + index + 1).to_string(),
                _ => String::new(),
            };
            [name].into_iter().chain(cells).collect()
        })
    });
    let columns: Vec<Column> = [number("#")]
        .into_iter()
        .chain(columns_of(&first.prediction))
        .collect();
    table::render(&columns, cells)
}

fn columns_of(prediction: &Prediction) -> Vec<Column> {
    match prediction {
        Prediction::Score { .. } => vec![number("score"), word("text")],
        Prediction::Labels { .. } => vec![word("label"), number("score"), word("text")],
        Prediction::Entities { .. } => vec![
            word("entity"),
            number("score"),
            number("start"),
            number("end"),
            word("word"),
        ],
        Prediction::Answers { .. } => vec![
            number("score"),
            number("start"),
            number("end"),
            word("answer"),
        ],
        Prediction::Masks { .. } => vec![
            number("mask"),
            number("score"),
            word("word"),
            word("sequence"),
        ],
    }
}

fn cells_of(prediction: &Prediction, row: &[String]) -> Vec<Vec<String>> {
    let text = || one_line(&row.join(" | "));
    match prediction {
        Prediction::Score { score } => vec![vec![digits(*score), text()]],
        Prediction::Labels { labels } => {
            let cells = labels.iter().enumerate().map(|(place, label)| {
                let text = if place == 0 { text() } else { String::new() };
                vec![one_line(&label.label), digits(label.score), text]
            });
            cells.collect()
        }
        Prediction::Entities { entities } => {
            let cells = entities.iter().map(|entity| {
                let name = entity.entity_group.as_ref().or(entity.entity.as_ref());
                vec![
                    one_line(name.map_or("", String::as_str)),
                    digits(entity.score),
                    entity.start.to_string(),
                    entity.end.to_string(),
                    one_line(&entity.word),
                ]
            });
            cells.collect()
        }
        Prediction::Answers { answers } => {
            let cells = answers.iter().map(|answer| {
                vec![
                    digits(answer.score),
                    answer.start.to_string(),
                    answer.end.to_string(),
                    one_line(&answer.answer),
                ]
            });
            cells.collect()
        }
        Prediction::Masks { masks } => {
            let cells = masks.iter().enumerate().flat_map(|(mask, candidates)| {
                candidates.iter().map(move |candidate| {
                    vec![
                        (mask + 1).to_string(),
                        digits(candidate.score),
                        one_line(&candidate.token_str),
                        one_line(&candidate.sequence),
                    ]
                })
            });
            cells.collect()
        }
    }
}

fn digits(score: f32) -> String {
    format!("{score:.DIGITS$}")
}

/// A text on one line, without characters that would do something to a terminal.
fn one_line(text: &str) -> String {
    shortened(&without_control_characters(text), WIDTH)
}
