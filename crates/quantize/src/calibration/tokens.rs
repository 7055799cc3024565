//! Calibration rows that are tokenized already, in bounded memory.

use std::path::{Path, PathBuf};

use fewbit_data::tokens::for_each_token_row;
use fewbit_data::{DataFile, FileFormat, TokenColumns, TokenLimits, TokenRow};
use fewbit_model::EncoderSpec;

use super::reservoir::Reservoir;
use super::texts::{SampleSize, expect_samples};
use crate::QuantizeError;

/// A file of token ids: JSONL (`.jsonl`, `.ndjson`, or any name that tells nothing), JSON (`.json`) or Parquet (`.parquet`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedFile {
    path: PathBuf,
    file: DataFile,
    columns: TokenColumns,
}

impl TokenizedFile {
    /// The file at `path`, and where it has ids, mask and types.
    pub fn new(path: impl Into<PathBuf>, columns: TokenColumns) -> Self {
        let path = path.into();
        let format = FileFormat::of_rows(&path, true);
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

    /// Its columns.
    pub fn columns(&self) -> &TokenColumns {
        &self.columns
    }

    /// Draws rows as [`CalibrationFile::draw`](super::texts::CalibrationFile::draw) draws texts, without their padding; also says how many
    /// there were. Every row has to be one that the model of `spec` can run, drawn or not.
    ///
    /// # Errors
    /// Those of [`for_each_token_row`]; [`QuantizeError::Calibration`] for a file of fewer rows than asked.
    pub fn draw(
        &self,
        size: SampleSize,
        seed: u64,
        spec: &EncoderSpec,
    ) -> Result<(Vec<TokenRow>, usize), QuantizeError> {
        let limits = TokenLimits {
            vocabulary_size: spec.vocab_size,
            max_tokens: spec.positions.max_tokens(),
            token_types: spec.token_types.max(1),
        };
        let mut drawn = Reservoir::new(size.most(), seed);
        for_each_token_row(&self.file, &self.columns, limits, &mut |row| {
            drawn.take(row);
            Ok(())
        })?;
        let seen = drawn.seen();
        expect_samples(&self.path, size, seen, "rows")?;
        Ok((drawn.into_items(), seen))
    }
}
