//! Layer normalization, addition and L2 normalization.

use fewbit_kernels::{Isa, Kernels, Norm, NormKind};

use crate::support::{Failures, Numbers, ROUNDOFF};

const LENGTHS: [usize; 14] = [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 100, 128, 384, 1000];

fn scalar() -> &'static Kernels {
    Kernels::for_isa(Isa::Scalar).unwrap()
}

fn sum(values: impl Iterator<Item = f64>) -> f64 {
    values.sum()
}

/// Longest chain of additions of a sum of `n` elements: n / 64 rounds, up to four vectors after them, then the trees.
fn additions(n: usize) -> f64 {
    (n / 64 + 4 + 6) as f64
}

pub(crate) fn layer_norm(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(30);
    for columns in LENGTHS {
        for (scale, offset) in [(1.0, 0.0), (3.0, 1000.0), (1e-6, 0.0), (1e12, -1e12)] {
            let rows = 5;
            let shifted = |values: Vec<f32>| values.iter().map(|x| x + offset).collect::<Vec<_>>();
            let original = shifted(numbers.floats(rows * columns, scale));
            let residual = numbers.floats(rows * columns, scale);
            let (gamma, beta) = (numbers.floats(columns, 2.0), numbers.floats(columns, 1.0));
            let options = [
                (NormKind::Layer, None),
                (NormKind::Layer, Some(residual.as_slice())),
                (NormKind::RootMeanSquare, None),
            ];
            for (kind, residual) in options {
                let norm = Norm {
                    kind,
                    gamma: &gamma,
                    beta: &beta,
                    epsilon: 1e-12,
                };
                let mut x = original.clone();
                kernels.layer_norm(&mut x, residual, norm);
                let what = format!("{kind:?}, {columns} columns, scale {scale}, offset {offset}");
                let mut portable = original.clone();
                scalar().layer_norm(&mut portable, residual, norm);
                failures.same_bits(&what, &x, &portable);
                for row in 0..rows {
                    let place = row * columns..(row + 1) * columns;
                    let mut alone = original[place.clone()].to_vec();
                    let residual = residual.map(|residual| &residual[place.clone()]);
                    kernels.layer_norm(&mut alone, residual, norm);
                    failures.same_bits(format!("{what}, alone"), &alone, &x[place.clone()]);
                    // The input of the normalization is rounded to f32 once: that is not its error.
                    let input: Vec<f32> = match residual {
                        Some(residual) => original[place.clone()]
                            .iter()
                            .zip(residual)
                            .map(|(x, r)| x + r)
                            .collect(),
                        None => original[place.clone()].to_vec(),
                    };
                    layer_norm_bound(&input, norm, &x[place], &what, failures);
                }
            }
        }
    }
}

/// First-order error analysis of the three passes, plus the second-order effect of the mean's error on the variance.
fn layer_norm_bound(
    input: &[f32],
    norm: Norm<'_>,
    found: &[f32],
    what: &str,
    failures: &mut Failures,
) {
    let n = input.len() as f64;
    let values = || input.iter().map(|&x| f64::from(x));
    let centred = norm.kind == NormKind::Layer;
    let mean = if centred { sum(values()) / n } else { 0.0 };
    let variance = sum(values().map(|x| (x - mean).powi(2))) / n;
    let inverse = 1.0 / (variance + f64::from(1e-12f32)).sqrt();
    // The sum, then the division.
    let mean_error = match centred {
        true => (additions(input.len()) + 1.0) * ROUNDOFF * sum(values().map(f64::abs)) / n,
        false => 0.0,
    };
    // Centred values are wrong by the mean's error in common and one rounding each (twice that in the square); the sum of squares, a
    // division, an addition, a square root and a division follow, half of which reach the inverse.
    let shift = mean_error * inverse;
    let inverse_error = (additions(input.len()) + 8.0) * ROUNDOFF + shift * shift;
    for (index, &found) in found.iter().enumerate() {
        let normal = (f64::from(input[index]) - mean) * inverse;
        let gamma = f64::from(norm.gamma[index]);
        let expected = normal * gamma + f64::from(norm.beta[index]);
        let bound = gamma.abs()
            * (shift * (1.0 + inverse_error) + normal.abs() * (inverse_error + 3.0 * ROUNDOFF))
            + 2.0 * ROUNDOFF * expected.abs();
        let error = (f64::from(found) - expected).abs();
        failures.check(error <= bound, || {
            format!("{what}: element {index}: expected {expected}, found {found}, error {error:e} > {bound:e}")
        });
    }
}

