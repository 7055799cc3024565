//! PyTorch's dynamic int8 linear layer: the scalar reference.
//!
//! What `torch.ao.quantization.quantize_dynamic` makes of `torch.nn.Linear`, on the engines `x86` and `fbgemm`, bit for bit:
//!
//! 1. The weight has one symmetric scale, absmax / 127.5, at least 2^-23 ([`per_tensor_scale`]), and codes by
//!    the rounding rule.
//! 2. Each call finds the minimum and maximum of the **whole** input, rows of all texts together, and makes one scale and zero
//!    point of them ([`choose_parameters`]). With `reduce_range`, which is what both engines do, that scale is for 0..=127;
//!    the codes are clamped to 0..=255 all the same.
//! 3. The sums over codes are exact integers.
//! 4. `out = fma(sum as f32, activation scale * weight scale, bias)`, one rounding for the product of the scales, one for the sum
//!    as f32, one for the fused multiply-add.
//!
//! Because of step 2 a text's result depends on the texts beside it. fewbit's own dynamic layers have one scale a token
//! ([`crate::activation`]) and do not; this form is here so that a move from PyTorch can be confirmed.

use crate::absmax::absmax;
use crate::affine::{AffineParameters, CodeRange};
use crate::choose_parameters::choose_parameters;
use crate::rows::{per_tensor_scale, quantize_int8_with_scale};

/// A weight with one scale: `weight ~ code * scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct PerTensorInt8 {
    /// (out_features, in_features), row-major, -128..=127.
    pub codes: Vec<i8>,
    /// The only scale; positive.
    pub scale: f32,
}

/// Quantizes a weight (any shape, finite) with one symmetric scale: PyTorch's `default_weight_observer`, a `MinMaxObserver` of
/// `qint8` and `per_tensor_symmetric`.
///
/// ```
/// use fewbit_numerics::dynamic_linear::quantize_per_tensor_int8;
/// let weight = quantize_per_tensor_int8(&[255.0, -255.0, 3.0, 0.0]);
/// assert_eq!(weight.scale, 2.0);
/// assert_eq!(weight.codes, [127, -128, 2, 0]);
/// ```
pub fn quantize_per_tensor_int8(weight: &[f32]) -> PerTensorInt8 {
    let scale = per_tensor_scale(absmax(weight));
    PerTensorInt8 {
        codes: quantize_int8_with_scale(weight, 1, weight.len(), scale).codes,
        scale,
    }
}

/// The scale and zero point of a whole input of finite numbers, as PyTorch's dynamic layers choose them at each call.
///
/// ```
/// use fewbit_numerics::dynamic_linear::per_tensor_parameters;
/// let parameters = per_tensor_parameters(&[-1.0, 0.5, 3.0], false);
/// assert_eq!((parameters.scale, parameters.zero_point), (4.0 / 255.0, 64));
/// ```
pub fn per_tensor_parameters(input: &[f32], reduce_range: bool) -> AffineParameters {
    let (min, max) = input.iter().fold((0.0f32, 0.0f32), |(min, max), &value| {
        (min.min(value), max.max(value))
    });
    let range = match reduce_range {
        true => CodeRange::UINT8.reduced(),
        false => CodeRange::UINT8,
    };
    choose_parameters(min, max, range, false)
}

/// `input` (rows, in_features) times the transposed weight (out_features, in_features) plus the bias: (rows, out_features).
///
/// `in_features` is at most [`MAX_INT8_COLUMNS`](crate::activation::MAX_INT8_COLUMNS), so that no sum leaves i32. Numbers are finite.
///
/// ```
/// use fewbit_numerics::dynamic_linear::{dynamic_linear, quantize_per_tensor_int8};
/// let weight = quantize_per_tensor_int8(&[127.5, 0.0, 0.0, -127.5]);
/// let out = dynamic_linear(&[0.0, 2.0, 1.0, 127.0], 2, &weight, Some(&[0.5, 0.0]), true);
/// assert_eq!(out, [0.5, -256.0, 127.5, -16256.0]); // 127.5 is 127, and -127.5 is -128
/// ```
///
/// # Panics
///
/// If the lengths do not fit one another.
pub fn dynamic_linear(
    input: &[f32],
    in_features: usize,
    weight: &PerTensorInt8,
    bias: Option<&[f32]>,
    reduce_range: bool,
) -> Vec<f32> {
    assert!(
        in_features > 0 && input.len().is_multiple_of(in_features),
        "rows of {in_features}"
    );
    assert!(
        weight.codes.len().is_multiple_of(in_features),
        "a weight of rows of {in_features}"
    );
    let out_features = weight.codes.len() / in_features;
    if let Some(bias) = bias {
        assert_eq!(bias.len(), out_features, "one bias for each output");
    }
    let parameters = per_tensor_parameters(input, reduce_range);
    let multiplier = parameters.scale * weight.scale;
    let codes: Vec<i32> = parameters
        .quantize_each(input, CodeRange::UINT8)
        .map(|code| code - parameters.zero_point)
        .collect();
    let mut out = Vec::with_capacity(input.len() / in_features * out_features);
    for row in codes.chunks_exact(in_features) {
        for (column, weights) in weight.codes.chunks_exact(in_features).enumerate() {
            let products = row.iter().zip(weights).map(|(&x, &w)| x * i32::from(w));
            let sum: i32 = products.sum();
            let bias = bias.map_or(0.0, |bias| bias[column]);
            out.push((sum as f32).mul_add(multiplier, bias));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_of_zeros_has_the_least_scale_and_gives_the_bias() {
        let weight = quantize_per_tensor_int8(&[0.0; 6]);
        assert_eq!(weight.scale, f32::EPSILON);
        let out = dynamic_linear(&[1.0, -2.0, 3.0], 3, &weight, Some(&[0.25, -7.0]), true);
        assert_eq!(out, [0.25, -7.0]);
    }

    #[test]
    fn one_text_changes_the_result_of_another() {
        let weight = quantize_per_tensor_int8(&[1.0]);
        let alone = dynamic_linear(&[0.1], 1, &weight, None, true);
        let together = dynamic_linear(&[0.1, 100.0], 1, &weight, None, true);
        assert_ne!(alone[0], together[0]);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let width = crate::activation::MAX_INT8_COLUMNS;
        let weight = PerTensorInt8 {
            codes: vec![-128; width],
            scale: 1.0,
        };
        let out = dynamic_linear(&vec![255.0; width], width, &weight, None, false);
        assert_eq!(out, [(-128.0 * 255.0 * width as f64) as f32]);
    }

    #[test]
    fn no_rows_give_no_rows() {
        let weight = quantize_per_tensor_int8(&[1.0, 2.0]);
        assert!(dynamic_linear(&[], 2, &weight, None, true).is_empty());
    }

    #[test]
    #[should_panic(expected = "one bias for each output")]
    fn a_wrong_bias_panics() {
        dynamic_linear(
            &[1.0],
            1,
            &quantize_per_tensor_int8(&[1.0]),
            Some(&[]),
            true,
        );
    }
}
