//! SPLADE: from the logits of words for each token to one sparse vector of words for the text.

use crate::network::TaskHead;
use crate::sentence_modules::{SpladeSettings, SpladeStrategy};
use crate::{ModelError, Network, RaggedBatch};

/// Tokens whose logits are in memory at a time.
const TOKENS_A_STEP: usize = 64;

/// The head of a masked language model, and how its logits are pooled.
pub(super) struct Splade {
    pub(super) head: TaskHead,
    pub(super) settings: SpladeSettings,
}

impl Splade {
    /// Length of a text's vector: a value for each word.
    pub(super) fn columns(&self) -> usize {
        self.head.columns()
    }

    /// The vectors (sequences, words) of `batch`, whose hidden states are `states`.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`] with the number of the sequence as its row.
    pub(super) fn run(
        &self,
        network: &Network,
        batch: &RaggedBatch,
        states: &[f32],
        threads: usize,
    ) -> Result<Vec<f32>, ModelError> {
        let (words, hidden) = (self.columns(), network.spec().hidden_size);
        let mut vectors = vec![0.0f32; batch.sequences() * words];
        let mut logits = Vec::new();
        for (sequence, vector) in vectors.chunks_exact_mut(words).enumerate() {
            let tokens = batch.range(sequence);
            let step = match self.head.reads_whole_texts() {
                true => tokens.len(),
                false => TOKENS_A_STEP,
            };
            let mut sums = match self.settings.strategy {
                SpladeStrategy::Max => Vec::new(),
                SpladeStrategy::Sum => vec![0.0f64; words],
            };
            let states = &states[tokens.start * hidden..tokens.end * hidden];
            for rows in states.chunks(step * hidden) {
                logits.clear();
                logits.resize(rows.len() / hidden * words, 0.0);
                network
                    .run_head(&self.head, rows, &mut logits, threads)
                    .map_err(|error| error.at_row(|_| sequence))?;
                for logits in logits.chunks_exact(words) {
                    match self.settings.strategy {
                        // The function rises: the largest value is that of the largest logit.
                        SpladeStrategy::Max => {
                            for (largest, &logit) in vector.iter_mut().zip(logits) {
                                *largest = largest.max(logit);
                            }
                        }
                        SpladeStrategy::Sum => {
                            for (sum, &logit) in sums.iter_mut().zip(logits) {
                                *sum += f64::from(self.settings.activation(logit));
                            }
                        }
                    }
                }
            }
            match self.settings.strategy {
                SpladeStrategy::Max => {
                    for value in vector {
                        *value = self.settings.activation(*value);
                    }
                }
                SpladeStrategy::Sum => {
                    for (value, sum) in vector.iter_mut().zip(sums) {
                        *value = sum as f32;
                    }
                }
            }
        }
        Ok(vectors)
    }
}

/// Keeps the `count` largest values of `vector`, the first of equal ones.
pub(super) fn keep_largest(vector: &mut [f32], count: usize) {
    let mut active: Vec<usize> = (0..vector.len())
        .filter(|&word| vector[word] != 0.0)
        .collect();
    if active.len() <= count {
        return;
    }
    active.sort_by(|&a, &b| vector[b].total_cmp(&vector[a]));
    for &word in &active[count..] {
        vector[word] = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::keep_largest;

    #[test]
    fn the_largest_values_stay() {
        let kept = |count| {
            let mut vector = [0.0, 2.0, 1.0, 2.0, 0.5, 3.0];
            keep_largest(&mut vector, count);
            vector
        };
        assert_eq!(kept(2), [0.0, 2.0, 0.0, 0.0, 0.0, 3.0]);
        assert_eq!(kept(3), [0.0, 2.0, 0.0, 2.0, 0.0, 3.0]);
        assert_eq!(kept(5), [0.0, 2.0, 1.0, 2.0, 0.5, 3.0]);
        assert_eq!(kept(0), [0.0; 6]);
    }
}
