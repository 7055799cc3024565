//! Reads the rows of a [`DataFile`] with the reader of its format.

use std::io::{self, BufRead};

use crate::json_array::for_each_element;
use crate::lines::for_each_line;
use crate::row::Place;
use crate::{
    Cell, Column, DataError, DataFile, FileFormat, Row, csv_rows, json_rows, parquet_rows, tsv_rows,
};

impl DataFile {
    /// The names of the columns: of the header, the schema, or the first object. None in a file of lines.
    ///
    /// # Errors
    /// As [`DataFile::for_each_row`]. Standard input can be read only once.
    pub fn column_names(&self) -> Result<Vec<String>, DataError> {
        match self.format() {
            FileFormat::Lines => Ok(Vec::new()),
            FileFormat::Jsonl | FileFormat::Json => {
                let mut names = None;
                let result = self.for_each_json(&mut *self.open()?, &mut |place, text| {
                    names = Some(json_rows::names(place, text)?);
                    // Ends the reading: one row is enough.
                    Err(self.io(io::ErrorKind::Interrupted.into()))
                });
                match names {
                    Some(names) => Ok(names),
                    None => result.map(|()| Vec::new()),
                }
            }
            FileFormat::Csv => csv_rows::names(self, &mut self.open()?),
            FileFormat::Tsv => tsv_rows::names(self, &mut *self.open()?),
            FileFormat::Parquet => parquet_rows::names(self),
        }
    }

    /// Calls `take` with every row, in order, until it fails. A row has a cell for each of `columns`; in a file of lines, whose rows have
    /// no columns, it has one text. Memory is bounded by the longest row, and that by 16 MiB.
    ///
    /// # Errors
    /// Those of `take`; [`DataError::Io`]; [`DataError::Content`] for what is no such file, no UTF-8, too long, or lacks a column that is
    /// not optional or has something else in it.
    pub fn for_each_row(
        &self,
        columns: &[Column],
        take: &mut dyn FnMut(&Row<'_>) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        if self.format() == FileFormat::Parquet {
            return parquet_rows::for_each_row(self, columns, take);
        }
        self.for_each_row_of(&mut *self.open()?, columns, take)
    }

    /// [`DataFile::for_each_row`] of what `input` holds instead of the file.
    ///
    /// # Errors
    /// As [`DataFile::for_each_row`]; and for Parquet, which cannot be read from its start to its end.
    pub fn for_each_row_of(
        &self,
        mut input: &mut dyn BufRead,
        columns: &[Column],
        take: &mut dyn FnMut(&Row<'_>) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let mut remarked = false;
        let mut once = |mut row: Row<'_>| {
            if remarked {
                row.remark = None;
            }
            remarked |= row.remark.is_some();
            take(&row)
        };
        match self.format() {
            FileFormat::Lines => for_each_line(self, input, &mut |place, line| {
                once(Row {
                    place,
                    word: None,
                    columns,
                    cells: vec![Cell::Text(line.to_owned())],
                    remark: json_in_lines(place, line),
                })
            }),
            FileFormat::Jsonl | FileFormat::Json => {
                self.for_each_json(input, &mut |place, text| {
                    once(Row {
                        place,
                        word: Some(json_rows::WORD),
                        columns,
                        cells: json_rows::cells(place, text, columns)?,
                        remark: None,
                    })
                })
            }
            FileFormat::Csv => csv_rows::for_each_row(self, &mut input, columns, &mut once),
            FileFormat::Tsv => tsv_rows::for_each_row(self, input, columns, &mut once),
            FileFormat::Parquet => Err(parquet_rows::not_a_file(self)),
        }
    }

    /// The place and the text of every JSON value; blank lines are none.
    fn for_each_json(
        &self,
        input: &mut dyn BufRead,
        take: &mut dyn FnMut(Place<'_>, &str) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        if self.format() == FileFormat::Json {
            let start = input.fill_buf().map_err(|error| self.io(error))?;
            let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
            if start.trim_ascii_start().starts_with(b"[") {
                return for_each_element(self, input, take);
            }
        }
        for_each_line(
            self,
            input,
            &mut |place, line| match line.trim().is_empty() {
                true => Ok(()),
                false => take(place, line),
            },
        )
    }
}

/// A remark on a line of text that looks like JSON.
fn json_in_lines(place: Place<'_>, line: &str) -> Option<String> {
    let start = ["{\"", "["]
        .into_iter()
        .find(|start| line.starts_with(start))?;
    Some(format!(
        "{place}: the line begins with `{start}`, as JSON does, and is read as plain text\n  hint: rows of JSON are read from a file named *.jsonl or *.json"
    ))
}
