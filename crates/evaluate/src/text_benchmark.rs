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

/// One pass over all texts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TextPass {
    /// From the first text to the last embedding.
    pub seconds: f64,
    /// Tokens, special tokens included.
    pub tokens: usize,
    /// Texts that were cut at the model's limit.
    pub truncated: usize,
}

impl TextPass {
    /// Encodes all `texts` once, in batches of `options.batch_size`.
    ///
    /// # Errors
    /// No texts; errors of the model.
    pub fn measure<S: AsRef<str> + Sync>(
        encoder: &Encoder,
        texts: &[S],
        order: TextOrder,
        options: &EncodeOptions,
    ) -> Result<Self, EvaluateError> {
        if texts.is_empty() {
            return Err(EvaluateError::TooLittleData {
                origin: "texts to measure with".to_owned(),
                expected: "one text",
                found: 0,
                hint: "give at least one text",
            });
        }
        // The encoder sorts what it is given at once.
        let together = match order {
            TextOrder::AsGiven => options.batch_size.max(1),
            TextOrder::ByLength => texts.len(),
        };
        let (mut tokens, mut truncated) = (0, 0);
        let started = Instant::now();
        for texts in texts.chunks(together) {
            let embeddings = encoder.encode(texts, options)?;
            tokens += embeddings.tokens;
            truncated += embeddings.truncated.len();
        }
        Ok(Self {
            seconds: started.elapsed().as_secs_f64(),
            tokens,
            truncated,
        })
    }
}
