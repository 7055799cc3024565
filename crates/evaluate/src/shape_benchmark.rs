//! Speed of the network alone, on batches of sequences of one length.

use std::time::Instant;

use fewbit_model::{EncoderSpec, Network, RaggedBatch, Role};
use serde::{Deserialize, Serialize};

use crate::EvaluateError;

/// A batch of sequences that all have the same number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchShape {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub tokens: usize,
}

impl BatchShape {
    /// Tokens of all sequences; saturates.
    pub fn total_tokens(self) -> usize {
        self.batch.saturating_mul(self.tokens)
    }

    /// Multiply-adds of the matrix products of one pass: with t tokens in a sequence, every sequence takes
    ///
    /// `t * sum over linear layers of (out * in) + layers * 2 * t^2 * hidden_size`
    ///
    /// The first term is the linear layers of the encoder ([`Catalogue::linear_modules`](fewbit_model::Catalogue::linear_modules)); the second is attention, whose
    /// scores and weighted sums of values are each t x t products of `head_size` terms in every head. Element-wise work
    /// (LayerNorm, softmax, activation, embedding lookups) is not counted. Saturates at the largest number.
    ///
    /// ```
    /// # let file = std::path::Path::new("config.json");
    /// use fewbit_evaluate::BatchShape;
    /// use fewbit_model::EncoderSpec;
    ///
    /// let config = serde_json::json!({
    ///     "model_type": "bert", "vocab_size": 100, "hidden_size": 8, "num_hidden_layers": 1,
    ///     "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 10
    /// });
    /// let spec = EncoderSpec::from_config(&config, file)?;
    /// let shape = BatchShape { batch: 1, tokens: 3 };
    /// // Four 8 x 8 and two 8 x 16 matrices for 3 tokens each; two products of 3 x 3 x 8.
    /// assert_eq!(shape.multiply_adds(&spec), 3 * (4 * 64 + 2 * 128) + 2 * 72);
    /// # Ok::<(), fewbit_model::ModelError>(())
    /// ```
    pub fn multiply_adds(self, spec: &EncoderSpec) -> u64 {
        let tokens = self.tokens as u64;
        let passes = spec.passes();
        let weights = spec
            .catalogue()
            .linear_modules()
            // These run once, when the model is loaded.
            .filter(|linear| !matches!(linear.role, Role::PositionKey | Role::PositionQuery))
            .map(|linear| {
                let size = (linear.shape[0] as u64).saturating_mul(linear.shape[1] as u64);
                let times = linear.layer.map_or(1, |layer| {
                    passes.iter().filter(|pass| **pass == layer).count()
                });
                size.saturating_mul(times as u64)
            })
            .fold(0, u64::saturating_add);
        let attention = (passes.len() as u64)
            .saturating_mul(2)
            .saturating_mul(tokens)
            .saturating_mul(tokens)
            .saturating_mul(spec.hidden_size as u64);
        tokens
            .saturating_mul(weights)
            .saturating_add(attention)
            .saturating_mul(self.batch as u64)
    }

    /// Token ids that are the same in every run, spread over the whole vocabulary, so that lookups find the word
    /// embeddings no sooner than those of a text. The padding token of models that number positions by it is left out.
    pub fn token_ids(self, spec: &EncoderSpec) -> RaggedBatch {
        // Fibonacci hashing (Knuth, The Art of Computer Programming 3, section 6.4): 2^32 divided by the golden ratio.
        const STEP: u32 = 0x9E37_79B9;
        let vocabulary = spec.vocab_size.max(1) as u64;
        let id = |position: usize| {
            let hash = u64::from((position as u32).wrapping_add(1).wrapping_mul(STEP));
            let id = (hash * vocabulary) >> 32;
            let is_padding = spec.positions.padding_id.map(u64::from) == Some(id);
            (if is_padding {
                (id + 1) % vocabulary
            } else {
                id
            }) as u32
        };
        let mut batch = RaggedBatch::new();
        for sequence in 0..self.batch {
            let first = sequence * self.tokens;
            let ids: Vec<u32> = (first..first + self.tokens).map(id).collect();
            batch.push(&ids, &[]);
        }
        batch
    }
}

/// Most passes that [`time_shape`] times: more tell no more, and their times would be memory that is not the model's.
const MAXIMUM_CALLS: usize = 100_000;

