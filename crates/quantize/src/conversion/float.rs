//! Tensors that stay float.

use fewbit_checkpoint::TensorView;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::half_precision::{
    ConversionLosses, bf16_bytes_to_f32, f16_bytes_to_f32, f32_to_bf16_bytes, f32_to_f16_bytes,
};

use super::slices::Slices;
use super::{Outcome, Output};
use crate::QuantizeError;
use crate::config_file::transformers_name;
use fewbit_numerics::error_statistics::ErrorSums;

/// Writes the tensor as it is. F32, F16 and BF16 tensors must be finite; what others hold is not looked at.
pub(super) fn keep(
    view: &TensorView<'_>,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    if matches!(view.info.dtype, DType::F32 | DType::F16 | DType::BF16) {
        let mut slices = Slices::new(view, 1);
        while slices.next_slice()?.is_some() {}
    }
    output.writer.write_tensor(&view.info.name, view.bytes)?;
    output.advance(view.bytes.len(), &view.info.name);
    Ok(Outcome::default())
}

/// Rounds the tensor to fp16 or bf16.
pub(super) fn convert(
    view: &TensorView<'_>,
    dtype: DType,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let name = &view.info.name;
    let mut slices = Slices::new(view, 1);
    let mut error = ErrorSums::default();
    let mut underflowed = 0;
    let (mut bytes, mut rounded) = (Vec::new(), Vec::new());
    while let Some((start, values)) = slices.next_slice()? {
        bytes.resize(dtype.bytes() * values.len(), 0);
        rounded.resize(values.len(), 0.0);
        let losses = narrow(values, dtype, &mut bytes, &mut rounded);
        if losses.overflowed > 0
            && let Some(offset) = rounded.iter().position(|value| value.is_infinite())
        {
            return Err(overflow(view, dtype, start + offset, values[offset]));
        }
        underflowed += losses.underflowed;
        error.add(values, &rounded);
        output
            .writer
            .write_tensor_part(name, start * dtype.bytes(), &bytes)?;
        output.advance(values.len() * view.info.dtype.bytes(), name);
    }
    if view.element_count() == 0 {
        output.writer.write_tensor(name, &[])?;
    }
    Ok(Outcome {
        error: Some(error.statistics()),
        underflowed,
    })
}

/// `values` as `dtype`, and what a reader gets back.
fn narrow(values: &[f32], dtype: DType, bytes: &mut [u8], rounded: &mut [f32]) -> ConversionLosses {
    if dtype == DType::F16 {
        let losses = f32_to_f16_bytes(values, bytes);
        f16_bytes_to_f32(bytes, rounded);
        losses
    } else {
        let losses = f32_to_bf16_bytes(values, bytes);
        bf16_bytes_to_f32(bytes, rounded);
        losses
    }
}

fn overflow(view: &TensorView<'_>, dtype: DType, element: usize, value: f32) -> QuantizeError {
    QuantizeError::Overflow {
        file: view.info.file.clone(),
        tensor: view.info.name.clone(),
        dtype: transformers_name(dtype),
        index: view.index_of(element),
        value,
        hint: if dtype == DType::F16 {
            "the largest fp16 value is 65504: use the method `bf16`, whose range is that of f32"
        } else {
            "the value is within half a step of the largest f32: the checkpoint is likely damaged"
        },
    }
}
