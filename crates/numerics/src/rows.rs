//! Per-channel (one scale a row) weight quantization.

use crate::absmax::absmax;
use crate::affine::{AffineParameters, CodeRange, MINIMUM_SCALE};

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
/// (compressed-tensors symmetric per channel), codes by the rounding rule of [`crate::affine`].
///
/// A row of zeros has the scale 2^-23 and zero codes. The scale of any other row is at least 2^-126, the least normal float: the
/// reciprocal of a denormal scale can be infinite. That floor concerns rows of absmax below 1.5e-36 only, so that rows of small
/// weights keep all their codes, unlike with PyTorch's observers.
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
        let parameters = AffineParameters {
            scale: row_scale(absmax(row)),
            zero_point: 0,
        };
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

/// The scale of a row with this largest magnitude, as [`quantize_rows_int8`] has it.
pub fn row_scale(absmax: f32) -> f32 {
    if absmax == 0.0 {
        MINIMUM_SCALE
    } else {
        CodeRange::INT8
            .symmetric_scale(absmax)
            .max(f32::MIN_POSITIVE)
    }
}

/// Quantizes `weights` (rows, columns; row-major, finite) with one scale for all rows, as [`quantize_rows_int8`] does with one each:
/// `scales` holds it for every row. [`per_tensor_scale`] is the scale of PyTorch's observers.
///
/// ```
/// use fewbit_numerics::rows::{per_tensor_scale, quantize_int8_with_scale};
/// let scale = per_tensor_scale(255.0);
/// let quantized = quantize_int8_with_scale(&[255.0, -255.0, 3.0, 0.0], 2, 2, scale);
/// assert_eq!(quantized.scales, [2.0, 2.0]);
/// assert_eq!(quantized.codes, [127, -128, 2, 0]);
/// ```
///
/// # Panics
///
/// If `weights.len()` is not `rows * columns`.
pub fn quantize_int8_with_scale(
    weights: &[f32],
    rows: usize,
    columns: usize,
    scale: f32,
) -> Int8Rows {
    assert_eq!(
        Some(weights.len()),
        rows.checked_mul(columns),
        "a matrix of {rows} x {columns}"
    );
    let parameters = AffineParameters {
        scale,
        zero_point: 0,
    };
    // In -128..=127 by the clamp of the rule.
    let codes = parameters.quantize_each(weights, CodeRange::INT8);
    Int8Rows {
        rows,
        columns,
        codes: codes.map(|code| code as i8).collect(),
        scales: vec![scale; rows],
    }
}

/// The scale of a weight with this largest magnitude, where all of it has one: absmax / 127.5, at least 2^-23 (PyTorch's
/// `default_weight_observer`).
pub fn per_tensor_scale(absmax: f32) -> f32 {
    AffineParameters::symmetric(absmax, CodeRange::INT8).scale
}

/// `(code - zero_point) * scale`, one rounding, with a scale for each `group_size` neighbouring codes, and with a zero point where there are any: for
/// [`Int8Rows`] the size is their number of columns. The codes of the last group may be fewer.
///
/// ```
/// use fewbit_numerics::rows::dequantize_groups;
/// let weights: Vec<f32> = dequantize_groups(&[127, -128, 2, 0], &[0.5, 3.0], None, 2).collect();
/// assert_eq!(weights, [63.5, -64.0, 6.0, 0.0]);
/// let weights: Vec<f32> = dequantize_groups(&[-8, 7, 1, 0], &[0.5, 2.0], Some(&[-8, 1]), 2).collect();
/// assert_eq!(weights, [0.0, 7.5, 0.0, -2.0]);
/// ```
///
/// # Panics
/// While it is iterated over, if a group has no zero point.
pub fn dequantize_groups(
    codes: &[i8],
    scales: &[f32],
    zero_points: Option<&[i8]>,
    group_size: usize,
) -> impl Iterator<Item = f32> {
    // Groups of no columns hold no codes.
    let groups = codes.chunks(group_size.max(1)).zip(scales).enumerate();
    groups.flat_map(move |(index, (group, &scale))| {
        let zero_point = zero_points.map_or(0, |points| i16::from(points[index]));
        let values = group.iter().map(move |&code| i16::from(code) - zero_point);
        values.map(move |value| f32::from(value) * scale)
    })
}

/// The scale of an LLM.int8 row, whose codes are `round(x * 127 / absmax)`: `absmax * (1/127)`, both rounded to float32, as
/// bitsandbytes dequantizes.
///
/// ```
/// assert_eq!(fewbit_numerics::rows::llm_int8_scale(127.0), 1.0);
/// ```
pub fn llm_int8_scale(absmax: f32) -> f32 {
    absmax * (1.0 / 127.0)
}

/// The absmax that bitsandbytes' LLM.int8 stores of a row whose codes are worth `scale` each: `scale * 127`. [`llm_int8_scale`] gives the scale back,
/// but for its last bit.
///
/// ```
/// assert_eq!(fewbit_numerics::rows::llm_int8_absmax(1.0), 127.0);
/// ```
pub fn llm_int8_absmax(scale: f32) -> f32 {
    scale * 127.0
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
        assert_eq!(quantized.scales, [f32::EPSILON, huge, 1e-9 / 127.5]);
        assert_eq!(quantized.codes, [0, 0, 0, 64, -128, 32, 127, -128, 0]);
    }

    #[test]
    fn small_rows_keep_their_codes() {
        // compressed-tensors 0.20 gives the scale 7.8431e-09.
        let quantized = quantize_rows_int8(&[1e-6, -1e-6, 5e-7, 1e-8], 1, 4);
        assert_eq!(quantized.scales, [1e-6 / 127.5]);
        assert_eq!(quantized.codes, [127, -128, 64, 1]);
        let dequantized: Vec<f32> =
            dequantize_groups(&quantized.codes, &quantized.scales, None, 4).collect();
        assert_eq!(dequantized[1], -128.0 * (1e-6 / 127.5));
    }

    #[test]
    fn the_least_rows_have_a_usable_scale() {
        let least = f32::MIN_POSITIVE;
        for absmax in [
            1e-45,
            1e-40,
            least,
            least * 127.0,
            least * 127.5,
            least * 128.0,
            1e-30,
        ] {
            let row = [absmax, -absmax, absmax / 2.0, absmax / 3.0, 0.0];
            let quantized = quantize_rows_int8(&row, 1, 5);
            let scale = quantized.scales[0];
            assert!(scale >= least && (1.0 / scale).is_finite(), "{absmax:e}");
            let restored = dequantize_groups(&quantized.codes, &quantized.scales, None, 5);
            for (x, restored) in row.into_iter().zip(restored) {
                // Half a step, and the roundings that tests/affine_properties.rs derives a bound of.
                let bound = (0.5 + 2f64.powi(-14)) * f64::from(scale);
                let error = (f64::from(x) - f64::from(restored)).abs();
                assert!(error <= bound, "{x:e} in the row of {absmax:e}");
            }
        }
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
