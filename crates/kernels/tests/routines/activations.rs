//! Activation functions against their definitions in f64.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use fewbit_kernels::{Activation, Isa, Kernels};

use crate::support::{Failures, Numbers, ROUNDOFF};

/// erf by the series 2 / sqrt(pi) * exp(-x^2) * sum of 2^n x^(2n+1) / (2n+1)!!, whose terms are all positive.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.5 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 2.0;
        term *= 2.0 * x * x / n;
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// The exact value and how far from it a result may be.
fn expected(kind: Activation, x: f64) -> (f64, f64) {
    // x * sigmoid(z) from a z that is wrong by `z_roundings`, an exponential (2), an addition, and a division. The derivative of the
    // sigmoid is sigmoid * (1 - sigmoid). Results below the normal range are wrong by a place of the subnormals.
    let gated = |z: f64, z_roundings: f64| {
        let gate = sigmoid(z);
        let relative = (1.0 - gate) * (z.abs() * z_roundings + 3.0) + 2.0;
        let smallest = f64::from(f32::MIN_POSITIVE) * 100.0;
        (
            x * gate,
            (x * gate).abs() * relative * 1.01 * ROUNDOFF + smallest,
        )
    };
    match kind {
        Activation::Gelu => (
            0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
            4e-7f64.max(x.abs() * ROUNDOFF),
        ),
        // x^2, its coefficient, the addition, the other coefficient, and two products.
        Activation::GeluTanh => gated(2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3)), 6.0),
        Activation::QuickGelu => gated(1.702 * x, 2.0),
        Activation::Silu => gated(x, 0.0),
        Activation::Relu => (x.max(0.0), 0.0),
        Activation::Identity => (x, 0.0),
        Activation::Tanh => {
            let exact = x.tanh();
            let bound = if x.abs() < 0.625 {
                // The polynomial's error, at most 0.15 of the result's relative error, and the last addition.
                exact.abs() * (2.0 * ROUNDOFF + 1.3e-8 * x * x)
            } else {
                // 2 / (e + 1), which is 1 - tanh: exponential (2), addition, division; then the subtraction.
                (1.0 - exact) * 4.0 * ROUNDOFF + ROUNDOFF
            };
            (exact, bound * 1.01)
        }
    }
}

/// Dense around zero, on both sides of segment borders, and far out.
fn points() -> Vec<f32> {
    let mut points: Vec<f32> = (-60_000..=60_000).map(|i| i as f32 / 6000.0).collect();
    for segment in 0..=16 {
        let border = 5.5 / 16.0 * segment as f32;
        for x in [border.next_down(), border, border.next_up()] {
            points.extend([x, -x]);
        }
    }
    for exponent in -149..=127 {
        let x = 2f64.powi(exponent) as f32;
        points.extend([x, -x, 1.7 * x, -1.7 * x]);
    }
    points.extend([
        0.625f32.next_down(),
        0.625,
        -0.625,
        0.0,
        -0.0,
        f32::MAX,
        f32::MIN,
    ]);
    points.extend((0..2000).flat_map(|i| [i as f32 / 10.0, i as f32 / -10.0]));
    points
}

pub(crate) fn activation(kernels: &Kernels, failures: &mut Failures) {
    let points = points();
    for &kind in Activation::ALL {
        let mut found = points.clone();
        kernels.activation(kind, &mut found);
        for (&x, &found) in points.iter().zip(&found) {
            let (expected, bound) = expected(kind, f64::from(x));
            let error = (f64::from(found) - expected).abs();
            failures.check(error <= bound, || {
                format!("{kind:?}({x:e}): expected {expected:e}, found {found:e}, error {error:e} > {bound:e}")
            });
        }
        let mut portable = points.clone();
        Kernels::for_isa(Isa::Scalar)
            .unwrap()
            .activation(kind, &mut portable);
        failures.same_bits(format!("{kind:?}"), &found, &portable);
        tails(kernels, kind, failures);
        lengths(kernels, kind, failures);
    }
}

fn tails(kernels: &Kernels, kind: Activation, failures: &mut Failures) {
    let mut x = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, 1e30, -1e30];
    kernels.activation(kind, &mut x);
    let (above, below) = match kind {
        Activation::Tanh => (1.0, -1.0),
        Activation::Identity => (f32::INFINITY, f32::NEG_INFINITY),
        _ => (f32::INFINITY, 0.0),
    };
    let far = |limit: f32, x: f32| if limit.is_infinite() { x } else { limit };
    let expected = [
        above,
        below,
        f32::NAN,
        0.0,
        far(above, 1e30),
        far(below, -1e30),
    ];
    for (found, expected) in x.into_iter().zip(expected) {
        // Zeros of both signs are equal here.
        failures.check(
            found == expected || (found.is_nan() && expected.is_nan()),
            || format!("{kind:?}: tails: expected {expected}, found {found}"),
        );
    }
}

/// An element's result does not depend on where it stands, in the loop or in the remainder.
fn lengths(kernels: &Kernels, kind: Activation, failures: &mut Failures) {
    let mut numbers = Numbers::new(40);
    for length in [0, 1, 15, 16, 17, 33] {
        let original = numbers.floats(length, 8.0);
        let mut together = original.clone();
        kernels.activation(kind, &mut together);
        let mut alone = original;
        for x in &mut alone {
            kernels.activation(kind, std::slice::from_mut(x));
        }
        failures.same_bits(format!("{kind:?}, {length} elements"), &together, &alone);
    }
}
