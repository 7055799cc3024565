//! Texts and sentence pairs from files in UTF-8.

use std::path::Path;

use fewbit_data::{Column, DEFAULT_TEXT_COLUMN, DataFile, FileFormat};
use serde_json::Value;

use crate::EvaluateError;

/// Two sentences and how similar people find them.
#[derive(Debug, Clone, PartialEq)]
pub struct SentencePair {
    /// First sentence.
    pub sentence1: String,
    /// Second sentence.
    pub sentence2: String,
    /// Similarity on the data set's own scale; finite.
    pub score: f64,
}

const PAIR_HINT: &str = r#"a line looks like {"sentence1": "A man sings.", "sentence2": "A man is singing.", "score": 4.8}"#;

/// Reads JSONL with the fields `sentence1`, `sentence2` and `score` (a number); other fields are
/// ignored.
///
/// # Errors
/// Naming file, line and field. A file with fewer than two pairs is an error, as no correlation is
/// defined on it.
pub fn read_sentence_pairs(path: impl AsRef<Path>) -> Result<Vec<SentencePair>, EvaluateError> {
    let path = path.as_ref();
    let pairs = json_lines(path, PAIR_HINT, |object| {
        Ok(SentencePair {
            sentence1: string(object, "sentence1")?,
            sentence2: string(object, "sentence2")?,
            score: number(object, "score")?,
        })
    })?;
    if pairs.len() < 2 {
        return Err(EvaluateError::TooLittleData {
            origin: path.display().to_string(),
            expected: "two sentence pairs",
            found: pairs.len(),
            hint: PAIR_HINT,
        });
    }
    Ok(pairs)
}

/// Reads texts as [`DataFile`] has them: the field or column `text` of JSONL, CSV and Parquet, every line of any other file, the empty ones
/// too, so that line and row numbers agree.
///
/// # Errors
/// Naming file, line or row, and column. A file without any text is an error.
pub fn read_texts(path: impl AsRef<Path>) -> Result<Vec<String>, EvaluateError> {
    let file = DataFile::new(path.as_ref(), None);
    let mut texts = Vec::new();
    file.for_each_row(&[Column::text(DEFAULT_TEXT_COLUMN)], &mut |row| {
        texts.push(row.text(0).to_owned());
        Ok(())
    })?;
    if texts.is_empty() {
        return Err(EvaluateError::TooLittleData {
            origin: file.name().to_owned(),
            expected: "one text",
            found: 0,
            hint: match file.format().has_columns() {
                true => "a row has a text in its column `text`",
                false => "every line is a text",
            },
        });
    }
    Ok(texts)
}

/// Parses every line that is not blank as an object and reads it with `read`, whose errors are
/// messages about a field.
fn json_lines<T>(
    path: &Path,
    hint: &str,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Result<Vec<T>, EvaluateError> {
    let mut lines = Vec::new();
    DataFile::new(path, Some(FileFormat::Lines)).for_each_row(&[], &mut |row| {
        lines.push(row.text(0).to_owned());
        Ok(())
    })?;
    let mut rows = Vec::new();
    for (number, text) in (1..).zip(&lines) {
        if text.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str::<Value>(text)
            .map_err(|error| format!("not JSON: {error}"))
            .and_then(|value| match value {
                Value::Object(_) => Ok(value),
                other => Err(format!("expected an object, found {}", kind(&other))),
            })
            .and_then(|object| read(&object))
            .map_err(|message| EvaluateError::Data {
                file: path.to_owned(),
                line: number,
                message,
                hint: hint.to_owned(),
            })?;
        rows.push(row);
    }
    Ok(rows)
}

fn string(object: &Value, field: &str) -> Result<String, String> {
    match object.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!(
            "field `{field}`: expected a string, found {}",
            kind(other)
        )),
        None => Err(missing(field)),
    }
}

fn number(object: &Value, field: &str) -> Result<f64, String> {
    let value = object.get(field).ok_or_else(|| missing(field))?;
    value
        .as_f64()
        .ok_or_else(|| format!("field `{field}`: expected a number, found {}", kind(value)))
}

