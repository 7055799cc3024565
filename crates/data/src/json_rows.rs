//! Rows written as JSON: an object, or a text alone.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::row::{Place, column_place};
use crate::{Cell, Column, ColumnKind, DataError};

/// The word for a column in messages about JSON.
pub(crate) const WORD: &str = "field";

/// The cells of one JSON value. Fields that are not asked for are passed over: they may hold what JSON or UTF-8 does not know, such as NaN
/// and half of a surrogate pair, which Python writes.
pub(crate) fn cells(
    place: Place<'_>,
    text: &str,
    columns: &[Column],
) -> Result<Vec<Cell>, DataError> {
    if !text.trim_start().starts_with('{') {
        return alone(place, text, columns);
    }
    let (values, replaced) = parse(place, text, |deserializer| {
        deserializer.deserialize_map(Fields { columns })
    })?;
    columns
        .iter()
        .zip(values)
        .map(|(column, value)| match value {
            Some(value) => cell(place, value, column, replaced),
            None if column.optional => Ok(Cell::Absent),
            None => Err(column.missing(place.to_string(), WORD, &names(place, text)?)),
        })
        .collect()
}

/// The names in one JSON value; none if it is no object.
pub(crate) fn names(place: Place<'_>, text: &str) -> Result<Vec<String>, DataError> {
    if !text.trim_start().starts_with('{') {
        return Ok(Vec::new());
    }
    Ok(parse(place, text, |deserializer| {
        deserializer.deserialize_map(Names)
    })?
    .0)
}

/// A value that is no object.
fn alone(place: Place<'_>, text: &str, columns: &[Column]) -> Result<Vec<Cell>, DataError> {
    let one_text = matches!(columns, [column] if column.kind == ColumnKind::Text);
    let value: Value = serde_json::from_str(text).map_err(|error| not_json(place, &error, text))?;
    match value {
        Value::String(text) if one_text => Ok(vec![Cell::Text(text)]),
        other => Err(DataError::content(
            place.to_string(),
            if one_text {
                "a JSON string or object"
            } else {
                "a JSON object"
            },
            kind(&other),
            format!("every {} is a row", place.row_word),
        )),
    }
}

/// Parses all of `text` with `read`; also returns whether numbers that JSON does not know were taken for null.
fn parse<T>(
    place: Place<'_>,
    text: &str,
    read: impl Fn(&mut TextDeserializer<'_>) -> Result<T, serde_json::Error>,
) -> Result<(T, bool), DataError> {
    let read_all = |text: &str| {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = read(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    };
    read_all(text)
        .map(|value| (value, false))
        .or_else(|error| match without_non_finite(text) {
            // What is wrong then is not such a number.
            Cow::Owned(finite) => read_all(&finite).map(|value| (value, true)),
            Cow::Borrowed(_) => Err(error),
        })
        .map_err(|error: serde_json::Error| not_json(place, &error, text))
}

type TextDeserializer<'t> = serde_json::Deserializer<serde_json::de::StrRead<'t>>;

/// The text with null for NaN, Infinity and -Infinity outside of strings.
fn without_non_finite(text: &str) -> Cow<'_, str> {
    let mut finite = String::new();
    let mut rest = text;
    let (mut in_string, mut escaped) = (false, false);
    let mut copied = 0;
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'N' | b'I' | b'-' if !in_string && position >= copied => {
                let here = &text[position..];
                let names = ["NaN", "Infinity", "-Infinity"];
                if let Some(name) = names.iter().find(|name| here.starts_with(**name)) {
                    finite.push_str(&text[copied..position]);
                    finite.push_str("null");
                    copied = position + name.len();
                    rest = &text[copied..];
                }
            }
            _ => {}
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    finite.push_str(rest);
    Cow::Owned(finite)
}

/// The values of some fields of an object; of a field that is there twice, the last.
struct Fields<'c> {
    columns: &'c [Column],
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Vec<Option<Value>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut values = vec![None; self.columns.len()];
        while let Some(indices) = map.next_key_seed(Indices(self.columns))? {
            match indices.split_first() {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some((&first, others)) => {
                    let value: Value = map.next_value()?;
                    for &other in others {
                        values[other] = Some(value.clone());
                    }
                    values[first] = Some(value);
                }
            }
        }
        Ok(values)
    }
}

/// Which of the columns have the name that comes next.
struct Indices<'c>(&'c [Column]);

impl<'de> DeserializeSeed<'de> for Indices<'_> {
    type Value = Vec<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Indices<'_> {
    type Value = Vec<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let columns = self.0.iter().enumerate();
        Ok(columns
            .filter(|(_, column)| column.name == name)
            .map(|(index, _)| index)
            .collect())
    }
}

/// All names of an object.
struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Vec<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut names = Vec::new();
        while let Some((name, IgnoredAny)) = map.next_entry()? {
            names.push(name);
        }
        Ok(names)
    }
}

/// `replaced`: null may stand for a number that is not finite.
fn cell(
    place: Place<'_>,
    value: Value,
    column: &Column,
    replaced: bool,
) -> Result<Cell, DataError> {
    let refused = |found: String| {
        Err(DataError::content(
            column_place(place, WORD, &column.name),
            column.kind.value(),
            found,
            match column.kind {
                ColumnKind::Text => "name a field of texts, or remove the line",
                ColumnKind::Number => "name a field of numbers, or remove the line",
                ColumnKind::Label => "name a field of labels, or remove the line",
                ColumnKind::Integers => "a row looks like {\"input_ids\": [101, 7592, 102]}",
            },
        ))
    };
    match (column.kind, value) {
        (_, Value::Null) if column.optional => Ok(Cell::Absent),
        (_, Value::Null) if replaced => refused("null, NaN or infinity".to_owned()),
        (ColumnKind::Text | ColumnKind::Label, Value::String(text)) => Ok(Cell::Text(text)),
        (ColumnKind::Label, Value::Number(number)) if !number.is_f64() => {
            Ok(Cell::Text(number.to_string()))
        }
        (ColumnKind::Number, Value::Number(number)) => match number.as_f64() {
            Some(number) => Ok(Cell::Number(number)),
            None => refused(number.to_string()),
        },
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

/// The parser's message with the column only where the value is one line: the line of the file is in `place`.
fn not_json(place: Place<'_>, error: &serde_json::Error, text: &str) -> DataError {
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let what = message.strip_suffix(&position).unwrap_or(&message);
    let position = match error.line() {
        0 | 1 => format!("column {}", error.column()),
        line => format!("its line {line}, column {}", error.column()),
    };
    let hint = if what.contains("surrogate") || what.contains("end of hex escape") {
        "half of a character that UTF-16 writes as two: write the other half, too, or remove it"
    } else if !text.trim_start().starts_with(['{', '[', '"']) {
        "plain text, one text a line, is a file of another name, such as texts.txt"
    } else {
        match place.row_word {
            "line" => {
                "the line is no whole JSON value: write one object a line, or all in one array in a .json file"
            }
            _ => "an array holds one object for each row",
        }
    };
    DataError::content(
        place.to_string(),
        format!(
            "one JSON string or object {}",
            match place.row_word {
                "line" => "a line",
                _ => "an element",
            }
        ),
        format!("{what} at {position}"),
        hint,
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
