//! Exponentials by the kernels' hyperbolic tangent, which is fast and accurate: `exp(x) = (1 + tanh(x / 2)) / (1 - tanh(x / 2))`.

use fewbit_kernels::{Activation, Kernels};

/// Halves of numbers that are at most 0 become their exponentials, within 1e-7; minus infinity becomes 0.
pub(super) fn exponentials_of_halves(halves: &mut [f32], kernels: &Kernels) {
    kernels.activation(Activation::Tanh, halves);
    for value in halves {
        *value = (1.0 + *value) / (1.0 - *value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hyperbolic tangent is wrong by a place of its own, 6e-8, which the sum and the difference pass on: twice that where the difference
    /// is 1, near 0, and half of it where it is 2, for large numbers.
    #[test]
    fn exponentials_are_within_their_bound() {
        let kernels = Kernels::from_environment().expect("kernels");
        let numbers: Vec<f32> = (0..200_000).map(|step| -1e-4 * step as f32).collect();
        let mut found: Vec<f32> = numbers.iter().map(|x| x / 2.0).collect();
        exponentials_of_halves(&mut found, kernels);
        for (x, found) in numbers.iter().zip(found) {
            let error = f64::from(found) - f64::from(*x).exp();
            assert!(error.abs() <= 2.4e-7, "exp({x}) = {found}: {error:e}");
        }
        let mut far = [f32::NEG_INFINITY, -1e30, 0.0];
        exponentials_of_halves(&mut far, kernels);
        assert_eq!(far, [0.0, 0.0, 1.0]);
    }
}
