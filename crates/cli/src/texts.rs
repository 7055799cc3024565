//! Reading texts from a file or standard input.

use crate::arguments::TextFormat;
use anyhow::{Context, Result};
use fewbit::data::{Column, DEFAULT_TEXT_COLUMN, DataError, DataFile, FileFormat};
use std::io::IsTerminal;
use std::path::Path;

/// What `-i` names, read to its end.
///
/// # Errors
/// The file cannot be read, or is not what the format says. Each error names the file and the line or row.
pub(crate) fn read(
    path: &Path,
    format: Option<TextFormat>,
    field: Option<&str>,
) -> Result<Vec<String>> {
    let format = format
        .map(|format| match format {
            TextFormat::Lines => FileFormat::Lines,
            TextFormat::Jsonl => FileFormat::Jsonl,
            TextFormat::Csv => FileFormat::Csv,
            TextFormat::Parquet => FileFormat::Parquet,
        })
        .or_else(|| FileFormat::of(path))
        .unwrap_or(if field.is_some() {
            FileFormat::Jsonl
        } else {
            FileFormat::Lines
        });
    let file = if path == Path::new("-") {
        if std::io::stdin().is_terminal() {
            crate::streams::note(
                "reading texts from standard input, one a line; end with Ctrl-D\n",
            );
        }
        DataFile::standard_input(format)
    } else {
        DataFile::new(path, Some(format))
    };
    let column = Column::text(field.unwrap_or(DEFAULT_TEXT_COLUMN));
    let mut texts = Vec::new();
    let result = file.for_each_row(&[column], &mut |row| {
        texts.push(row.text(0).to_owned());
        Ok(())
    });
    match result {
        Ok(()) => Ok(texts),
        Err(DataError::Io { source, .. }) => Err(source).with_context(|| {
            format!("{}: cannot read the texts\n  hint: -i names a file of texts, or is - for standard input", file.name())
        }),
        Err(error) => Err(error.into()),
    }
}