/// Passes over a batch of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ShapeRequest {
    /// The batch.
    pub shape: BatchShape,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Passes follow one another until so many seconds have passed.
    pub minimum_seconds: f64,
    /// Whether a pass that is not timed comes first.
    pub warm_up: bool,
}

/// Seconds of each pass of `network` that is timed: at least one, at most 100,000.
///
/// # Errors
/// An empty shape; errors of the model, for instance of sequences longer than it has positions.
pub fn time_shape(network: &Network, request: &ShapeRequest) -> Result<Vec<f64>, EvaluateError> {
    let batch = checked_batch(network, request.shape)?;
    if request.warm_up {
        network.hidden_states(&batch, request.threads)?;
    }
    let started = Instant::now();
    let mut seconds = Vec::new();
    loop {
        let call = Instant::now();
        network.hidden_states(&batch, request.threads)?;
        seconds.push(call.elapsed().as_secs_f64());
        let enough = started.elapsed().as_secs_f64() >= request.minimum_seconds;
        if enough || seconds.len() == MAXIMUM_CALLS {
            return Ok(seconds);
        }
    }
}

/// The batch of a shape that is not empty.
pub(crate) fn checked_batch(
    network: &Network,
    shape: BatchShape,
) -> Result<RaggedBatch, EvaluateError> {
    if shape.total_tokens() == 0 {
        return Err(EvaluateError::TooLittleData {
            origin: format!("a batch of {} x {} tokens", shape.batch, shape.tokens),
            expected: "one token",
            found: 0,
            hint: "give a batch of at least 1 and at least 1 token",
        });
    }
    Ok(shape.token_ids(network.spec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    fn spec(config: &Value) -> EncoderSpec {
        EncoderSpec::from_config(config, Path::new("config.json")).unwrap()
    }

    #[test]
    fn multiply_adds_of_minilm_by_hand() {
        let minilm = spec(&json!({
            "model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6,
            "num_attention_heads": 12, "intermediate_size": 1536, "max_position_embeddings": 512
        }));
        // A layer: 4 * 384^2 + 2 * 384 * 1536 = 1,769,472; six of them: 10,616,832 a token.
        // Attention: 6 * 2 * 384 = 4,608 a pair of tokens.
        let of = |batch, tokens| BatchShape { batch, tokens }.multiply_adds(&minilm);
        assert_eq!(of(1, 1), 10_616_832 + 4_608);
        assert_eq!(of(1, 16), 16 * 10_616_832 + 256 * 4_608);
        assert_eq!(of(8, 128), 8 * 1_434_451_968);
        assert_eq!(128 * 10_616_832 + 16_384 * 4_608, 1_434_451_968);
        assert_eq!(of(0, 16), 0);
        assert_eq!(of(usize::MAX, usize::MAX), u64::MAX);
    }

    #[test]
    fn the_projection_after_small_embeddings_counts() {
        let electra = spec(&json!({
            "model_type": "electra", "vocab_size": 100, "embedding_size": 16, "hidden_size": 32,
            "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
            "max_position_embeddings": 40
        }));
        let shape = BatchShape {
            batch: 3,
            tokens: 5,
        };
        let linear = 32 * 16 + 2 * (4 * 32 * 32 + 2 * 32 * 64);
        assert_eq!(
            shape.multiply_adds(&electra),
            3 * (5 * linear + 2 * 2 * 25 * 32)
        );
    }

    #[test]
    fn token_ids_are_valid_spread_and_free_of_padding() {
        let roberta = spec(&json!({
            "model_type": "roberta", "vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 66, "pad_token_id": 1
        }));
        let shape = BatchShape {
            batch: 4,
            tokens: 64,
        };
        let batch = shape.token_ids(&roberta);
        assert_eq!((batch.sequences(), batch.tokens()), (4, 256));
        assert!((0..4).all(|sequence| batch.range(sequence).len() == 64));
        assert_eq!(batch, shape.token_ids(&roberta));
        let mut seen = [0; 50];
        for &id in &batch.token_ids {
            seen[id as usize] += 1;
        }
        assert_eq!(seen[1], 0);
        // 256 ids over 50 words; the word after the padding token stands in for it, too.
        assert!(
            seen.iter()
                .enumerate()
                .all(|(id, &count)| id == 1 || (3..=12).contains(&count)),
            "{seen:?}"
        );
    }
}
