//! The rows of a file of values separated by tabs, as GLUE and spreadsheets without quoting write it: a line is a row, a tab ends a cell,
//! and a quotation mark is a character like any other.

use std::io::{self, BufRead};

use crate::data_file::DataFile;
use crate::header;
use crate::lines::for_each_line;
use crate::row::column_place;
use crate::{Column, ColumnKind, DataError, Row};

/// Calls `take` with each row after the header.
pub(crate) fn for_each_row(
    file: &DataFile,
    input: &mut dyn BufRead,
    columns: &[Column],
    take: &mut dyn FnMut(Row<'_>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut indices: Option<(usize, Vec<Option<usize>>)> = None;
    for_each_line(file, input, &mut |place, line| {
        if line.is_empty() {
            return Ok(());
        }
        let cells: Vec<&str> = line.split('\t').collect();
        let Some((width, indices)) = &indices else {
            let found = columns
                .iter()
                .map(|column| header::index(file, &cells, column))
                .collect::<Result<_, _>>()?;
            indices = Some((cells.len(), found));
            return Ok(());
        };
        if cells.len() != *width {
            return Err(DataError::content(
                place.to_string(),
                format!("{width} cells, as many as the header has"),
                cells.len().to_string(),
                "every line is a row, and a tab ends a cell even between quotation marks: write texts that hold tabs or line ends as CSV or JSONL",
            ));
        }
        let quoted = |(column, index): (&Column, &Option<usize>)| {
            let cell = cells[(*index)?];
            let quoted = cell.len() > 1 && cell.starts_with('"') && cell.ends_with('"');
            (quoted && column.kind == ColumnKind::Text).then(|| {
                format!(
                    "{}: a text stands between quotation marks, which are kept: values separated by tabs are not quoted\n  hint: where they are not part of the text, write the file as CSV or JSONL",
                    column_place(place, header::WORD, &column.name)
                )
            })
        };
        take(Row {
            place,
            word: Some(header::WORD),
            columns,
            cells: columns
                .iter()
                .zip(indices)
                .map(|(column, index)| header::cell(place, column, index.map(|index| cells[index])))
                .collect::<Result<_, _>>()?,
            remark: columns.iter().zip(indices).find_map(quoted),
        })
    })?;
    match indices {
        Some(_) => Ok(()),
        None => Err(header::missing(file)),
    }
}

/// The names in the header.
pub(crate) fn names(file: &DataFile, input: &mut dyn BufRead) -> Result<Vec<String>, DataError> {
    let mut names = None;
    let result = for_each_line(file, input, &mut |_, line| {
        if !line.is_empty() {
            names = Some(line.split('\t').map(str::to_owned).collect());
            // Ends the reading: the header is enough.
            return Err(file.io(io::ErrorKind::Interrupted.into()));
        }
        Ok(())
    });
    match names {
        Some(names) => Ok(names),
        None => Err(result.err().unwrap_or_else(|| header::missing(file))),
    }
}
