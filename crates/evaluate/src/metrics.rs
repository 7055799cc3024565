//! Correlation, and agreement of two sets of embeddings.

use fewbit_model::Embeddings;
use fewbit_numerics::error_statistics::cosine;
use serde::{Deserialize, Serialize};

use crate::EvaluateError;

/// A metric is not defined for its input.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// The two lists differ in length.
    #[error(
        "correlation: expected two lists of the same length, found {left} and {right} values\n  hint: give one score for each pair of texts"
    )]
    Lengths {
        /// Values in the first list.
        left: usize,
        /// Values in the second list.
        right: usize,
    },
    /// Fewer than two pairs of values.
    #[error(
        "correlation: expected at least 2 pairs of values, found {found}\n  hint: measure on a data set with more pairs"
    )]
    TooFew {
        /// How many there are.
        found: usize,
    },
    /// A NaN or infinity.
    #[error(
        "correlation: expected finite values, found {value} at {index}\n  hint: look for the pair at this position, counted from 0: its score or its embeddings are no numbers"
    )]
    NonFinite {
        /// Position in its list.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A list whose values are all equal: nothing varies with the other list.
    #[error(
        "correlation: expected values that differ, found {value} everywhere in the {which} list\n  hint: measure on pairs of different similarity; a model that finds all of them equal may be damaged"
    )]
    Constant {
        /// "first" or "second".
        which: &'static str,
        /// The value.
        value: f64,
    },
}

/// Pearson's correlation coefficient: with means `A` and `B`,
/// `sum (a - A)(b - B) / sqrt(sum (a - A)^2 * sum (b - B)^2)`, in -1..=1.
///
/// # Errors
/// Where the coefficient is not defined: see [`MetricError`].
///
/// ```
/// // Deviations from the means: (-1, 0, 1) and (-1, 1, 0).
/// assert_eq!(fewbit_evaluate::pearson(&[1.0, 2.0, 3.0], &[1.0, 3.0, 2.0]), Ok(0.5));
/// ```
pub fn pearson(a: &[f64], b: &[f64]) -> Result<f64, MetricError> {
    check(a, b)?;
    let (a, b) = (deviations(a), deviations(b));
    let sum = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    Ok((sum(&a, &b) / (sum(&a, &a) * sum(&b, &b)).sqrt()).clamp(-1.0, 1.0))
}

/// 2^-512: 2^510 times the least normal f64.
const TINY: f64 = f64::from_bits((1023 - 512) << 52);

/// Deviations from the mean, over the largest of them: the coefficient does not depend on the scale,
/// and squares of numbers up to 1 cannot overflow.
fn deviations(values: &[f64]) -> Vec<f64> {
    let magnitude = |values: &[f64]| {
        values
            .iter()
            .fold(0.0, |most: f64, value| most.max(value.abs()))
    };
    // Powers of two: half of everything, so that no difference of two finite values overflows, or so
    // much more that nothing is lost below the least float.
    let factor = if magnitude(values) < TINY {
        1.0 / TINY
    } else {
        0.5
    };
    let count = values.len() as f64;
    let scaled = values.iter().map(|value| factor * value);
    let mean = scaled.clone().map(|value| value / count).sum::<f64>();
    let deviations: Vec<f64> = scaled.map(|value| value - mean).collect();
    let largest = magnitude(&deviations);
    deviations
        .iter()
        .map(|deviation| deviation / largest)
        .collect()
}

/// Spearman's rank correlation coefficient: [`pearson`] of the [`average_ranks`].
///
/// # Errors
/// Where the coefficient is not defined: see [`MetricError`].
pub fn spearman(a: &[f64], b: &[f64]) -> Result<f64, MetricError> {
    check(a, b)?;
    pearson(&average_ranks(a), &average_ranks(b))
}

/// Rank of each value, from 1; values that are equal share the mean of the ranks that they take up.
///
/// ```
/// use fewbit_evaluate::metrics::average_ranks;
/// assert_eq!(average_ranks(&[10.0, 30.0, 10.0, 20.0]), [1.5, 4.0, 1.5, 3.0]);
/// ```
pub fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    // `==` on the values, so that 0 and -0 tie.
    for tie in order.chunk_by(|&i, &j| values[i] == values[j]) {
        // Mean of first + 1 ..= first + tie.len().
        let rank = first as f64 + (tie.len() + 1) as f64 / 2.0;
        for &index in tie {
            ranks[index] = rank;
        }
        first += tie.len();
    }
    ranks
}

