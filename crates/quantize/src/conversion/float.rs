//! Tensors that stay float.

use std::borrow::Cow;

use fewbit_checkpoint::TensorView;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::half_precision::{
    ConversionLosses, bf16_bytes_to_f32, f16_bytes_to_f32, f32_to_bf16_bytes, f32_to_f16_bytes,
};

use super::slices::Slices;
use super::{Outcome, Output};
use crate::config_file::transformers_name;
use crate::{PlanRow, QuantizeError};
use fewbit_numerics::error_statistics::ErrorSums;

/// Elements of a tensor of no floats that are written at a time.
const KEPT_ELEMENTS: usize = 1 << 20;

/// Writes the tensor as it is, slice by slice. Floats of the encoder must be finite; what other tensors hold is carried over, and NaN and
/// infinity in them are reported.
pub(super) fn keep(
    view: &TensorView<'_>,
    row: &PlanRow,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let (name, width) = (&view.info.name, view.info.dtype.bytes());
    let mut outcome = Outcome::default();
    let stored = view.file_bytes();
    if view.info.is_readable_float() {
        let mut slices = Slices::of_row(view, row);
        while let Some((start, values)) = slices.next_slice()? {
            outcome.note_non_finite(view, start, values);
            let bytes = match stored {
                Some(stored) => Cow::Borrowed(&stored[start * width..][..values.len() * width]),
                // Put together from base and adapter, which is F32.
                None => Cow::Owned(values.iter().copied().flat_map(f32::to_le_bytes).collect()),
            };
            let part = (start * width, bytes.len());
            output.writer.write_tensor_part(name, part.0, &bytes)?;
            output.advance(part.1, name);
        }
    } else {
        let bytes = view.bytes()?;
        for (index, part) in bytes.chunks(KEPT_ELEMENTS * width).enumerate() {
            let start = index * KEPT_ELEMENTS;
            let end = start + part.len() / width;
            output.writer.write_tensor_part(name, start * width, part)?;
            output.advance(part.len(), name);
            view.release(start..end);
        }
    }
    if view.element_count() == 0 {
        output.writer.write_tensor(name, &[])?;
    }
    Ok(outcome)
}

/// Rounds the tensor to fp16 or bf16, or one in F64 to f32.
pub(super) fn convert(
    view: &TensorView<'_>,
    row: &PlanRow,
    dtype: DType,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let name = &view.info.name;
    let mut slices = Slices::of_row(view, row);
    let mut error = ErrorSums::default();
    let mut outcome = Outcome::default();
    let (mut bytes, mut rounded) = (Vec::new(), Vec::new());
    while let Some((start, values)) = slices.next_slice()? {
        bytes.resize(dtype.bytes() * values.len(), 0);
        rounded.resize(values.len(), 0.0);
        let losses = narrow(values, dtype, &mut bytes, &mut rounded);
        let overflows = |(value, rounded): (&f32, &f32)| value.is_finite() && rounded.is_infinite();
        if losses.overflowed > 0
            && let Some(offset) = values.iter().zip(&rounded).position(overflows)
        {
            return Err(overflow(view, dtype, start + offset, values[offset]));
        }
        outcome.underflowed += losses.underflowed;
        outcome.note_non_finite(view, start, values);
        error.add(values, &rounded);
        output
            .writer
            .write_tensor_part(name, start * dtype.bytes(), &bytes)?;
        output.advance(values.len() * view.info.dtype.bytes(), name);
    }
    if view.element_count() == 0 {
        output.writer.write_tensor(name, &[])?;
    }
    // There is no error figure of numbers that are none.
    if outcome.non_finite.is_none() {
        outcome.error = Some(error.statistics());
    }
    Ok(outcome)
}

/// `values` as `dtype`, and what a reader gets back.
fn narrow(values: &[f32], dtype: DType, bytes: &mut [u8], rounded: &mut [f32]) -> ConversionLosses {
    if dtype == DType::F32 {
        for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
            *bytes = value.to_le_bytes();
        }
        rounded.copy_from_slice(values);
        ConversionLosses::default()
    } else if dtype == DType::F16 {
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
