//! AdamW.

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

/// Decay of the mean of gradients.
const BETA_1: f64 = 0.9;
/// Decay of the mean of their squares.
const BETA_2: f64 = 0.999;
/// Added to the root of the mean of squares.
const EPSILON: f32 = 1e-8;

/// Elements that a thread takes at a time.
const PART: usize = 1 << 15;

/// The moments of one tensor's gradients: Adam (Kingma and Ba 2015, arXiv:1412.6980) in the form of Loshchilov and Hutter 2019 (arXiv:1711.05101), without decay of
/// weights: a student that begins at its teacher's weights has no reason to shrink them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Moments {
    /// (n): mean of gradients.
    pub(crate) first: Vec<f32>,
    /// (n): mean of their squares.
    pub(crate) second: Vec<f32>,
}

impl Moments {
    /// Of a tensor of `elements`, before the first step.
    pub(crate) fn new(elements: usize) -> Self {
        Self {
            first: vec![0.0; elements],
            second: vec![0.0; elements],
        }
    }

    /// Moves `values` against `gradient` times `factor`, in step 0, 1, …
    pub(crate) fn update(
        &mut self,
        values: &mut [f32],
        gradient: &[f32],
        factor: f32,
        learning_rate: f64,
        step: usize,
    ) {
        assert_eq!(values.len(), gradient.len(), "one for each element");
        let steps = i32::try_from(step.saturating_add(1)).unwrap_or(i32::MAX);
        let rate = (learning_rate / (1.0 - BETA_1.powi(steps))) as f32;
        let correction = (1.0 / (1.0 - BETA_2.powi(steps))) as f32;
        let (beta_1, beta_2) = (BETA_1 as f32, BETA_2 as f32);
        values
            .par_chunks_mut(PART)
            .zip(gradient.par_chunks(PART))
            .zip(self.first.par_chunks_mut(PART))
            .zip(self.second.par_chunks_mut(PART))
            .for_each(|(((values, gradient), first), second)| {
                let moments = first.iter_mut().zip(second);
                for ((value, gradient), (first, second)) in
                    values.iter_mut().zip(gradient).zip(moments)
                {
                    let gradient = gradient * factor;
                    *first = beta_1 * *first + (1.0 - beta_1) * gradient;
                    *second = beta_2 * *second + (1.0 - beta_2) * gradient * gradient;
                    *value -= rate * *first / ((*second * correction).sqrt() + EPSILON);
                }
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_is_the_learning_rate_and_later_ones_follow_the_formula() {
        let mut moments = Moments::new(2);
        let mut values = [1.0, -1.0];
        moments.update(&mut values, &[3.0, -0.5], 1.0, 0.1, 0);
        assert!((values[0] - 0.9).abs() < 1e-6 && (values[1] + 0.9).abs() < 1e-6);
        moments.update(&mut values, &[1.0, 0.0], 2.0, 0.1, 1);
        // In double precision by hand: first 0.47, second 0.012991, for the first element.
        let first = (0.9 * 0.3 + 0.1 * 2.0) / (1.0 - 0.81);
        let second: f64 = (0.999 * 0.009 + 0.001 * 4.0) / (1.0 - 0.998001);
        let expected = 0.9 - 0.1 * first / second.sqrt();
        assert!((f64::from(values[0]) - expected).abs() < 1e-5);
    }
}