fn check(a: &[f64], b: &[f64]) -> Result<(), MetricError> {
    if a.len() != b.len() {
        return Err(MetricError::Lengths {
            left: a.len(),
            right: b.len(),
        });
    }
    if a.len() < 2 {
        return Err(MetricError::TooFew { found: a.len() });
    }
    for (which, values) in [("first", a), ("second", b)] {
        if let Some((index, &value)) = values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(MetricError::NonFinite { index, value });
        }
        if values.iter().all(|value| *value == values[0]) {
            return Err(MetricError::Constant {
                which,
                value: values[0],
            });
        }
    }
    Ok(())
}

/// How close the embeddings of a model are to those of its reference, text by text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingAgreement {
    /// Mean over the texts of the cosine between the two embeddings of a text.
    pub mean_cosine: f64,
    /// The least of these cosines.
    pub minimum_cosine: f64,
    /// Largest absolute difference of one component.
    pub largest_absolute_difference: f64,
}

impl EmbeddingAgreement {
    /// Compares the embeddings of the model `name` with the reference, of the same texts.
    ///
    /// # Errors
    /// The shapes differ, or there is no text.
    pub fn between(
        name: &str,
        reference: &Embeddings,
        embeddings: &Embeddings,
    ) -> Result<Self, EvaluateError> {
        let shape = |embeddings: &Embeddings| [embeddings.rows, embeddings.columns];
        if shape(reference) != shape(embeddings) {
            return Err(EvaluateError::EmbeddingShape {
                name: name.to_owned(),
                expected: shape(reference),
                found: shape(embeddings),
            });
        }
        if reference.values.is_empty() {
            return Err(EvaluateError::TooLittleData {
                origin: format!("embeddings of `{name}`"),
                expected: "one text",
                found: 0,
                hint: "encode at least one text with both models",
            });
        }
        let rows = reference
            .values
            .chunks_exact(reference.columns)
            .zip(embeddings.values.chunks_exact(embeddings.columns));
        let cosines: Vec<f64> = rows.map(|(r, e)| cosine(r, e)).collect();
        let differences = reference
            .values
            .iter()
            .zip(&embeddings.values)
            .map(|(&r, &e)| (f64::from(r) - f64::from(e)).abs());
        Ok(Self {
            mean_cosine: cosines.iter().sum::<f64>() / cosines.len() as f64,
            minimum_cosine: least(cosines.iter().copied()),
            largest_absolute_difference: -least(differences.map(|difference| -difference)),
        })
    }
}

