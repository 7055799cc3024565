//! Quantization of activations: the bits of the reference.

use fewbit_kernels::{Kernels, Norm, NormKind, QuantizedRows, RowScale};
use fewbit_numerics::activation::{ActivationScheme, quantize_row, quantize_row_twelve_bit};
use fewbit_numerics::affine::{AffineParameters, CodeRange};

use crate::support::{Failures, Numbers};

const PER_TOKEN: [RowScale; 3] = [
    RowScale::PerToken(ActivationScheme::Affine),
    RowScale::PerToken(ActivationScheme::Symmetric),
    RowScale::PerTokenTwelveBit,
];

pub(crate) fn quantize_rows(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(20);
    // One buffer for all: it shrinks and grows.
    let mut quantized = QuantizedRows::new();
    for columns in [0, 1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 384, 1000] {
        let rows = special_rows(columns, &mut numbers);
        let x = rows.concat();
        for scale in PER_TOKEN {
            let finite = kernels.quantize_rows(&x, rows.len(), columns, scale, &mut quantized);
            failures.check(
                finite && quantized.rows() == rows.len() && quantized.columns() == columns,
                || format!("{columns} columns: shape"),
            );
            for (index, row) in rows.iter().enumerate() {
                let mut codes = vec![0; columns];
                let parameters = if let RowScale::PerToken(scheme) = scale {
                    let mut bytes = vec![0; columns];
                    let parameters = quantize_row(row, scheme, &mut bytes);
                    codes = bytes.into_iter().map(u16::from).collect();
                    parameters
                } else {
                    quantize_row_twelve_bit(row, &mut codes)
                };
                let found = quantized.row(index);
                let same = quantized.scales()[index].to_bits() == parameters.scale.to_bits()
                    && quantized.zero_points()[index] == parameters.zero_point
                    && found == codes;
                failures.check(same, || {
                    format!("{columns} columns, {scale:?}, row {index}: expected {parameters:?} {codes:?}, found {found:?}")
                });
            }
        }
        for (scale, zero_point) in [(0.013, 0), (2.0, 255), (1e-20, 128), (3e36, 9)] {
            let parameters = AffineParameters { scale, zero_point };
            let fixed = RowScale::Static(parameters);
            let finite = kernels.quantize_rows(&x, rows.len(), columns, fixed, &mut quantized);
            let code = |&x| u8::try_from(parameters.quantize(x, CodeRange::UINT8)).unwrap();
            let codes: Vec<u8> = x.iter().map(code).collect();
            let expected = QuantizedRows::from_parts(
                &codes,
                vec![scale; rows.len()],
                vec![zero_point; rows.len()],
                columns,
            );
            failures.check(finite && quantized == expected, || {
                format!("{columns} columns, static {parameters:?}: codes differ")
            });
        }
    }
}

/// The two operations one after the other.
pub(crate) fn layer_norm_quantize(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(21);
    let (mut fused, mut separate) = (QuantizedRows::new(), QuantizedRows::new());
    for columns in [1, 3, 16, 31, 64, 100, 384] {
        for rows in [0, 1, 5, 6] {
            let x = numbers.floats(rows * columns, 3.0);
            let (gamma, beta) = (numbers.floats(columns, 2.0), numbers.floats(columns, 1.0));
            let fixed = AffineParameters {
                scale: 0.02,
                zero_point: 131,
            };
            for scale in [
                RowScale::PerToken(ActivationScheme::Affine),
                RowScale::PerToken(ActivationScheme::Symmetric),
                RowScale::PerTokenTwelveBit,
                RowScale::Static(fixed),
            ] {
                let what = format!("{rows} rows of {columns} columns, {scale:?}");
                let norm = Norm {
                    kind: [NormKind::Layer, NormKind::RootMeanSquare][rows % 2],
                    gamma: &gamma,
                    beta: &beta,
                    epsilon: 1e-12,
                };
                let mut expected = x.clone();
                kernels.layer_norm(&mut expected, None, norm);
                let finite = kernels.quantize_rows(&expected, rows, columns, scale, &mut separate);
                let mut found = x.clone();
                let fused_finite = kernels.layer_norm_quantize(&mut found, norm, scale, &mut fused);
                failures.same_bits(&what, &found, &expected);
                failures.check(fused == separate && finite && fused_finite, || {
                    format!("{what}: codes differ")
                });
            }
        }
    }
}

/// Rows that meet both ends of the codes, ties, and both ends of the floats.
fn special_rows(columns: usize, numbers: &mut Numbers) -> Vec<Vec<f32>> {
    let mut rows = vec![
        vec![0.0; columns],
        vec![-0.0; columns],
        vec![3.7; columns],
        vec![-3.7; columns],
        vec![f32::MAX; columns],
        vec![f32::from_bits(1); columns],
        (0..columns)
            .map(|c| if c % 2 == 0 { f32::MAX } else { f32::MIN })
            .collect(),
        // A scale of one when the row is long enough to reach both ends: ties everywhere.
        (0..columns)
            .map(|c| [0.0, 255.0, c as f32 + 0.5, 2.5][c.min(2 + c % 2)])
            .collect(),
        numbers.floats(columns, 1e-20),
        numbers.floats(columns, 1e30),
        numbers.rough(columns),
    ];
    rows.extend((0..20).map(|_| numbers.floats(columns, 4.0)));
    rows.extend((0..5).map(|_| {
        numbers
            .floats(columns, 4.0)
            .iter()
            .map(|x| x + 3.9)
            .collect()
    }));
    // The greatest or least element in the last place: a remainder that is left out would show.
    for sign in [1.0, -1.0] {
        let mut row = numbers.floats(columns, 1.0);
        if let Some(last) = row.last_mut() {
            *last = 100.0 * sign;
        }
        rows.push(row);
    }
    rows
}

/// Codes of rows with NaN or infinities mean nothing, but the caller is told, and they stay in their row.
#[test]
fn non_finite_rows_are_told_and_do_no_harm() {
    let scale = RowScale::PerToken(ActivationScheme::Affine);
    for kernels in Kernels::available() {
        for columns in [1, 3, 16, 33, 70] {
            let clean = vec![-0.25; 3 * columns];
            let mut quantized = QuantizedRows::new();
            assert!(kernels.quantize_rows(&clean, 3, columns, scale, &mut quantized));
            let expected = quantized.clone();
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for place in columns..2 * columns {
                    let mut x = clean.clone();
                    x[place] = bad;
                    assert!(!kernels.quantize_rows(&x, 3, columns, scale, &mut quantized));
                    for row in [0, 2] {
                        assert_eq!(quantized.row(row), expected.row(row));
                        assert_eq!(quantized.scales()[row], expected.scales()[row]);
                    }
                }
            }
            let parameters = AffineParameters {
                scale: 1.0,
                zero_point: 3,
            };
            let mut x = clean;
            x[columns] = f32::NAN;
            let fixed = RowScale::Static(parameters);
            assert!(!kernels.quantize_rows(&x, 3, columns, fixed, &mut quantized));
            let (gamma, mut rows) = (vec![1.0; columns], x.clone());
            let norm = Norm {
                kind: NormKind::Layer,
                gamma: &gamma,
                beta: &gamma,
                epsilon: 1e-5,
            };
            assert!(!kernels.layer_norm_quantize(&mut rows, norm, scale, &mut quantized));
        }
    }
}
