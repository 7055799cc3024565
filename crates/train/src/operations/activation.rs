//! Activation functions.

use super::exponentials::exponentials_of_halves;
use super::values::{slice, values};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use fewbit_kernels::{Activation, Kernels};

/// The activation function of every element of `x`.
///
/// # Errors
/// `x` is not f32.
pub(crate) fn activate(
    x: &Tensor,
    activation: Activation,
    kernels: &'static Kernels,
) -> Result<Tensor> {
    if activation == Activation::Identity {
        return Ok(x.clone());
    }
    x.contiguous()?.apply_op1(Activate {
        activation,
        kernels,
    })
}

struct Activate {
    activation: Activation,
    kernels: &'static Kernels,
}

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = slice(x, layout)?.to_vec();
        self.kernels.activation(self.activation, &mut out);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (numbers, gradient) = (values(x)?, values(&gradient)?);
        let mut out = vec![0.0; numbers.len()];
        let blocks = numbers.chunks(BLOCK).zip(gradient.chunks(BLOCK));
        for ((x, gradient), out) in blocks.zip(out.chunks_mut(BLOCK)) {
            derivatives(self.activation, x, out, self.kernels);
            out.iter_mut().zip(gradient).for_each(|(out, g)| *out *= g);
        }
        Ok(Some(Tensor::from_vec(out, x.shape(), &Device::Cpu)?))
    }
}

/// Elements that stay in the first-level cache from one step to the next.
const BLOCK: usize = 2048;

/// 1 / sqrt(2 pi)
const DENSITY_AT_0: f32 = 0.398_942_3;

/// Beyond this, every function of [`Activation`] is a line to the last place.
const END: f32 = 1000.0;

/// Writes the derivatives at `x` to `out`, within 2e-6: hyperbolic tangents near 1 are rounded to 6e-8, and `GeluTanh` multiplies them by up to 9 twice
/// where they are not 1 yet.
fn derivatives(activation: Activation, x: &[f32], out: &mut [f32], kernels: &Kernels) {
    let pairs = |out: &mut [f32], function: &dyn Fn(f32) -> f32| {
        out.iter_mut()
            .zip(x)
            .for_each(|(out, x)| *out = function(*x));
    };
    match activation {
        Activation::Identity => out.fill(1.0),
        Activation::Relu => pairs(out, &|x| if x > 0.0 { 1.0 } else { 0.0 }),
        Activation::Tanh => {
            out.copy_from_slice(x);
            kernels.activation(Activation::Tanh, out);
            out.iter_mut().for_each(|out| *out = 1.0 - *out * *out);
        }
        Activation::Silu => of_times_sigmoid(1.0, x, out, kernels),
        Activation::QuickGelu => of_times_sigmoid(1.702, x, out, kernels),
        Activation::GeluTanh => {
            // sqrt(2 / pi)
            const FACTOR: f32 = 0.797_884_6;
            const CUBE: f32 = 0.044_715;
            for (out, x) in out.iter_mut().zip(x) {
                let x = x.clamp(-END, END);
                *out = FACTOR * (x + CUBE * x * x * x);
            }
            kernels.activation(Activation::Tanh, out);
            for (out, x) in out.iter_mut().zip(x) {
                let x = x.clamp(-END, END);
                let slope = FACTOR * (1.0 + 3.0 * CUBE * x * x);
                *out = 0.5 * (1.0 + *out) + 0.5 * x * (1.0 - *out * *out) * slope;
            }
        }
        Activation::Gelu => {
            for (out, x) in out.iter_mut().zip(x) {
                let x = x.clamp(-END, END);
                *out = -0.25 * x * x;
            }
            exponentials_of_halves(out, kernels);
            for (out, x) in out.iter_mut().zip(x) {
                let x = x.clamp(-END, END);
                *out = of_gelu(x, *out);
            }
        }
    }
}

/// The derivative of `x * sigmoid(slope * x)`, s being the sigmoid: `s + slope * x * s * (1 - s)`.
fn of_times_sigmoid(slope: f32, x: &[f32], out: &mut [f32], kernels: &Kernels) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = 0.5 * slope * x.clamp(-END, END);
    }
    kernels.activation(Activation::Tanh, out);
    for (out, x) in out.iter_mut().zip(x) {
        let x = x.clamp(-END, END);
        let sigmoid = 0.5 + 0.5 * *out;
        *out = sigmoid + slope * x * sigmoid * (1.0 - sigmoid);
    }
}

/// The derivative of `x * Phi(x)`, `Phi(x) + x * phi(x)`, with `exponential = exp(-x^2 / 2)`. Phi by the error function, within 1.5e-7
/// (Abramowitz and Stegun 1964, 7.1.26).
#[inline(always)]
fn of_gelu(x: f32, exponential: f32) -> f32 {
    // 0.3275911 / sqrt(2)
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let polynomial = 1.061_405_4 * t - 1.453_152;
    let polynomial = polynomial * t + 1.421_413_7;
    let polynomial = polynomial * t - 0.284_496_74;
    let polynomial = (polynomial * t + 0.254_829_6) * t;
    let half = 0.5 - 0.5 * polynomial * exponential;
    0.5 + half.copysign(x) + DENSITY_AT_0 * x * exponential
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against differences of the functions themselves in f64. The functions are smooth: with steps of 1e-4, their error is below 1e-8.
    #[test]
    fn derivatives_are_those_of_the_functions() {
        let kernels = Kernels::from_environment().expect("kernels");
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let function = |activation, x: f64| match activation {
            // The error function by its series, which converges for every x here.
            Activation::Gelu => {
                let z = x / 2f64.sqrt();
                let terms = (0..200).scan(z, |term, n| {
                    let value = *term / f64::from(2 * n + 1);
                    *term *= -z * z / f64::from(n + 1);
                    Some(value)
                });
                0.5 * x * (1.0 + 2.0 / std::f64::consts::PI.sqrt() * terms.sum::<f64>())
            }
            Activation::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + u.tanh())
            }
            Activation::QuickGelu => x * sigmoid(1.702 * x),
            Activation::Relu => x.max(0.0),
            Activation::Silu => x * sigmoid(x),
            Activation::Tanh => x.tanh(),
            Activation::Identity => x,
        };
        let numbers: Vec<f32> = (-400..=400)
            .map(|step| step as f32 / 100.0 + 0.003)
            .collect();
        for &activation in Activation::ALL {
            let mut found = vec![f32::NAN; numbers.len()];
            derivatives(activation, &numbers, &mut found, kernels);
            for (&x, found) in numbers.iter().zip(found) {
                let (x, step) = (f64::from(x), 1e-4);
                let difference = function(activation, x + step) - function(activation, x - step);
                let error = f64::from(found) - difference / (2.0 * step);
                assert!(error.abs() < 2e-6, "{activation:?} at {x}: {error:e}");
            }
            let mut far = [f32::NAN; 2];
            derivatives(activation, &[-1e30, 1e30], &mut far, kernels);
            let expected = match activation {
                Activation::Tanh => [0.0, 0.0],
                Activation::Identity => [1.0, 1.0],
                _ => [0.0, 1.0],
            };
            assert_eq!(far, expected, "{activation:?}");
        }
    }
}
