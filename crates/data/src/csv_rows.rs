//! The rows of a CSV file with a header (RFC 4180; tabs in a `.tsv` file).

use std::io::Read;

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};

use crate::data_file::DataFile;
use crate::row::{Place, column_place};
use crate::{Cell, Column, ColumnKind, DataError, Row};

/// What CSV calls a column.
const WORD: &str = "column";

/// Calls `take` with each record after the header.
pub(crate) fn for_each_row(
    file: &DataFile,
    input: &mut dyn Read,
    columns: &[Column],
    take: &mut dyn FnMut(&Row<'_>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut reader = reader(file, input);
    let header = header(file, &mut reader)?;
    let indices: Vec<Option<usize>> = columns
        .iter()
        .map(|column| index(file, &header, column))
        .collect::<Result<_, _>>()?;
    let mut record = StringRecord::new();
    while reader
        .read_record(&mut record)
        .map_err(|error| damaged(file, error))?
    {
        let number = record.position().map_or(0, csv::Position::line);
        let text = |index: &Option<usize>| match index.and_then(|index| record.get(index)) {
            Some(text) => Cell::Text(text.to_owned()),
            None => Cell::Absent,
        };
        take(&Row {
            place: Place {
                file: file.name(),
                unit: "line",
                number,
            },
            word: Some(WORD),
            columns,
            cells: indices.iter().map(text).collect(),
        })?;
    }
    Ok(())
}

/// The names in the header.
pub(crate) fn names(file: &DataFile, input: &mut dyn Read) -> Result<Vec<String>, DataError> {
    let header = header(file, &mut reader(file, input))?;
    Ok(header.iter().map(str::to_owned).collect())
}

fn reader<'i>(file: &DataFile, input: &'i mut dyn Read) -> Reader<&'i mut dyn Read> {
    let delimiter = if file.has_extension("tsv") {
        b'\t'
    } else {
        b','
    };
    ReaderBuilder::new().delimiter(delimiter).from_reader(input)
}

fn header(file: &DataFile, reader: &mut Reader<&mut dyn Read>) -> Result<StringRecord, DataError> {
    let header = reader.headers().map_err(|error| damaged(file, error))?;
    if header.is_empty() {
        return Err(DataError::content(
            file.name(),
            "a header that names the columns",
            "an empty file",
            "the first line of a CSV file holds the names",
        ));
    }
    Ok(header.clone())
}

fn index(
    file: &DataFile,
    header: &StringRecord,
    column: &Column,
) -> Result<Option<usize>, DataError> {
    let names: Vec<&str> = header.iter().collect();
    let mut found = (0..names.len()).filter(|&index| names[index] == column.name);
    let place = || format!("{}: line 1", file.name());
    match (found.next(), found.next()) {
        (None, _) if column.optional => Ok(None),
        (None, _) => Err(column.missing(place(), WORD, &names)),
        (Some(_), Some(_)) => Err(DataError::content(
            column_place(place(), WORD, &column.name),
            "one of that name",
            "several",
            "give the columns different names",
        )),
        (Some(_), None) if column.kind == ColumnKind::Integers => Err(DataError::content(
            column_place(place(), WORD, &column.name),
            column.kind.value(),
            "a CSV file, whose cells hold one value each",
            "write tokenized rows as JSONL or Parquet",
        )),
        (Some(index), None) => Ok(Some(index)),
    }
}

fn damaged(file: &DataFile, error: csv::Error) -> DataError {
    let line = error.position().map(csv::Position::line);
    let place = match line {
        Some(line) => format!("{}: line {line}", file.name()),
        None => file.name().to_owned(),
    };
    match error.into_kind() {
        ErrorKind::Io(error) => file.io(error),
        ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => DataError::content(
            place,
            format!("{expected_len} cells, as many as the header has"),
            len.to_string(),
            "put a cell that holds the delimiter between double quotes",
        ),
        ErrorKind::Utf8 { err, .. } => DataError::content(
            place,
            "UTF-8",
            format!("another byte in cell {}", err.field() + 1),
            "convert the file to UTF-8, for instance with iconv",
        ),
        other => DataError::content(
            place,
            "CSV",
            format!("{other:?}"),
            "write the file with a CSV library",
        ),
    }
}
