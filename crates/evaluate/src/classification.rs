//! Classifiers: agreement of two models' logits, and how often labels are right. Formulas: docs/numerics.md.

use fewbit_model::ScoreFunction;
use fewbit_numerics::logits::{decisions, divergence, divergence_of_decisions, largest};
use serde::{Deserialize, Serialize};

use crate::EvaluateError;

/// Logits of texts: a row for each text, a column for each label.
#[derive(Debug, Clone, Copy)]
pub struct ClassLogits<'v> {
    /// Labels.
    pub columns: usize,
    /// (texts, columns), row-major, finite.
    pub values: &'v [f32],
}

impl<'v> ClassLogits<'v> {
    fn shape(&self) -> [usize; 2] {
        [self.values.len() / self.columns.max(1), self.columns]
    }

    fn rows(&self) -> impl Iterator<Item = &'v [f32]> + use<'v> {
        self.values.chunks_exact(self.columns.max(1))
    }

    /// The label of each text: the one with the largest logit, the first of equal ones.
    pub fn labels(&self) -> Vec<usize> {
        self.rows().map(largest).collect()
    }
}

/// How close a classifier is to its reference, text by text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassifierAgreement {
    /// Share of the texts that both give the same label: the largest, or where each label is right or not by itself, the same set of
    /// labels with more than 1/2. None for a model whose output is a number.
    pub same_label: Option<f64>,
    /// Mean over the texts of the Kullback-Leibler divergence of the model's probabilities from the reference's, in nats. None for a model
    /// whose output is a number.
    pub mean_divergence: Option<f64>,
    /// Largest absolute difference of one logit.
    pub largest_logit_difference: f64,
}

impl ClassifierAgreement {
    /// Compares the logits of the model `name` with the reference, of the same texts; `function` makes probabilities of them.
    ///
    /// # Errors
    /// The shapes differ, or there is no text.
    pub fn between(
        name: &str,
        reference: ClassLogits<'_>,
        logits: ClassLogits<'_>,
        function: ScoreFunction,
    ) -> Result<Self, EvaluateError> {
        if reference.shape() != logits.shape() || reference.values.len() != logits.values.len() {
            return Err(EvaluateError::EmbeddingShape {
                name: name.to_owned(),
                expected: reference.shape(),
                found: logits.shape(),
            });
        }
        if reference.values.is_empty() {
            return Err(EvaluateError::TooLittleData {
                origin: format!("logits of `{name}`"),
                expected: "one text",
                found: 0,
                hint: "classify at least one text with both models",
            });
        }
        let pairs = || reference.rows().zip(logits.rows());
        let texts = pairs().count() as f64;
        let mean = |of_text: fn(&[f32], &[f32]) -> f64| {
            pairs().map(|(r, m)| of_text(r, m)).sum::<f64>() / texts
        };
        let (same_label, mean_divergence) = match function {
            ScoreFunction::Softmax => (
                Some(mean(|r, m| f64::from(u8::from(largest(r) == largest(m))))),
                Some(mean(divergence)),
            ),
            ScoreFunction::Sigmoid => (
                Some(mean(|r, m| {
                    f64::from(u8::from(decisions(r).eq(decisions(m))))
                })),
                Some(mean(divergence_of_decisions)),
            ),
            ScoreFunction::Identity => (None, None),
        };
        let differences = reference
            .values
            .iter()
            .zip(logits.values)
            .map(|(&r, &m)| (f64::from(r) - f64::from(m)).abs());
        Ok(Self {
            same_label,
            mean_divergence,
            largest_logit_difference: differences.fold(0.0, f64::max),
        })
    }
}

/// How often labels are right.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassificationQuality {
    /// Share of the texts whose label is right.
    pub accuracy: f64,
    /// Mean over the labels of F1; labels that neither a text has nor the model gives do not count.
    pub macro_f1: f64,
    /// Number of texts.
    pub texts: usize,
}

