//! A file of rows, and what it is written as.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::json_array::for_each_element;
use crate::lines::for_each_line;
use crate::row::Place;
use crate::{Cell, Column, DataError, Row, csv_rows, json_rows, parquet_rows, tsv_rows};

/// Bytes that are read from a file at once.
const BUFFER: usize = 1 << 16;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// One text a line.
    Lines,
    /// One JSON string or object a line.
    Jsonl,
    /// One JSON array of strings or objects; or one string or object a line.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// Values separated by tabs, with a header and without quoting.
    Tsv,
    /// Apache Parquet.
    Parquet,
}

impl FileFormat {
    /// The format that the name of a file tells; none for a name that tells none.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// The format that the name of a file tells; for a name that tells none JSONL where columns are named, and else lines.
    pub fn of_rows(path: &Path, names_columns: bool) -> Self {
        Self::of(path).unwrap_or(match names_columns {
            true => Self::Jsonl,
            false => Self::Lines,
        })
    }

    /// Whether rows have columns that can be named.
    pub fn has_columns(self) -> bool {
        self != Self::Lines
    }

    /// What messages call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lines => "text",
            Self::Jsonl => "JSONL",
            Self::Json => "JSON",
            Self::Csv => "CSV",
            Self::Tsv => "TSV",
            Self::Parquet => "Parquet",
        }
    }
}

/// A file of rows, or standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// None for standard input.
    path: Option<PathBuf>,
    name: String,
    format: FileFormat,
}

impl DataFile {
    /// The file at `path`, in the format given or else told by its name; any other name is one of [`FileFormat::Lines`].
    pub fn new(path: impl Into<PathBuf>, format: Option<FileFormat>) -> Self {
        let path = path.into();
        Self {
            name: path.display().to_string(),
            format: format.unwrap_or_else(|| FileFormat::of_rows(&path, false)),
            path: Some(path),
        }
    }

    /// What comes on standard input.
    pub fn standard_input(format: FileFormat) -> Self {
        Self {
            path: None,
            name: "standard input".to_owned(),
            format,
        }
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
        if self.format == FileFormat::Parquet {
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
        match self.format {
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
        if self.format == FileFormat::Json {
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

    fn open(&self) -> Result<Box<dyn BufRead>, DataError> {
        Ok(match &self.path {
            Some(path) => Box::new(BufReader::with_capacity(
                BUFFER,
                File::open(path).map_err(|error| self.io(error))?,
            )),
            None => Box::new(io::stdin().lock()),
        })
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

/// A remark on a line of text that looks like JSON.
fn json_in_lines(place: Place<'_>, line: &str) -> Option<String> {
    let start = ["{\"", "["]
        .into_iter()
        .find(|start| line.starts_with(start))?;
    Some(format!(
        "{place}: the line begins with `{start}`, as JSON does, and is read as plain text\n  hint: rows of JSON are read from a file named *.jsonl or *.json"
    ))
}
