//! A file of rows, and what it is written as.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::lines::for_each_line;
use crate::row::Place;
use crate::{Cell, Column, DataError, Row, csv_rows, json_rows, parquet_rows};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// One text a line.
    Lines,
    /// One JSON string or object a line.
    Jsonl,
    /// Comma-separated values with a header; separated by tabs in `.tsv` files.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl FileFormat {
    /// The format that the name of a file tells; none for a name that tells none.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "csv" | "tsv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// Whether rows have columns that can be named.
    pub fn has_columns(self) -> bool {
        self != Self::Lines
    }
}

/// A file of rows, or standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// None for standard input.
    path: Option<PathBuf>,
    name: String,
    format: FileFormat,
    /// Whether a line without text is an error.
    refuses_blank_lines: bool,
}

impl DataFile {
    /// The file at `path`, in the format given or else told by its name; any other name is one of [`FileFormat::Lines`].
    pub fn new(path: impl Into<PathBuf>, format: Option<FileFormat>) -> Self {
        let path = path.into();
        Self {
            name: path.display().to_string(),
            format: format
                .or_else(|| FileFormat::of(&path))
                .unwrap_or(FileFormat::Lines),
            path: Some(path),
            refuses_blank_lines: false,
        }
    }

    /// What comes on standard input.
    pub fn standard_input(format: FileFormat) -> Self {
        Self {
            path: None,
            name: "standard input".to_owned(),
            format,
            refuses_blank_lines: false,
        }
    }

    /// The same, where a line without text is an error. Otherwise it is an empty text among lines, and nothing in JSONL.
    #[must_use]
    pub fn refuse_blank_lines(mut self) -> Self {
        self.refuses_blank_lines = true;
        self
    }

    /// Where it lies; none for standard input.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is written.
    pub fn format(&self) -> FileFormat {
        self.format
    }

    /// The names of the columns: of the header, the schema, or the first object. None in a file of lines.
    ///
    /// # Errors
    /// As [`DataFile::for_each_row`]. Standard input can be read only once.
    pub fn column_names(&self) -> Result<Vec<String>, DataError> {
        match self.format {
            FileFormat::Lines => Ok(Vec::new()),
            FileFormat::Jsonl => {
                let mut line = String::new();
                let mut reader = self.open()?;
                let mut number = 0;
                while line.trim_start_matches('\u{feff}').trim().is_empty() {
                    line.clear();
                    number += 1;
                    if reader
                        .read_line(&mut line)
                        .map_err(|error| self.io(error))?
                        == 0
                    {
                        return Ok(Vec::new());
                    }
                }
                let place = Place {
                    file: &self.name,
                    unit: "line",
                    number,
                };
                json_rows::names(place, line.trim_start_matches('\u{feff}'))
            }
            FileFormat::Csv => csv_rows::names(self, &mut self.open()?),
            FileFormat::Parquet => parquet_rows::names(self),
        }
    }

    /// Calls `take` with every row, in order, until it fails. A row has a cell for each of `columns`; in a file of lines, whose rows have
    /// no columns, it has one text.
    ///
    /// # Errors
    /// Those of `take`; [`DataError::Io`]; [`DataError::Content`] for what is no such file, no UTF-8, or lacks a column that is not optional
    /// or has something else in it.
    pub fn for_each_row(
        &self,
        columns: &[Column],
        take: &mut dyn FnMut(&Row<'_>) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        match self.format {
            FileFormat::Csv => csv_rows::for_each_row(self, &mut self.open()?, columns, take),
            FileFormat::Parquet => parquet_rows::for_each_row(self, columns, take),
            FileFormat::Lines => for_each_line(self, &mut self.open()?, &mut |place, line| {
                self.check_blank(place, line)?;
                take(&Row {
                    place,
                    word: None,
                    columns,
                    cells: vec![Cell::Text(line.to_owned())],
                })
            }),
            FileFormat::Jsonl => for_each_line(self, &mut self.open()?, &mut |place, line| {
                if self.check_blank(place, line)? {
                    return Ok(());
                }
                take(&Row {
                    place,
                    word: Some(json_rows::WORD),
                    columns,
                    cells: json_rows::cells(place, line, columns)?,
                })
            }),
        }
    }

    /// Whether the line is blank, where that is allowed.
    fn check_blank(&self, place: Place<'_>, line: &str) -> Result<bool, DataError> {
        let blank = line.trim().is_empty();
        if blank && self.refuses_blank_lines {
            return Err(DataError::content(
                place.to_string(),
                "a text",
                "a line without one",
                "there is nothing to use in it: remove the line",
            ));
        }
        Ok(blank)
    }

    fn open(&self) -> Result<Box<dyn BufRead>, DataError> {
        Ok(match &self.path {
            Some(path) => Box::new(BufReader::new(
                File::open(path).map_err(|error| self.io(error))?,
            )),
            None => Box::new(io::stdin().lock()),
        })
    }

    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        self.path
            .as_ref()
            .and_then(|path| path.extension())
            .is_some_and(|found| found.eq_ignore_ascii_case(extension))
    }

    pub(crate) fn io(&self, source: io::Error) -> DataError {
        DataError::Io {
            path: self
                .path
                .clone()
                .unwrap_or_else(|| self.name.clone().into()),
            source,
        }
    }
}
