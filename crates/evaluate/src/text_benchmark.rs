//! Speed on texts, tokenization included, in the order in which they come and sorted by length.

use std::ops::Range;
use std::time::Instant;

use fewbit_model::prediction::TextInput;
use fewbit_model::{EncodeOptions, Encoder, Predictor};
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
    /// For each of them the text that is read with it; none, where texts are read alone.
    #[serde(default)]
    pub pairs: Vec<String>,
    /// Which texts make up a batch.
    pub order: TextOrder,
    /// Texts run together, at least 1.
    pub batch_size: usize,
    /// Worker threads, at least 1.
    pub threads: usize,
}

impl TextRequest {
    /// Each text with its pair.
    pub fn inputs(&self) -> Vec<TextInput<'_>> {
        let input = |index: usize| TextInput {
            text: &self.texts[index],
            pair: self.pairs.get(index).map(String::as_str),
        };
        (0..self.texts.len()).map(input).collect()
    }

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
        Self::of_calls(request, |part| {
            let embeddings = encoder.encode(&request.texts[part], &request.options())?;
            Ok((embeddings.tokens, embeddings.truncated.len()))
        })
    }

    /// Classifies all texts of `request`, with their pairs, once.
    ///
    /// # Errors
    /// No texts; errors of the model.
    pub fn measure_classifier(
        predictor: &Predictor,
        request: &TextRequest,
    ) -> Result<Self, EvaluateError> {
        let inputs = request.inputs();
        Self::of_calls(request, |part| {
            let logits = predictor.text_logits(&inputs[part], &request.options())?;
            Ok((logits.tokens, logits.truncated.len()))
        })
    }

    /// Times `run` for each part of the texts, of which it tells the tokens, and how many it cut.
    fn of_calls(
        request: &TextRequest,
        mut run: impl FnMut(Range<usize>) -> Result<(usize, usize), EvaluateError>,
    ) -> Result<Self, EvaluateError> {
        let texts = &request.texts;
        if texts.is_empty() {
            return Err(EvaluateError::TooLittleData {
                origin: "texts to measure with".to_owned(),
                expected: "one text",
                found: 0,
                hint: "give at least one text",
            });
        }
        // A model sorts what it is given at once.
        let together = match request.order {
            TextOrder::AsGiven => request.batch_size.max(1),
            TextOrder::ByLength => texts.len(),
        };
        let mut pass = Self {
            call_seconds: Vec::new(),
            tokens: 0,
            truncated: 0,
        };
        for start in (0..texts.len()).step_by(together) {
            let part = start..texts.len().min(start + together);
            let started = Instant::now();
            let (tokens, truncated) = run(part)?;
            pass.call_seconds.push(started.elapsed().as_secs_f64());
            pass.tokens += tokens;
            pass.truncated += truncated;
        }
        Ok(pass)
    }

    /// Seconds of all calls together.
    pub fn seconds(&self) -> f64 {
        self.call_seconds.iter().sum()
    }
}