fn missing(field: &str) -> String {
    format!("field `{field}`: expected one, found none")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    struct File {
        _directory: tempfile::TempDir,
        path: PathBuf,
    }

    fn file(name: &str, content: impl AsRef<[u8]>) -> File {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        File {
            _directory: directory,
            path,
        }
    }

    /// The error's text with the file's name for its path.
    fn error_text<T: std::fmt::Debug>(file: &File, result: Result<T, EvaluateError>) -> String {
        let directory = format!("{}/", file.path.parent().unwrap().display());
        result.unwrap_err().to_string().replace(&directory, "")
    }

    #[test]
    fn pairs_are_read_and_other_fields_ignored() {
        let file = file(
            "x.jsonl",
            "{\"sentence1\":\"a\",\"sentence2\":\"b\",\"score\":4.75,\"year\":\"2012\"}\r\n\n{\"sentence1\":\"\",\"sentence2\":\"\\u0995\",\"score\":0}",
        );
        let pairs = read_sentence_pairs(&file.path).unwrap();
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs[0].score, 4.75);
        assert_eq!(
            (pairs[1].sentence1.as_str(), pairs[1].sentence2.as_str()),
            ("", "ক")
        );
    }

    #[test]
    fn errors_of_pairs_name_file_line_and_field() {
        let good = r#"{"sentence1":"a","sentence2":"b","score":1}"#;
        let cases = [
            (
                r#"{"sentence1":"a","score":1}"#,
                "field `sentence2`: expected one, found none",
            ),
            (
                r#"{"sentence1":7,"sentence2":"b","score":1}"#,
                "field `sentence1`: expected a string, found a number",
            ),
            (
                r#"{"sentence1":"a","sentence2":"b","score":"1"}"#,
                "field `score`: expected a number, found a string",
            ),
            (
                r#"{"sentence1":"a","sentence2":"b","score":null}"#,
                "field `score`: expected a number, found null",
            ),
            ("[1]", "expected an object, found a list"),
            (
                "{\"sentence1\"",
                "not JSON: EOF while parsing an object at line 1 column 12",
            ),
        ];
        for (bad, message) in cases {
            let file = file("pairs.jsonl", format!("{good}\n\n{bad}\n"));
            assert_eq!(
                error_text(&file, read_sentence_pairs(&file.path)),
                format!("pairs.jsonl: line 3: {message}\n  hint: {PAIR_HINT}")
            );
        }
    }

    #[test]
    fn one_pair_is_too_few() {
        let file = file("x.jsonl", r#"{"sentence1":"a","sentence2":"b","score":1}"#);
        assert_eq!(
            error_text(&file, read_sentence_pairs(&file.path)),
            "x.jsonl: expected at least two sentence pairs, found 1\n  hint: a line looks like {\"sentence1\": \"A man sings.\", \"sentence2\": \"A man is singing.\", \"score\": 4.8}"
        );
    }

    #[test]
    fn plain_text_keeps_empty_lines() {
        let file = file("x.txt", "\u{feff}first\r\n\nthird \n");
        assert_eq!(read_texts(&file.path).unwrap(), ["first", "", "third "]);
    }

    #[test]
    fn json_texts() {
        let file = file(
            "x.jsonl",
            "{\"label\":0,\"text\":\"a\\nb\"}\n{\"text\":\"\"}\n",
        );
        assert_eq!(read_texts(&file.path).unwrap(), ["a\nb", ""]);
    }

    #[test]
    fn csv_texts() {
        let file = file("x.csv", "label,text\n0,\"a, b\"\n1,c\n");
        assert_eq!(read_texts(&file.path).unwrap(), ["a, b", "c"]);
    }

    #[test]
    fn errors_of_texts() {
        let text = |name: &str, content: &[u8]| {
            let file = file(name, content);
            error_text(&file, read_texts(&file.path))
        };
        for (name, content, expected) in [
            (
                "x.jsonl",
                &b"{\"txt\":\"a\"}"[..],
                "x.jsonl: line 1: expected a field `text`, found `txt`",
            ),
            (
                "x.csv",
                b"txt,label\na,1\n",
                "x.csv: line 1: expected a column `text`, found `txt`, `label`",
            ),
            ("x.txt", b"ok\nab\xffc\n", "x.txt: line 2: expected UTF-8"),
        ] {
            let found = text(name, content);
            assert!(found.starts_with(expected), "{found}");
        }
        assert_eq!(
            text("x.txt", b""),
            "x.txt: expected at least one text, found 0\n  hint: every line is a text"
        );
        let missing = file("x.txt", "");
        let result = read_texts(missing.path.with_file_name("y.txt"));
        assert_eq!(
            error_text(&missing, result),
            "y.txt: No such file or directory (os error 2)\n  hint: check the path, and that you may read it"
        );
    }
}
