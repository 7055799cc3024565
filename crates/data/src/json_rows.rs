//! The rows of a JSONL file: an object, or a text alone.

use serde_json::Value;

use crate::row::{Place, column_place};
use crate::{Cell, Column, ColumnKind, DataError};

/// What JSONL calls a column.
pub(crate) const WORD: &str = "field";

/// The cells of a line.
pub(crate) fn cells(
    place: Place<'_>,
    line: &str,
    columns: &[Column],
) -> Result<Vec<Cell>, DataError> {
    let value: Value = serde_json::from_str(line).map_err(|error| not_json(place, &error, line))?;
    match (value, columns) {
        (Value::String(text), [column]) if column.kind == ColumnKind::Text => {
            Ok(vec![Cell::Text(text)])
        }
        (Value::Object(mut object), columns) => columns
            .iter()
            .map(|column| match object.get_mut(&column.name) {
                Some(value) => cell(place, value.take(), column),
                None if column.optional => Ok(Cell::Absent),
                None => {
                    let names: Vec<&String> = object.keys().collect();
                    Err(column.missing(place.to_string(), WORD, &names))
                }
            })
            .collect(),
        (other, columns) => {
            let texts = columns.len() == 1 && columns[0].kind == ColumnKind::Text;
            Err(DataError::content(
                place.to_string(),
                if texts {
                    "a JSON string or object"
                } else {
                    "a JSON object"
                },
                kind(&other),
                "every line of a JSONL file is a row",
            ))
        }
    }
}

/// The names in a line.
pub(crate) fn names(place: Place<'_>, line: &str) -> Result<Vec<String>, DataError> {
    match serde_json::from_str(line).map_err(|error| not_json(place, &error, line))? {
        Value::Object(object) => Ok(object.into_iter().map(|(name, _)| name).collect()),
        _ => Ok(Vec::new()),
    }
}

fn cell(place: Place<'_>, value: Value, column: &Column) -> Result<Cell, DataError> {
    let refused = |found: String| {
        Err(DataError::content(
            column_place(place, WORD, &column.name),
            column.kind.value(),
            found,
            match column.kind {
                ColumnKind::Text => "name a field of texts, or remove the line",
                ColumnKind::Integers => "a row looks like {\"input_ids\": [101, 7592, 102]}",
            },
        ))
    };
    match (column.kind, value) {
        (_, Value::Null) if column.optional => Ok(Cell::Absent),
        (ColumnKind::Text, Value::String(text)) => Ok(Cell::Text(text)),
        (ColumnKind::Integers, Value::Array(values)) => {
            match values.iter().position(|value| value.as_i64().is_none()) {
                None => Ok(Cell::Integers(
                    values.iter().filter_map(Value::as_i64).collect(),
                )),
                Some(index) => refused(format!(
                    "{} at position {}",
                    brief(&values[index]),
                    index + 1
                )),
            }
        }
        (_, value) => refused(kind(&value).to_owned()),
    }
}

/// A number as it is, anything else by its kind.
fn brief(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        other => kind(other).to_owned(),
    }
}

/// The parser's message with the column only: the line of the file is in `place`.
fn not_json(place: Place<'_>, error: &serde_json::Error, line: &str) -> DataError {
    let whole = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let what = whole.strip_suffix(&position).unwrap_or(&whole);
    let plain_text = !line.trim_start().starts_with(['{', '[', '"']);
    DataError::content(
        place.to_string(),
        "one JSON string or object a line",
        format!("{what} at column {}", error.column()),
        if plain_text {
            "plain text, one text a line, is a file of another name, such as texts.txt"
        } else {
            "the line is no whole JSON value: write one object a line"
        },
    )
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
