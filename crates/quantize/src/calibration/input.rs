//! What a model is calibrated with: texts, or rows that are tokenized already.

use std::ops::Range;
use std::path::Path;

use fewbit_data::tokens::INPUT_IDS;
use fewbit_data::{DEFAULT_TEXT_COLUMN, DataFile, TokenColumns, TokenRow};
use fewbit_model::{Encoder, EncoderSpec, RaggedBatch};
use sha2::{Digest, Sha256};

use super::fingerprint::hexadecimal;
use super::texts::{CalibrationFile, Drawn, SampleSize};
use super::tokens::TokenizedFile;
use crate::QuantizeError;

/// A file to calibrate with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalibrationInput {
    /// Of texts, which the model's tokenizer cuts into tokens.
    Texts(CalibrationFile),
    /// Of token ids.
    Tokens(TokenizedFile),
}

impl CalibrationInput {
    /// The file at `path` where nobody said which columns to read: texts, but token ids where the file has a column `input_ids` and none
    /// named `text`.
    ///
    /// # Errors
    /// [`QuantizeError::Data`] for a file whose names of columns cannot be read.
    pub fn detect(path: &Path) -> Result<Self, QuantizeError> {
        let names = DataFile::new(path, None).column_names()?;
        let has = |name: &str| names.iter().any(|known| known == name);
        Ok(if has(INPUT_IDS) && !has(DEFAULT_TEXT_COLUMN) {
            Self::Tokens(TokenizedFile::new(path, TokenColumns::new(INPUT_IDS, None)))
        } else {
            Self::Texts(CalibrationFile::new(path, &[]))
        })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        match self {
            Self::Texts(file) => file.path(),
            Self::Tokens(file) => file.path(),
        }
    }

    /// The names of the columns that are read.
    pub fn columns(&self) -> Vec<String> {
        match self {
            Self::Texts(file) => file.columns().map(str::to_owned).collect(),
            Self::Tokens(file) => {
                let columns = file.columns();
                [
                    columns.input_ids(),
                    columns.attention_mask(),
                    columns.token_type_ids(),
                ]
                .map(str::to_owned)
                .to_vec()
            }
        }
    }

    /// Draws texts or rows for the model of `spec`.
    ///
    /// # Errors
    /// Those of [`CalibrationFile::draw`] and [`TokenizedFile::draw`].
    pub fn draw(
        &self,
        size: SampleSize,
        seed: u64,
        spec: &EncoderSpec,
    ) -> Result<Drawn<CalibrationSamples>, QuantizeError> {
        Ok(match self {
            Self::Texts(file) => {
                let Drawn {
                    samples,
                    blank,
                    seen,
                } = file.draw(size, seed)?;
                Drawn {
                    samples: CalibrationSamples::Texts(samples),
                    blank,
                    seen,
                }
            }
            Self::Tokens(file) => {
                let (rows, seen) = file.draw(size, seed, spec)?;
                Drawn {
                    samples: CalibrationSamples::Tokens(rows),
                    blank: 0,
                    seen,
                }
            }
        })
    }

    /// [`CalibrationInput::draw`] of exactly `samples`.
    ///
    /// # Errors
    /// The same.
    pub fn sample(
        &self,
        samples: usize,
        seed: u64,
        spec: &EncoderSpec,
    ) -> Result<CalibrationSamples, QuantizeError> {
        Ok(self.draw(SampleSize::Exactly(samples), seed, spec)?.samples)
    }
}

/// What was drawn from a [`CalibrationInput`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalibrationSamples {
    /// None of them is empty.
    Texts(Vec<String>),
    /// Rows without padding.
    Tokens(Vec<TokenRow>),
}

impl CalibrationSamples {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Tokens(rows) => rows.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples from `first` on, in batches of `batch_size`: their numbers.
    ///
    /// # Panics
    /// `batch_size` is 0.
    pub fn batches(
        &self,
        first: usize,
        batch_size: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let end = self.len();
        let starts = (first..end).step_by(batch_size);
        starts.map(move |start| start..end.min(start.saturating_add(batch_size)))
    }

    /// The tokens of the samples in `range`, which must be below [`len`](Self::len), as the model runs them.
    ///
    /// # Errors
    /// Those of [`Encoder::batch`].
    pub fn batch(
        &self,
        encoder: &Encoder,
        range: Range<usize>,
    ) -> Result<RaggedBatch, QuantizeError> {
        Ok(match self {
            Self::Texts(texts) => encoder.batch(&texts[range])?,
            Self::Tokens(rows) => {
                let mut batch = RaggedBatch::new();
                for row in &rows[range] {
                    batch.push(&row.token_ids, &row.token_type_ids);
                }
                batch
            }
        })
    }

    /// SHA-256 of all of it, in hexadecimal digits.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        // Every part behind its length, so that no two lists of samples are the same bytes.
        let mut numbers = |numbers: &[u32]| {
            hash.update((numbers.len() as u64).to_le_bytes());
            for number in numbers {
                hash.update(number.to_le_bytes());
            }
        };
        match self {
            Self::Tokens(rows) => {
                for row in rows {
                    numbers(&row.token_ids);
                    numbers(&row.token_type_ids);
                }
            }
            Self::Texts(texts) => {
                for text in texts {
                    hash.update((text.len() as u64).to_le_bytes());
                    hash.update(text.as_bytes());
                }
            }
        }
        hexadecimal(&hash.finalize())
    }
}
