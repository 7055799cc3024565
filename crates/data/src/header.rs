//! Columns by the names in a file's first line, and what stands in them.

use crate::data_file::DataFile;
use crate::row::{Place, column_place};
use crate::{Cell, Column, ColumnKind, DataError};

/// The word for a column in messages about CSV and TSV.
pub(crate) const WORD: &str = "column";

/// Where the header has `column`; none if it is optional and not there.
pub(crate) fn index(
    file: &DataFile,
    names: &[&str],
    column: &Column,
) -> Result<Option<usize>, DataError> {
    let mut found = (0..names.len()).filter(|&index| names[index] == column.name);
    let place = || format!("{}: line 1", file.name());
    match (found.next(), found.next()) {
        (None, _) if column.optional => Ok(None),
        (None, _) => Err(column.missing(place(), WORD, names)),
        (Some(_), Some(_)) => Err(DataError::content(
            column_place(place(), WORD, &column.name),
            "one of that name",
            "several",
            "give the columns different names",
        )),
        (Some(_), None) if column.kind == ColumnKind::Integers => Err(DataError::content(
            column_place(place(), WORD, &column.name),
            column.kind.value(),
            format!(
                "a {} file, whose cells hold one value each",
                file.format().name()
            ),
            "write tokenized rows as JSONL or Parquet",
        )),
        (Some(index), None) => Ok(Some(index)),
    }
}

/// The error of a file without a header.
pub(crate) fn missing(file: &DataFile) -> DataError {
    DataError::content(
        file.name(),
        "a header that names the columns",
        "an empty file",
        format!(
            "the first line of a {} file holds the names",
            file.format().name()
        ),
    )
}

/// Reads the text of a row's cell in `column`.
pub(crate) fn cell(
    place: Place<'_>,
    column: &Column,
    text: Option<&str>,
) -> Result<Cell, DataError> {
    let Some(text) = text else {
        return Ok(Cell::Absent);
    };
    if column.kind != ColumnKind::Number {
        return Ok(Cell::Text(text.to_owned()));
    }
    match text.trim().parse() {
        Ok(number) if f64::is_finite(number) => Ok(Cell::Number(number)),
        _ if column.optional && text.trim().is_empty() => Ok(Cell::Absent),
        _ => Err(DataError::content(
            column_place(place, WORD, &column.name),
            column.kind.value(),
            format!("{:?}", text.chars().take(40).collect::<String>()),
            "name a column of numbers, or remove the row",
        )),
    }
}
