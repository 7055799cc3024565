//! From logits to scores.

use crate::task_head::ScoreFunction;

impl ScoreFunction {
    /// The scores of finite logits. The arithmetic is in double precision, and no logit is too large for it.
    ///
    /// ```
    /// use fewbit_model::ScoreFunction;
    ///
    /// assert_eq!(ScoreFunction::Softmax.scores(&[1000.0, 1000.0]), [0.5, 0.5]);
    /// assert_eq!(ScoreFunction::Sigmoid.scores(&[0.0, -1000.0]), [0.5, 0.0]);
    /// assert_eq!(ScoreFunction::Identity.scores(&[0.25]), [0.25]);
    /// ```
    pub fn scores(self, logits: &[f32]) -> Vec<f32> {
        match self {
            Self::Softmax => softmax(logits)
                .into_iter()
                .map(|probability| probability as f32)
                .collect(),
            Self::Sigmoid => logits
                .iter()
                .map(|&logit| sigmoid(f64::from(logit)) as f32)
                .collect(),
            Self::Identity => logits.to_vec(),
        }
    }
}

/// Probabilities whose sum is 1; none for no logits.
pub(super) fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = logits
        .iter()
        .map(|&logit| libm::exp(f64::from(logit) - f64::from(largest)))
        .collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|value| value / sum).collect()
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-logit))
}

/// The index of the largest of `values`, the first of equal ones; `None` of none.
pub(super) fn largest(values: &[f32]) -> Option<usize> {
    (0..values.len()).reduce(|best, index| match values[index] > values[best] {
        true => index,
        false => best,
    })
}

/// Indices of the `most` largest of `values`, the largest first; of equal ones the first comes first.
pub(super) fn largest_first(values: &[f32], most: usize) -> Vec<usize> {
    let order = |&a: &usize, &b: &usize| values[b].total_cmp(&values[a]).then(a.cmp(&b));
    let mut indices: Vec<usize> = (0..values.len()).collect();
    if most < indices.len() {
        // Only those that are wanted are sorted: a vocabulary is long.
        indices.select_nth_unstable_by(most, order);
        indices.truncate(most);
    }
    indices.sort_unstable_by(order);
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_by_hand() {
        // e^0 : e^ln(3) = 1 : 3.
        let found = ScoreFunction::Softmax.scores(&[-2.0, -2.0 + 3f32.ln()]);
        assert!((found[0] - 0.25).abs() < 1e-7, "{found:?}");
        assert!((found[1] - 0.75).abs() < 1e-7, "{found:?}");
        assert_eq!(ScoreFunction::Softmax.scores(&[5.0]), [1.0]);
        assert_eq!(ScoreFunction::Softmax.scores(&[]), [0f32; 0]);
    }

    #[test]
    fn sigmoid_by_hand() {
        // 1 / (1 + 1/3).
        let found = ScoreFunction::Sigmoid.scores(&[3f32.ln(), f32::MAX, f32::MIN]);
        assert!((found[0] - 0.75).abs() < 1e-7, "{found:?}");
        assert_eq!(found[1..], [1.0, 0.0]);
    }

    #[test]
    fn the_first_of_equal_values_comes_first() {
        let values = [0.5, 2.0, -1.0, 2.0, 0.5];
        assert_eq!(largest(&values), Some(1));
        assert_eq!(largest(&[]), None);
        assert_eq!(largest_first(&values, 3), [1, 3, 0]);
        assert_eq!(largest_first(&values, 9), [1, 3, 0, 4, 2]);
        assert_eq!(largest_first(&values, 0), [0usize; 0]);
    }
}