/// The least value; NaN where one of them is, unlike with `f64::min`.
fn least(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, |least, value| {
        if value < least || value.is_nan() {
            value
        } else {
            least
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeddings(columns: usize, values: &[f32]) -> Embeddings {
        Embeddings {
            rows: values.len() / columns,
            columns,
            values: values.to_vec(),
            truncated: Vec::new(),
            tokens: 0,
        }
    }

    #[test]
    fn ranks_by_hand() {
        assert_eq!(average_ranks(&[]), [0.0; 0]);
        assert_eq!(average_ranks(&[7.0]), [1.0]);
        assert_eq!(average_ranks(&[3.0, 1.0, 2.0]), [3.0, 1.0, 2.0]);
        assert_eq!(average_ranks(&[5.0, 5.0, 5.0]), [2.0, 2.0, 2.0]);
        assert_eq!(
            average_ranks(&[0.0, -0.0, 1.0, -1.0, 1.0]),
            [2.5, 2.5, 4.5, 1.0, 4.5]
        );
    }

    #[test]
    fn spearman_by_hand() {
        // Any increasing function gives 1, any decreasing one -1.
        let x = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(spearman(&x, &x.map(f64::exp)), Ok(1.0));
        assert_eq!(spearman(&x, &x.map(|x| -x.powi(3))), Ok(-1.0));
        // No ties: 1 - 6 sum d^2 / (n (n^2 - 1)) with d = (0, 1, -1, 0): 1 - 12 / 60.
        let rho = spearman(&x, &[1.0, 3.0, 2.0, 4.0]).unwrap();
        assert!((rho - 0.8).abs() < 1e-15, "{rho}");
    }

    #[test]
    fn spearman_with_ties_by_hand() {
        // Ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4), deviations (-1.5, 0, 0, 1.5) and
        // (-1.5, -0.5, 0.5, 1.5): 4.5 / sqrt(4.5 * 5).
        let rho = spearman(&[1.0, 2.0, 2.0, 3.0], &[10.0, 20.0, 30.0, 40.0]).unwrap();
        assert!((rho - 4.5 / 22.5f64.sqrt()).abs() < 1e-15, "{rho}");
    }

    #[test]
    fn pearson_by_hand() {
        assert_eq!(pearson(&[0.0, 1.0], &[5.0, 3.0]), Ok(-1.0));
        // Deviations (-2, 0, 2) and (-1, -1, 2): 6 / sqrt(8 * 6).
        let r = pearson(&[1.0, 3.0, 5.0], &[0.0, 0.0, 3.0]).unwrap();
        assert!((r - 6.0 / 48.0f64.sqrt()).abs() < 1e-15, "{r}");
    }

    #[test]
    fn the_scale_of_the_values_does_not_matter() {
        let x = [1.0, 3.0, 5.0];
        let y = [0.0, 0.0, 3.0];
        let r = pearson(&x, &y).unwrap();
        // Powers of two scale without rounding.
        for scale in [f64::from_bits(1), 2f64.powi(-600), 2f64.powi(1021)] {
            assert_eq!(pearson(&x.map(|x| x * scale), &y), Ok(r), "{scale}");
        }
    }

    #[test]
    fn the_least_difference_of_two_floats_is_a_difference() {
        let least = f64::from_bits(1);
        assert_eq!(pearson(&[least, 0.0], &[2.0, 1.0]), Ok(1.0));
        assert_eq!(pearson(&[least, 0.0], &[0.0, least]), Ok(-1.0));
        // What is far below the largest value is zero.
        assert_eq!(pearson(&[least, 0.0, 1.0], &[0.0, 0.0, 1.0]), Ok(1.0));
    }

    #[test]
    fn undefined_correlations_say_why() {
        let text = |a: &[f64], b: &[f64]| spearman(a, b).unwrap_err().to_string();
        assert_eq!(
            text(&[1.0], &[1.0, 2.0]),
            "correlation: expected two lists of the same length, found 1 and 2 values\n  hint: give one score for each pair of texts"
        );
        assert_eq!(
            text(&[1.0], &[1.0]),
            "correlation: expected at least 2 pairs of values, found 1\n  hint: measure on a data set with more pairs"
        );
        assert_eq!(
            text(&[1.0, 2.0], &[3.0, 3.0]),
            "correlation: expected values that differ, found 3 everywhere in the second list\n  hint: measure on pairs of different similarity; a model that finds all of them equal may be damaged"
        );
        assert_eq!(
            text(&[1.0, f64::NAN], &[3.0, 4.0]),
            "correlation: expected finite values, found NaN at 1\n  hint: look for the pair at this position, counted from 0: its score or its embeddings are no numbers"
        );
    }

    #[test]
    fn agreement_by_hand() {
        let reference = embeddings(2, &[1.0, 0.0, 3.0, 4.0]);
        let other = embeddings(2, &[1.0, 0.0, 4.0, 3.0]);
        let agreement = EmbeddingAgreement::between("x", &reference, &other).unwrap();
        // Cosines 1 and (12 + 12) / 25.
        assert!((agreement.mean_cosine - 0.98).abs() < 1e-15);
        assert!((agreement.minimum_cosine - 0.96).abs() < 1e-15);
        assert_eq!(agreement.largest_absolute_difference, 1.0);
    }

    #[test]
    fn a_nan_embedding_is_not_hidden() {
        let reference = embeddings(1, &[1.0, 1.0, 1.0]);
        let other = embeddings(1, &[1.0, f32::NAN, 1.0]);
        let agreement = EmbeddingAgreement::between("x", &reference, &other).unwrap();
        assert!(agreement.largest_absolute_difference.is_nan());
        assert!(agreement.mean_cosine.is_nan());
        assert!(agreement.minimum_cosine.is_nan());
    }

    #[test]
    fn embeddings_of_other_shapes_are_refused() {
        let reference = embeddings(2, &[1.0, 0.0]);
        let text = |other: &Embeddings| {
            EmbeddingAgreement::between("nf4", &reference, other)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            text(&embeddings(1, &[1.0])),
            "embeddings of `nf4`: expected [1, 2] (texts, columns), found [1, 1]\n  hint: compare models of the same width on the same texts"
        );
        let empty = embeddings(2, &[]);
        assert_eq!(
            EmbeddingAgreement::between("nf4", &empty, &empty)
                .unwrap_err()
                .to_string(),
            "embeddings of `nf4`: expected at least one text, found 0\n  hint: encode at least one text with both models"
        );
    }
}
