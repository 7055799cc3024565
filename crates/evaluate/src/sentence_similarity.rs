//! Semantic textual similarity: do cosines of embeddings follow human scores?

use fewbit_model::Embeddings;
use fewbit_numerics::error_statistics::cosine;
use serde::{Deserialize, Serialize};

use crate::{EvaluateError, SentencePair, pearson, spearman};

/// Correlation between the cosines of the two embeddings of each pair and the human scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SentenceSimilarity {
    /// Spearman's rank correlation, -1..=1.
    pub spearman: f64,
    /// Pearson's correlation, -1..=1.
    pub pearson: f64,
    /// Number of pairs.
    pub pairs: usize,
}

impl SentenceSimilarity {
    /// `embeddings` are those of [`pair_texts`], `scores` those of the pairs.
    ///
    /// # Errors
    /// The number of embeddings is not twice that of the scores, or a correlation is not defined.
    pub fn evaluate(embeddings: &Embeddings, scores: &[f64]) -> Result<Self, EvaluateError> {
        let expected = [2 * scores.len(), embeddings.columns];
        if embeddings.rows != expected[0] {
            return Err(EvaluateError::EmbeddingShape {
                name: "sentence pairs".to_owned(),
                expected,
                found: [embeddings.rows, embeddings.columns],
            });
        }
        let columns = embeddings.columns;
        let (first, second) = embeddings.values.split_at(scores.len() * columns);
        let cosines: Vec<f64> = first
            .chunks_exact(columns.max(1))
            .zip(second.chunks_exact(columns.max(1)))
            .map(|(a, b)| cosine(a, b))
            .collect();
        Ok(Self {
            spearman: spearman(&cosines, scores)?,
            pearson: pearson(&cosines, scores)?,
            pairs: scores.len(),
        })
    }
}

/// The texts of `pairs` in the order that [`SentenceSimilarity::evaluate`] expects their embeddings:
/// the first sentence of every pair, then the second of every pair.
pub fn pair_texts(pairs: &[SentencePair]) -> Vec<&str> {
    let first = pairs.iter().map(|pair| pair.sentence1.as_str());
    let second = pairs.iter().map(|pair| pair.sentence2.as_str());
    first.chain(second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_first_sentences_then_second_ones() {
        let pair = |a: &str, b: &str| SentencePair {
            sentence1: a.to_owned(),
            sentence2: b.to_owned(),
            score: 0.0,
        };
        assert_eq!(
            pair_texts(&[pair("a", "b"), pair("c", "d")]),
            ["a", "c", "b", "d"]
        );
    }

    #[test]
    fn correlation_of_three_pairs_by_hand() {
        // Cosines of the pairs: 1, 0.6, 0; ranks 3, 2, 1 against 2, 3, 1.
        let embeddings = Embeddings {
            rows: 6,
            columns: 2,
            values: vec![1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 2.0, 0.0, 3.0, 4.0, 0.0, 5.0],
            truncated: Vec::new(),
            tokens: 0,
        };
        let result = SentenceSimilarity::evaluate(&embeddings, &[4.0, 5.0, 1.0]).unwrap();
        assert!((result.spearman - 0.5).abs() < 1e-12, "{result:?}");
        assert_eq!(result.pairs, 3);
        let error = SentenceSimilarity::evaluate(&embeddings, &[4.0, 5.0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "embeddings of `sentence pairs`: expected [4, 2] (texts, columns), found [6, 2]\n  hint: compare models of the same width on the same texts"
        );
    }
}