#[test]
fn constant_rows_become_beta() {
    for kernels in Kernels::available() {
        for columns in LENGTHS {
            let mut x = vec![2.0; 3 * columns];
            let beta: Vec<f32> = (0..columns).map(|c| c as f32 / 8.0).collect();
            let norm = Norm {
                kind: NormKind::Layer,
                gamma: &vec![5.0; columns],
                beta: &beta,
                epsilon: 1e-12,
            };
            kernels.layer_norm(&mut x, None, norm);
            assert!(x.chunks(columns).all(|row| row == beta));
        }
    }
}

pub(crate) fn add(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(31);
    for length in LENGTHS.into_iter().chain([0]) {
        let (mut x, y) = (numbers.rough(length), numbers.rough(length));
        let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        kernels.add(&mut x, &y);
        failures.same_bits(format!("{length} elements"), &x, &expected);
    }
}

pub(crate) fn rotate(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(33);
    for head_size in [0, 2, 6, 32, 34, 64, 80, 128] {
        for (rows, heads) in [(0, 1), (1, 1), (3, 2), (2, 5)] {
            let (columns, half) = (heads * head_size, head_size / 2);
            let mut x = numbers.rough(rows * columns);
            let turns = numbers.floats(rows * head_size, 1.0);
            let mut expected = x.clone();
            for row in 0..rows {
                for head in 0..heads {
                    for feature in 0..half {
                        let first = row * columns + head * head_size + feature;
                        let (x1, x2) = (x[first], x[first + half]);
                        let turn = row * head_size + feature;
                        let (cos, sin) = (turns[turn], turns[turn + half]);
                        expected[first] = x1 * cos - x2 * sin;
                        expected[first + half] = x2 * cos + x1 * sin;
                    }
                }
            }
            kernels.rotate(&mut x, columns, &turns, head_size);
            failures.same_bits(
                format!("{rows} rows, {heads} heads of {head_size}"),
                &x,
                &expected,
            );
        }
    }
}

#[test]
#[should_panic(expected = "rotate: as many rows of x (8 elements) as of turns (4)")]
fn rows_without_a_turn_are_refused() {
    scalar().rotate(&mut [0.0; 8], 4, &[0.0; 4], 4);
}

#[test]
#[should_panic(expected = "rotate: columns (6) are heads of an even number of features, found 4")]
fn a_part_of_a_head_is_refused() {
    scalar().rotate(&mut [0.0; 6], 6, &[0.0; 4], 4);
}

pub(crate) fn normalize(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(32);
    for length in LENGTHS {
        let original = numbers.floats(length, 3.0);
        let norm = sum(original.iter().map(|&x| f64::from(x).powi(2))).sqrt();
        let mut x = original.clone();
        kernels.normalize(&mut x);
        let mut portable = original.clone();
        scalar().normalize(&mut portable);
        failures.same_bits(format!("{length} elements"), &x, &portable);
        for (&found, &original) in x.iter().zip(&original) {
            // The sum of squares (halved by the root), the root, the division.
            let bound = (additions(length) / 2.0 + 3.0) * ROUNDOFF;
            let expected = f64::from(original) / norm;
            failures.check(
                (f64::from(found) - expected).abs() <= bound * expected.abs(),
                || format!("{length} elements: expected {expected}, found {found}"),
            );
        }
    }
    let mut zeros = [0.0; 20];
    kernels.normalize(&mut zeros);
    failures.same_bits("zeros", &zeros, &[0.0; 20]);
    let mut tiny = [3e-13, 4e-13];
    kernels.normalize(&mut tiny);
    failures.same_bits(
        "a norm below the clamp",
        &tiny,
        &[3e-13 / 1e-12, 4e-13 / 1e-12],
    );
    let mut nan = [1.0, f32::NAN, 2.0];
    kernels.normalize(&mut nan);
    failures.same_bits("NaN", &nan, &[f32::NAN; 3]);
    kernels.normalize(&mut []);
}