impl ClassificationQuality {
    /// Compares labels, given by their numbers, with the right ones.
    ///
    /// # Errors
    /// Their numbers differ, or there are none.
    pub fn evaluate(found: &[usize], right: &[usize]) -> Result<Self, EvaluateError> {
        if found.len() != right.len() {
            return Err(EvaluateError::EmbeddingShape {
                name: "labels".to_owned(),
                expected: [right.len(), 1],
                found: [found.len(), 1],
            });
        }
        if right.is_empty() {
            return Err(EvaluateError::TooLittleData {
                origin: "labels".to_owned(),
                expected: "one text",
                found: 0,
                hint: "a row has a text and its label",
            });
        }
        let labels = found.iter().chain(right).max().map_or(0, |most| most + 1);
        let (mut hits, mut given, mut there) =
            (vec![0u64; labels], vec![0u64; labels], vec![0u64; labels]);
        for (&found, &right) in found.iter().zip(right) {
            given[found] += 1;
            there[right] += 1;
            hits[right] += u64::from(found == right);
        }
        // 2 hits / (given + there) is the harmonic mean of hits / given and hits / there, and 0 where they have none in common.
        let scores: Vec<f64> = (0..labels)
            .filter(|&label| given[label] + there[label] > 0)
            .map(|label| 2.0 * hits[label] as f64 / (given[label] + there[label]) as f64)
            .collect();
        Ok(Self {
            accuracy: hits.iter().sum::<u64>() as f64 / right.len() as f64,
            macro_f1: scores.iter().sum::<f64>() / scores.len() as f64,
            texts: right.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement(reference: &[f32], model: &[f32], function: ScoreFunction) -> ClassifierAgreement {
        let logits = |values| ClassLogits { columns: 2, values };
        ClassifierAgreement::between("nf4", logits(reference), logits(model), function).unwrap()
    }

    /// Probabilities (3/4, 1/4) against (1/2, 1/2), then equal ones whose logits differ by a constant.
    #[test]
    fn agreement_by_hand() {
        let ln3 = 3f32.ln();
        let found = agreement(
            &[ln3, 0.0, 0.0, 2.0],
            &[1.0, 1.0, 0.5, 2.5],
            ScoreFunction::Softmax,
        );
        // 3/4 ln(3/2) + 1/4 ln(1/2), and 0.
        let expected = (0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln()) / 2.0;
        assert!(
            (found.mean_divergence.unwrap() - expected).abs() < 1e-7,
            "{found:?}"
        );
        // Equal logits: the first label, which is the reference's, too.
        assert_eq!(found.same_label, Some(1.0));
        assert_eq!(found.largest_logit_difference, 1.0);
        let found = agreement(
            &[1.0, 0.0, 0.0, 2.0],
            &[1.0, 2.0, 0.0, 2.0],
            ScoreFunction::Softmax,
        );
        assert_eq!(found.same_label, Some(0.5));
    }

    #[test]
    fn labels_that_are_right_by_themselves_agree_as_a_set() {
        // The first text has both labels, for the model only one; the second has none for either.
        let ln3 = 3f32.ln();
        let found = agreement(
            &[ln3, ln3, -1.0, -1.0],
            &[ln3, -ln3, -1.0, -1.0],
            ScoreFunction::Sigmoid,
        );
        assert_eq!(found.same_label, Some(0.5));
        // 3/4 ln(3) + 1/4 ln(1/3) of one label of four.
        let expected = 0.5 * 3f64.ln() / 2.0;
        assert!(
            (found.mean_divergence.unwrap() - expected).abs() < 1e-7,
            "{found:?}"
        );
    }

    #[test]
    fn a_number_has_no_label() {
        let found = agreement(&[1.0, 0.0], &[1.0, 0.25], ScoreFunction::Identity);
        assert_eq!((found.same_label, found.mean_divergence), (None, None));
        assert_eq!(found.largest_logit_difference, 0.25);
    }

    #[test]
    fn extreme_logits_have_a_finite_divergence() {
        let found = agreement(&[1e4, -1e4], &[-1e4, 1e4], ScoreFunction::Softmax);
        assert_eq!(found.mean_divergence, Some(2e4));
        let found = agreement(&[5.0, 5.0], &[5.0, 5.0], ScoreFunction::Softmax);
        assert_eq!(found.mean_divergence, Some(0.0));
    }

    #[test]
    fn quality_by_hand() {
        // Label 0: 2 hits, given 3 times, there twice. Label 1: 1 hit, given twice, there twice. Label 3: there once, never given.
        // Label 2 is nowhere.
        let found = ClassificationQuality::evaluate(&[0, 0, 0, 1, 1], &[0, 0, 1, 1, 3]).unwrap();
        assert_eq!(found.accuracy, 0.6);
        let expected = (4.0 / 5.0 + 2.0 / 4.0 + 0.0) / 3.0;
        assert!((found.macro_f1 - expected).abs() < 1e-15, "{found:?}");
        assert_eq!(found.texts, 5);
        let perfect = ClassificationQuality::evaluate(&[2, 0], &[2, 0]).unwrap();
        assert_eq!((perfect.accuracy, perfect.macro_f1), (1.0, 1.0));
        assert!(ClassificationQuality::evaluate(&[0], &[]).is_err());
        assert!(ClassificationQuality::evaluate(&[], &[]).is_err());
    }

    #[test]
    fn logits_that_do_not_belong_together_are_refused() {
        let of = |columns, values| ClassLogits { columns, values };
        let values = [0.0; 4];
        let between = |a, b| ClassifierAgreement::between("nf4", a, b, ScoreFunction::Softmax);
        assert!(between(of(2, &values), of(4, &values)).is_err());
        assert!(between(of(2, &values), of(2, &values[..2])).is_err());
        assert!(between(of(2, &[]), of(2, &[])).is_err());
    }
}
