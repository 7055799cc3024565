//! Per-channel (one scale a row) weight quantization.

use crate::absmax::absmax;
use crate::affine::{AffineParameters, CodeRange};

/// int8 codes of a row-major matrix with one symmetric scale a row: `weight ~ code * scale[row]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Int8Rows {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// (rows, columns), row-major, -128..=127.
    pub codes: Vec<i8>,
    /// (rows)
    pub scales: Vec<f32>,
}

/// Quantizes `weights` (rows, columns; row-major, finite) with scale absmax/127.5 of each row
/// (compressed-tensors and PyTorch symmetric per-channel), codes by the rounding rule of [`crate::affine`].
///
/// A row of zeros has the scale 2^-23 and zero codes.
///
/// ```
/// use fewbit_numerics::rows::quantize_rows_int8;
/// let quantized = quantize_rows_int8(&[1.0, -0.5, 0.0, 255.0, -255.0, 2.0], 2, 3);
/// assert_eq!(quantized.scales, [1.0 / 127.5, 2.0]);
/// assert_eq!(quantized.codes, [127, -64, 0, 127, -128, 1]);
/// ```
///
/// # Panics
///
/// If `weights.len()` is not `rows * columns`.
pub fn quantize_rows_int8(weights: &[f32], rows: usize, columns: usize) -> Int8Rows {
    assert_eq!(
        Some(weights.len()),
        rows.checked_mul(columns),
        "a matrix of {rows} x {columns}"
    );
    let mut codes = Vec::with_capacity(weights.len());
    let mut scales = Vec::with_capacity(rows);
    for row in 0..rows {
        let row = &weights[row * columns..(row + 1) * columns];
        let parameters = AffineParameters::symmetric(absmax(row), CodeRange::INT8);
        scales.push(parameters.scale);
        // In -128..=127 by the clamp of the rule.
        codes.extend(
            parameters
                .quantize_each(row, CodeRange::INT8)
                .map(|code| code as i8),
        );
    }
    Int8Rows {
        rows,
        columns,
        codes,
        scales,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_its_own_scale_and_zero_rows_are_zero() {
        let huge = 2f32.powi(101);
        let weights = [
            0.0,
            -0.0,
            0.0, //
            64.0 * huge,
            -127.5 * huge,
            32.0 * huge, //
            1e-9,
            -1e-9,
            0.0,
        ];
        let quantized = quantize_rows_int8(&weights, 3, 3);
        // The third row is far below the least scale.
        assert_eq!(quantized.scales, [f32::EPSILON, huge, f32::EPSILON]);
        assert_eq!(quantized.codes, [0, 0, 0, 64, -128, 32, 0, 0, 0]);
    }

    #[test]
    fn the_largest_floats_stay_finite() {
        let quantized = quantize_rows_int8(&[f32::MAX, f32::MIN, f32::MAX / 2.0], 1, 3);
        assert_eq!(quantized.scales, [f32::MAX / 127.5]);
        assert_eq!(quantized.codes, [127, -128, 64]);
    }

    #[test]
    fn codes_are_those_of_the_rounding_rule() {
        let columns = 37;
        let weights: Vec<f32> = (0..5 * columns)
            .map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 10f32.powi((i / columns) as i32 - 2))
            .collect();
        let quantized = quantize_rows_int8(&weights, 5, columns);
        for (i, (&weight, &code)) in weights.iter().zip(&quantized.codes).enumerate() {
            let parameters = AffineParameters {
                scale: quantized.scales[i / columns],
                zero_point: 0,
            };
            assert_eq!(
                i32::from(code),
                parameters.quantize(weight, CodeRange::INT8)
            );
        }
    }

    #[test]
    fn empty_matrices() {
        let none = quantize_rows_int8(&[], 0, 5);
        assert_eq!((none.codes.len(), none.scales.len()), (0, 0));
        assert_eq!(quantize_rows_int8(&[], 2, 0).scales, [f32::EPSILON; 2]);
    }

    #[test]
    #[should_panic(expected = "a matrix of 2 x 3")]
    fn a_wrong_length_panics() {
        quantize_rows_int8(&[0.0; 5], 2, 3);
    }
}
