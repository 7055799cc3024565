//! Per-token quantization: the bits of the reference.

use fewbit_kernels::{Kernels, QuantizedRows};
use fewbit_numerics::activation::{ActivationScheme, quantize_row};

use crate::support::{Failures, Numbers};

pub(crate) fn quantize_rows(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(20);
    // One buffer for all: it shrinks and grows.
    let mut quantized = QuantizedRows::new();
    for columns in [0, 1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 384, 1000] {
        let rows = special_rows(columns, &mut numbers);
        let x = rows.concat();
        for scheme in [ActivationScheme::Affine, ActivationScheme::Symmetric] {
            kernels.quantize_rows(&x, rows.len(), columns, scheme, &mut quantized);
            failures.check(
                quantized.rows() == rows.len() && quantized.columns() == columns,
                || format!("{columns} columns: shape"),
            );
            for (index, row) in rows.iter().enumerate() {
                let mut codes = vec![0; columns];
                let parameters = quantize_row(row, scheme, &mut codes);
                let found = &quantized.codes()[index * columns..][..columns];
                let same = quantized.scales()[index].to_bits() == parameters.scale.to_bits()
                    && quantized.zero_points()[index] == parameters.zero_point
                    && found == codes;
                failures.check(same, || {
                    format!("{columns} columns, {scheme:?}, row {index}: expected {parameters:?} {codes:?}, found {found:?}")
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

/// Codes of rows with NaN or infinities mean nothing, but they are the same everywhere and stay in their row.
#[test]
fn non_finite_rows_do_no_harm() {
    let x = [
        1.0,
        f32::NAN,
        -1.0,
        f32::INFINITY,
        2.0,
        f32::NEG_INFINITY,
        0.5,
        -0.25,
        0.0,
    ];
    let mut results = Vec::new();
    for kernels in Kernels::available() {
        let mut quantized = QuantizedRows::new();
        kernels.quantize_rows(&x, 3, 3, ActivationScheme::Affine, &mut quantized);
        let mut codes = [0; 3];
        quantize_row(&x[6..], ActivationScheme::Affine, &mut codes);
        assert_eq!(quantized.codes()[6..], codes);
        results.push(quantized);
    }
    assert!(
        results
            .iter()
            .all(|result| result.codes() == results[0].codes())
    );
}
