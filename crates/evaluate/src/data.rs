//! Texts and sentence pairs from files in UTF-8.

use std::path::Path;

use fewbit_data::{Column, DEFAULT_TEXT_COLUMN, DataFile, FileFormat};

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

/// The columns (JSON: fields) of a file of sentence pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairColumns {
    /// Of the first sentences.
    pub sentence1: String,
    /// Of the second sentences.
    pub sentence2: String,
    /// Of the scores.
    pub score: String,
}

impl Default for PairColumns {
    fn default() -> Self {
        Self {
            sentence1: "sentence1".to_owned(),
            sentence2: "sentence2".to_owned(),
            score: "score".to_owned(),
        }
    }
}

const PAIR_HINT: &str = r#"a line of JSONL looks like {"sentence1": "A man sings.", "sentence2": "A man is singing.", "score": 4.8}"#;

/// Reads pairs from the named columns of JSONL, JSON, CSV, TSV or Parquet (a file of another name is JSONL); other columns are ignored.
///
/// # Errors
/// Naming file, line or row, and column. A file with fewer than two pairs is an error, as no correlation is defined on it.
pub fn read_sentence_pairs(
    path: impl AsRef<Path>,
    columns: &PairColumns,
) -> Result<Vec<SentencePair>, EvaluateError> {
    let path = path.as_ref();
    let file = DataFile::new(path, Some(FileFormat::of_rows(path, true)));
    let columns = [
        Column::text(&columns.sentence1),
        Column::text(&columns.sentence2),
        Column::number(&columns.score),
    ]
    .map(|column| column.named_by("--data-fields"));
    let mut pairs = Vec::new();
    file.for_each_row(&columns, &mut |row| {
        pairs.push(SentencePair {
            sentence1: row.text(0).to_owned(),
            sentence2: row.text(1).to_owned(),
            score: row.number(2),
        });
        Ok(())
    })?;
    if pairs.len() < 2 {
        return Err(EvaluateError::TooLittleData {
            origin: file.name().to_owned(),
            expected: "two sentence pairs",
            found: pairs.len(),
            hint: PAIR_HINT,
        });
    }
    Ok(pairs)
}

/// Reads the texts of the named columns, each a text of its own, of JSONL, JSON, CSV, TSV and Parquet; without names those of the column
/// `text`, and every line of any other file, the empty ones too, so that line and row numbers agree.
///
/// # Errors
/// Naming file, line or row, and column. A file without any text is an error.
pub fn read_texts(path: impl AsRef<Path>, fields: &[String]) -> Result<Vec<String>, EvaluateError> {
    let path = path.as_ref();
    let file = DataFile::new(path, Some(FileFormat::of_rows(path, !fields.is_empty())));
    let columns = match fields {
        [] => vec![Column::text(DEFAULT_TEXT_COLUMN)],
        fields => fields.iter().map(Column::text).collect(),
    };
    let mut texts = Vec::new();
    file.for_each_row(&columns, &mut |row| {
        if let Some(remark) = row.remark() {
            tracing::warn!("{remark}");
        }
        texts.extend((0..row.cells().len()).map(|index| row.text(index).to_owned()));
        Ok(())
    })?;
    if texts.is_empty() {
        return Err(EvaluateError::TooLittleData {
            origin: file.name().to_owned(),
            expected: "one text",
            found: 0,
            hint: match file.format().has_columns() {
                true => "a row has a text in its column `text`, or in those that --field names",
                false => "every line is a text",
            },
        });
    }
    Ok(texts)
}

/// Texts for a classifier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassTexts {
    /// The texts.
    pub texts: Vec<String>,
    /// For each of them the text that is read with it; empty, where texts are read alone.
    pub pairs: Vec<String>,
    /// For each of them the right label, as the data spell it; empty, where none are known.
    pub labels: Vec<String>,
}

/// The columns (JSON: fields) of a file of texts for a classifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassColumns {
    /// Of the texts.
    pub text: String,
    /// Of the texts that are read with them.
    pub pair: Option<String>,
    /// Of the right labels: texts or whole numbers.
    pub label: Option<String>,
}

