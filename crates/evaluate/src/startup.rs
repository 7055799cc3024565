//! How soon a model is there.

use std::path::Path;
use std::time::Instant;

use fewbit_model::{EncodeOptions, Encoder, EncoderSettings};
use serde::{Deserialize, Serialize};

use crate::{EvaluateError, peak_resident_bytes};

/// The text of the first embedding.
const FIRST_TEXT: &str = "The first text that a model is given.";

/// From a directory to the first embedding.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Startup {
    /// Opening the directory: weights and tokenizer.
    pub load_seconds: f64,
    /// Opening the directory and embedding one short text.
    pub first_embedding_seconds: f64,
    /// Peak resident memory of this process until then; `None` where the system does not tell.
    pub peak_resident_bytes: Option<u64>,
}

impl Startup {
    /// Opens the model in `directory` as `settings` say and embeds one short text. What the system keeps of its files from earlier reads
    /// counts, and so does what this process has done before: measure it in a fresh one.
    ///
    /// # Errors
    /// Errors of reading the directory or running the model.
    pub fn measure(
        directory: &Path,
        settings: &EncoderSettings,
        threads: usize,
    ) -> Result<Self, EvaluateError> {
        let options = EncodeOptions {
            threads,
            ..EncodeOptions::default()
        };
        let started = Instant::now();
        let encoder = Encoder::open_with_settings(directory, settings)?;
        let load_seconds = started.elapsed().as_secs_f64();
        encoder.encode(&[FIRST_TEXT], &options)?;
        Ok(Self {
            load_seconds,
            first_embedding_seconds: started.elapsed().as_secs_f64(),
            peak_resident_bytes: peak_resident_bytes(),
        })
    }
}
