//! The rows of a CSV file with a header (RFC 4180).

mod guard;

use std::io::Read;

use csv::{ErrorKind, Reader, StringRecord};

use crate::data_file::DataFile;
use crate::header;
use crate::lines::not_read;
use crate::row::Place;
use crate::{Column, DataError, Row};
use guard::{Guard, Watch};

/// Calls `take` with each record after the header.
pub(crate) fn for_each_row(
    file: &DataFile,
    input: &mut dyn Read,
    columns: &[Column],
    take: &mut dyn FnMut(Row<'_>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let watch = Watch::default();
    let mut reader = Reader::from_reader(Guard::new(input, &watch));
    let header = header(file, &mut reader)?;
    let names: Vec<&str> = header.iter().collect();
    let indices: Vec<Option<usize>> = columns
        .iter()
        .map(|column| header::index(file, &names, column))
        .collect::<Result<_, _>>()?;
    let mut record = StringRecord::new();
    loop {
        watch.begin_record();
        let line = reader.position().line();
        let is_record = reader
            .read_record(&mut record)
            .map_err(|error| damaged(file, error, line))?;
        if reader.is_done()
            && let Some(line) = watch.open_quote()
        {
            return Err(DataError::content(
                format!("{}: line {line}", file.name()),
                "a quotation mark that closes the cell",
                "the end of the file",
                "a cell that begins with a quotation mark ends with one, and holds it twice: a file of texts without quoting is a .tsv or .txt file",
            ));
        }
        if !is_record {
            return Ok(());
        }
        let place = Place {
            file: file.name(),
            row_word: "line",
            number: record.position().map_or(0, csv::Position::line),
        };
        take(Row {
            place,
            word: Some(header::WORD),
            columns,
            cells: columns
                .iter()
                .zip(&indices)
                .map(|(column, index)| {
                    header::cell(place, column, index.and_then(|index| record.get(index)))
                })
                .collect::<Result<_, _>>()?,
            remark: None,
        })?;
    }
}

/// The names in the header.
pub(crate) fn names(file: &DataFile, input: &mut dyn Read) -> Result<Vec<String>, DataError> {
    let watch = Watch::default();
    let header = header(file, &mut Reader::from_reader(Guard::new(input, &watch)))?;
    Ok(header.iter().map(str::to_owned).collect())
}

fn header<R: Read>(file: &DataFile, reader: &mut Reader<R>) -> Result<StringRecord, DataError> {
    let header = reader.headers().map_err(|error| damaged(file, error, 1))?;
    if header.is_empty() {
        return Err(header::missing(file));
    }
    Ok(header.clone())
}

/// `line` is where the record begins, which errors of reading do not know.
fn damaged(file: &DataFile, error: csv::Error, line: u64) -> DataError {
    let number = error.position().map_or(line, csv::Position::line);
    let place = Place {
        file: file.name(),
        row_word: "line",
        number,
    };
    match error.into_kind() {
        ErrorKind::Io(error) => not_read(file, place, error),
        ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => DataError::content(
            place.to_string(),
            format!("{expected_len} cells, as many as the header has"),
            len.to_string(),
            "put a cell that holds the delimiter between double quotes",
        ),
        ErrorKind::Utf8 { err, .. } => DataError::content(
            place.to_string(),
            "UTF-8",
            format!("another byte in cell {}", err.field() + 1),
            "convert the file to UTF-8, for instance with iconv",
        ),
        other => DataError::content(
            place.to_string(),
            "CSV",
            format!("{other:?}"),
            "write the file with a CSV library",
        ),
    }
}
