//! Calibration texts from a file, in bounded memory.

use std::path::{Path, PathBuf};

use fewbit_data::{Column, DEFAULT_TEXT_COLUMN, DataFile, FileFormat};

use super::reservoir::Reservoir;
use crate::QuantizeError;

/// The seed that samples are drawn with unless another is given.
pub const DEFAULT_SEED: u64 = 0;

/// A file of texts: one a line, or the named columns of JSONL (`.jsonl`, `.ndjson`, or any name that tells nothing if columns are given),
/// CSV (`.csv`, `.tsv`) or Parquet (`.parquet`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationFile {
    path: PathBuf,
    file: DataFile,
    columns: Vec<Column>,
}

impl CalibrationFile {
    /// The file at `path`. `columns` are those to take texts from, each a text of its own; `text` if none is given.
    pub fn new(path: impl Into<PathBuf>, columns: &[String]) -> Self {
        let path = path.into();
        let format = FileFormat::of(&path).unwrap_or(if columns.is_empty() {
            FileFormat::Lines
        } else {
            FileFormat::Jsonl
        });
        let columns = match columns {
            [] => vec![Column::text(DEFAULT_TEXT_COLUMN)],
            columns => columns.iter().map(Column::text).collect(),
        };
        Self {
            file: DataFile::new(&path, Some(format)).refuse_blank_lines(),
            path,
            columns,
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the columns that are read.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Draws `samples` texts, every choice being equally likely, in one pass that holds no more than these texts and what the reader looks
    /// at. They come in the order of the file; the same seed draws the same.
    ///
    /// # Errors
    /// [`QuantizeError::Data`] naming the line or row and the column for what is empty or cannot be read; [`QuantizeError::Calibration`] for
    /// a file of fewer texts than asked.
    pub fn sample(&self, samples: usize, seed: u64) -> Result<Vec<String>, QuantizeError> {
        let mut drawn = Reservoir::new(samples, seed);
        self.file.for_each_row(&self.columns, &mut |row| {
            for index in 0..row.cells().len() {
                let text = row.text(index);
                if text.trim().is_empty() {
                    let hint = "an empty text says nothing about a model's activations: remove it";
                    return Err(row.error(index, "a text", "an empty one", hint));
                }
                drawn.take(text.to_owned());
            }
            Ok(())
        })?;
        expect_samples(&self.path, samples, drawn.seen(), "texts")?;
        Ok(drawn.into_items())
    }
}

/// Errors unless there is something to draw, and enough of it.
pub(super) fn expect_samples(
    path: &Path,
    asked: usize,
    found: usize,
    what: &str,
) -> Result<(), QuantizeError> {
    if asked > 0 && found >= asked {
        return Ok(());
    }
    let found = if asked == 0 {
        "0 samples".to_owned()
    } else {
        found.to_string()
    };
    Err(QuantizeError::Calibration {
        place: path.display().to_string(),
        expected: format!("at least {} {what}", asked.max(1)),
        found,
        hint: format!("give a file of more {what}, or ask for fewer samples"),
    })
}
