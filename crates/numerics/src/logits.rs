//! How far the logits of one model are from those of another: probabilities, their Kullback-Leibler divergence, decisions.
//!
//! Logits are finite and at least one: what others give is not said.

/// Natural logarithms of the probabilities that softmax makes of logits.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = f64::from(logits[largest(logits)]);
    let shifted = logits.iter().map(|&logit| f64::from(logit) - largest);
    let total = shifted.clone().map(f64::exp).sum::<f64>().ln();
    shifted.map(|logit| logit - total).collect()
}

/// The probability `1 / (1 + exp(-logit))` that a label is right which is right or not by itself.
pub fn sigmoid(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
}

/// `sum p ln(p / q)` over the labels, with `p` of the reference and `q` of the model; never below 0 by rounding.
pub fn divergence(reference: &[f32], model: &[f32]) -> f64 {
    let (p, q) = (log_softmax(reference), log_softmax(model));
    let sum: f64 = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
    sum.max(0.0)
}

/// The sum over the labels of the divergence between "right" and "not right", where each is right or not by itself: those of two logits, of which one is 0.
pub fn divergence_of_decisions(reference: &[f32], model: &[f32]) -> f64 {
    let labels = reference.iter().zip(model);
    labels
        .map(|(&r, &m)| divergence(&[r, 0.0], &[m, 0.0]))
        .sum()
}

/// The index of the largest logit, the first of equal ones.
pub fn largest(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, index| match logits[index] > logits[best] {
        true => index,
        false => best,
    })
}

/// Which labels have more than 1/2, where each is right or not by itself.
pub fn decisions(logits: &[f32]) -> impl Iterator<Item = bool> {
    logits.iter().map(|&logit| logit > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_and_divergences_by_hand() {
        let ln3 = 3f32.ln();
        let found = log_softmax(&[ln3, 0.0]);
        assert!((found[0] - 0.75f64.ln()).abs() < 1e-7, "{found:?}");
        assert!((found[1] - 0.25f64.ln()).abs() < 1e-7, "{found:?}");
        assert!((sigmoid(ln3) - 0.75).abs() < 1e-7);
        assert_eq!([sigmoid(f32::MIN), sigmoid(f32::MAX)], [0.0, 1.0]);
        let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((divergence(&[ln3, 0.0], &[2.0, 2.0]) - expected).abs() < 1e-7);
        assert!((divergence_of_decisions(&[ln3, 1.0], &[0.0, 1.0]) - expected).abs() < 1e-7);
        assert_eq!(divergence(&[1e4, -1e4], &[-1e4, 1e4]), 2e4);
        assert_eq!(divergence(&[5.0, 5.0], &[5.0, 5.0]), 0.0);
        assert_eq!(largest(&[0.5, 2.0, 2.0]), 1);
        assert!(decisions(&[0.0, 0.1]).eq([false, true]));
    }
}
