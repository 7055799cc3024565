//! Speed on texts, tokenization included, in the order in which they come and sorted by length.

use std::time::Instant;

use fewbit_model::{EncodeOptions, Encoder};
use serde::{Deserialize, Serialize};

use crate::EvaluateError;

/// Which texts make up a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextOrder {
    /// Those that follow one another, as a stream of texts would be embedded: short and long ones together.
    AsGiven,
    /// Texts of like length, as all texts that are there from the start are embedded.
    ByLength,
}

impl TextOrder {
    /// Both.
    pub const ALL: [TextOrder; 2] = [Self::AsGiven, Self::ByLength];
}

/// Texts to encode, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextRequest {
    /// Texts to encode.
    pub texts: Vec<String>,
    /// Which texts make up a batch.
    pub order: TextOrder,
    /// Texts run together, at least 1.
    pub batch_size: usize,
    /// Worker threads, at least 1.
    pub threads: usize,
}

impl TextRequest {
    /// How to run.
    pub fn options(&self) -> EncodeOptions {
        EncodeOptions {
            threads: self.threads,
            batch_size: self.batch_size,
        }
    }
}

/// One pass over all texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextPass {
    /// Of each call: of each batch where texts are taken as they are given, otherwise of the only one.
    pub call_seconds: Vec<f64>,
    /// Tokens, special tokens included.
    pub tokens: usize,
    /// Texts that were cut at the model's limit.
    pub truncated: usize,
}

impl TextPass {
    /// Encodes all texts of `request` once.
    ///
    /// # Errors
    /// No texts; errors of the model.
    pub fn measure(encoder: &Encoder, request: &TextRequest) -> Result<Self, EvaluateError> {
        let texts = &request.texts;
        if texts.is_empty() {
            return Err(EvaluateError::TooLittleData {
                origin: "texts to measure with".to_owned(),
                expected: "one text",
                found: 0,
                hint: "give at least one text",
            });
        }
        // The encoder sorts what it is given at once.
        let together = match request.order {
            TextOrder::AsGiven => request.batch_size.max(1),
            TextOrder::ByLength => texts.len(),
        };
        let mut pass = Self {
            call_seconds: Vec::new(),
            tokens: 0,
            truncated: 0,
        };
        for texts in texts.chunks(together) {
            let started = Instant::now();
            let embeddings = encoder.encode(texts, &request.options())?;
            pass.call_seconds.push(started.elapsed().as_secs_f64());
            pass.tokens += embeddings.tokens;
            pass.truncated += embeddings.truncated.len();
        }
        Ok(pass)
    }

    /// Seconds of all calls together.
    pub fn seconds(&self) -> f64 {
        self.call_seconds.iter().sum()
    }
}
