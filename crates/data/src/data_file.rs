//! A file of rows: its path and its format.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::{DataError, FileFormat};

/// Bytes that are read from a file at once.
const BUFFER: usize = 1 << 16;

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

    /// Standard input, with rows written as `format`.
    pub fn standard_input(format: FileFormat) -> Self {
        Self {
            path: None,
            name: "standard input".to_owned(),
            format,
        }
    }

    /// Its path; none for standard input.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is written.
    pub fn format(&self) -> FileFormat {
        self.format
    }

    /// Opens it at its start; standard input goes on where it was.
    pub(crate) fn open(&self) -> Result<Box<dyn BufRead>, DataError> {
        Ok(match &self.path {
            Some(path) => Box::new(BufReader::with_capacity(
                BUFFER,
                File::open(path).map_err(|error| self.io(error))?,
            )),
            None => Box::new(io::stdin().lock()),
        })
    }

    /// The error of reading it.
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