/// Reads texts, and what else is named, from JSONL, JSON, CSV, TSV or Parquet (a file of another name is JSONL).
///
/// # Errors
/// Naming file, line or row, and column. A file without any text is an error.
pub fn read_class_texts(
    path: impl AsRef<Path>,
    columns: &ClassColumns,
) -> Result<ClassTexts, EvaluateError> {
    let path = path.as_ref();
    let file = DataFile::new(path, Some(FileFormat::of_rows(path, true)));
    let text = Column::text(&columns.text);
    let pair = columns.pair.as_ref();
    let pair = pair.map(|name| Column::text(name).named_by("--pair-column"));
    let label = columns.label.as_ref();
    let label = label.map(|name| Column::label(name).named_by("--label-column"));
    let has_pairs = pair.is_some();
    let has_labels = label.is_some();
    let columns: Vec<Column> = [text].into_iter().chain(pair).chain(label).collect();
    let mut found = ClassTexts::default();
    file.for_each_row(&columns, &mut |row| {
        found.texts.push(row.text(0).to_owned());
        if has_pairs {
            found.pairs.push(row.text(1).to_owned());
        }
        if has_labels {
            found.labels.push(row.text(columns.len() - 1).to_owned());
        }
        Ok(())
    })?;
    if found.texts.is_empty() {
        return Err(EvaluateError::TooLittleData {
            origin: file.name().to_owned(),
            expected: "one text",
            found: 0,
            hint: "a row has a text and its label",
        });
    }
    Ok(found)
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
        let pairs = read_sentence_pairs(&file.path, &PairColumns::default()).unwrap();
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
                "expected a field `sentence2`, found `sentence1`, `score`",
            ),
            (
                r#"{"sentence1":"a","sentence2":"b","score":"1"}"#,
                "field `score`: expected a number, found a string",
            ),
            (
                r#"{"sentence1":"a","sentence2":"b","score":NaN}"#,
                "field `score`: expected a number, found null, NaN or infinity",
            ),
        ];
        for (bad, message) in cases {
            let file = file("pairs.jsonl", format!("{good}\n\n{bad}\n"));
            let text = error_text(
                &file,
                read_sentence_pairs(&file.path, &PairColumns::default()),
            );
            assert!(
                text.starts_with(&format!("pairs.jsonl: line 3: {message}")),
                "{text}"
            );
        }
    }

    #[test]
    fn pairs_come_from_named_columns_of_every_format() {
        let columns = PairColumns {
            sentence1: "a".to_owned(),
            sentence2: "b".to_owned(),
            score: "s".to_owned(),
        };
        for (name, content) in [
            (
                "x.jsonl",
                "{\"a\":\"p\",\"b\":\"q\",\"s\":1.5,\"c\":NaN}\n{\"a\":\"r\",\"b\":\"t\",\"s\":2,\"c\":\"\\ud800\"}\n",
            ),
            (
                "x.json",
                "[{\"a\":\"p\",\"b\":\"q\",\"s\":1.5},\n {\"a\":\"r\",\"b\":\"t\",\"s\":2}]",
            ),
            ("x.csv", "s,a,b\n1.5,p,q\n2,r,t\n"),
            ("x.tsv", "a\tb\ts\np\tq\t1.5\nr\tt\t2\n"),
        ] {
            let file = file(name, content);
            let pairs = read_sentence_pairs(&file.path, &columns).unwrap();
            let found: Vec<_> = pairs
                .iter()
                .map(|pair| (pair.sentence1.as_str(), pair.sentence2.as_str(), pair.score))
                .collect();
            assert_eq!(found, [("p", "q", 1.5), ("r", "t", 2.0)], "{name}");
            assert_eq!(
                read_texts(&file.path, &["b".to_owned(), "a".to_owned()]).unwrap(),
                ["q", "p", "t", "r"],
                "{name}"
            );
        }
    }

    #[test]
    fn labels_are_texts_or_whole_numbers() {
        let columns = ClassColumns {
            text: "a".to_owned(),
            pair: Some("b".to_owned()),
            label: Some("l".to_owned()),
        };
        for (name, content) in [
            (
                "x.jsonl",
                "{\"a\":\"p\",\"b\":\"q\",\"l\":1}\n{\"a\":\"r\",\"b\":\"t\",\"l\":\"good\"}\n",
            ),
            ("x.csv", "l,a,b\n1,p,q\ngood,r,t\n"),
            ("x.tsv", "a\tb\tl\np\tq\t1\nr\tt\tgood\n"),
        ] {
            let file = file(name, content);
            let found = read_class_texts(&file.path, &columns).unwrap();
            assert_eq!(found.texts, ["p", "r"], "{name}");
            assert_eq!(found.pairs, ["q", "t"], "{name}");
            assert_eq!(found.labels, ["1", "good"], "{name}");
        }
        let bad = file("x.jsonl", "{\"a\":\"p\",\"b\":\"q\",\"l\":0.5}\n");
        assert_eq!(
            error_text(&bad, read_class_texts(&bad.path, &columns)),
            "x.jsonl: line 1: field `l`: expected a string or a whole number, found a number\n  hint: name a field of labels, or remove the line"
        );
        let none = file("x.jsonl", "{\"a\":\"p\",\"b\":\"q\"}\n");
        let text = error_text(&none, read_class_texts(&none.path, &columns));
        assert!(text.contains("expected a field `l`, found `a`, `b`\n  hint: name the field that holds the label with --label-column"), "{text}");
    }

    #[test]
    fn one_pair_is_too_few() {
        let file = file("x.jsonl", r#"{"sentence1":"a","sentence2":"b","score":1}"#);
        assert_eq!(
            error_text(
                &file,
                read_sentence_pairs(&file.path, &PairColumns::default())
            ),
            "x.jsonl: expected at least two sentence pairs, found 1\n  hint: a line of JSONL looks like {\"sentence1\": \"A man sings.\", \"sentence2\": \"A man is singing.\", \"score\": 4.8}"
        );
    }

    #[test]
    fn texts_are_lines_or_the_column_text() {
        for (name, content, texts) in [
            (
                "x.txt",
                "\u{feff}first\r\n\nthird \n",
                &["first", "", "third "][..],
            ),
            (
                "x.jsonl",
                "{\"label\":0,\"text\":\"a\\nb\"}\n{\"text\":\"\"}\n",
                &["a\nb", ""],
            ),
            ("x.csv", "label,text\n0,\"a, b\"\n1,c\n", &["a, b", "c"]),
        ] {
            let file = file(name, content);
            assert_eq!(read_texts(&file.path, &[]).unwrap(), texts, "{name}");
        }
    }

    #[test]
    fn errors_of_texts() {
        let empty = file("x.txt", "");
        assert_eq!(
            error_text(&empty, read_texts(&empty.path, &[])),
            "x.txt: expected at least one text, found 0\n  hint: every line is a text"
        );
        let result = read_texts(empty.path.with_file_name("y.txt"), &[]);
        assert_eq!(
            error_text(&empty, result),
            "y.txt: No such file or directory (os error 2)\n  hint: check the path, and that you may read it"
        );
    }
}
