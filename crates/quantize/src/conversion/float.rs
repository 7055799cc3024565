//! Tensors that stay float.

use std::borrow::Cow;

use fewbit_checkpoint::TensorView;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::half_precision::{f32_to_float_bytes, float_bytes_to_f32};

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

/// Rounds the tensor to fp16 or bf16, or widens it to f32, to which F64 is rounded.
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
        let losses = f32_to_float_bytes(dtype, values, &mut bytes);
        // What a reader gets back.
        float_bytes_to_f32(dtype, &bytes, &mut rounded);
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
