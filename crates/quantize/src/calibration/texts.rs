//! Calibration texts from a file, in bounded memory.

use std::path::{Path, PathBuf};

use fewbit_data::{Column, DEFAULT_TEXT_COLUMN, DataFile, FileFormat};

use super::reservoir::Reservoir;
use crate::QuantizeError;

/// The seed that samples are drawn with unless another is given.
pub const DEFAULT_SEED: u64 = 0;

/// How many texts or rows are to be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleSize {
    /// This many; a file of fewer is an error.
    Exactly(usize),
    /// This many, or all that a file has if it has fewer.
    UpTo(usize),
}

impl SampleSize {
    /// The most that are drawn.
    pub fn most(self) -> usize {
        match self {
            Self::Exactly(number) | Self::UpTo(number) => number,
        }
    }
}

/// What was drawn from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn<T> {
    /// The texts or rows, in the order of the file.
    pub samples: T,
    /// Blank texts that were passed over: they say nothing about a model's activations.
    pub blank: usize,
    /// Texts or rows to draw from; blank ones do not count.
    pub seen: usize,
}

/// A file of texts: one a line, or the named columns of JSONL (`.jsonl`, `.ndjson`, or any name that tells nothing if columns are given),
/// JSON (`.json`), CSV (`.csv`), TSV (`.tsv`) or Parquet (`.parquet`).
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
        let format = FileFormat::of_rows(&path, !columns.is_empty());
        let columns = match columns {
            [] => vec![Column::text(DEFAULT_TEXT_COLUMN)],
            columns => columns.iter().map(Column::text).collect(),
        };
        Self {
            file: DataFile::new(&path, Some(format)),
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

    /// Draws texts, every choice being equally likely, in one pass that holds no more than these texts and what the reader looks at. They
    /// come in the order of the file; the same seed draws the same. Blank texts are passed over.
    ///
    /// # Errors
    /// [`QuantizeError::Data`] naming the line or row and the column for what cannot be read; [`QuantizeError::Calibration`] for a file of
    /// fewer texts than asked.
    pub fn draw(&self, size: SampleSize, seed: u64) -> Result<Drawn<Vec<String>>, QuantizeError> {
        let mut drawn = Reservoir::new(size.most(), seed);
        let mut blank = 0;
        self.file.for_each_row(&self.columns, &mut |row| {
            if let Some(remark) = row.remark() {
                tracing::warn!("{remark}");
            }
            for index in 0..row.cells().len() {
                let text = row.text(index);
                if text.trim().is_empty() {
                    blank += 1;
                } else {
                    drawn.take(text.to_owned());
                }
            }
            Ok(())
        })?;
        let seen = drawn.seen();
        expect_samples(&self.path, size, seen, "texts")?;
        Ok(Drawn {
            samples: drawn.into_items(),
            blank,
            seen,
        })
    }
}

/// Draws `most` of `texts`, or all of fewer, as [`CalibrationFile::draw`] does: in their order, blank ones passed over.
pub fn draw_texts(texts: Vec<String>, most: usize, seed: u64) -> Vec<String> {
    let mut drawn = Reservoir::new(most, seed);
    for text in texts {
        if !text.trim().is_empty() {
            drawn.take(text);
        }
    }
    drawn.into_items()
}

/// Errors unless there is something to draw, and enough of it.
pub(super) fn expect_samples(
    path: &Path,
    size: SampleSize,
    found: usize,
    what: &str,
) -> Result<(), QuantizeError> {
    let least = match size {
        SampleSize::Exactly(number) => number,
        SampleSize::UpTo(number) => number.min(1),
    };
    if size.most() > 0 && found >= least {
        return Ok(());
    }
    let found = match size.most() {
        0 => "0 samples".to_owned(),
        _ => found.to_string(),
    };
    Err(QuantizeError::Calibration {
        place: path.display().to_string(),
        expected: format!("at least {} {what}", least.max(1)),
        found,
        hint: format!("give a file of more {what}, or ask for fewer samples"),
    })
}
