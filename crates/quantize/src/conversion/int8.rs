//! int8 with one scale a row, or one at all: linear layers and embedding tables.

use fewbit_checkpoint::TensorView;
use fewbit_checkpoint::compressed_tensors::{CompressedScheme, WeightScales};
use fewbit_numerics::absmax::absmax;
use fewbit_numerics::rows::{
    dequantize_groups, per_tensor_scale, quantize_int8_with_scale, quantize_rows_int8,
};

use super::slices::Slices;
use super::{Outcome, Output, matrix_shape, module_name};
use crate::QuantizeError;
use fewbit_numerics::error_statistics::ErrorSums;

/// Quantizes a matrix row by row and writes it, slice by slice, in the layout of `scheme`.
pub(super) fn quantize(
    view: &TensorView<'_>,
    scheme: CompressedScheme,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let shape = matrix_shape(view)?;
    let columns = shape[1];
    let one_scale = match scheme.weight_scales() {
        WeightScales::PerChannel => None,
        WeightScales::PerTensor => Some(per_tensor_scale(largest_magnitude(view, columns)?)),
    };
    let mut slices = Slices::new(view, columns);
    let mut error = ErrorSums::default();
    let mut dequantized = Vec::new();
    while let Some((start, values)) = slices.next_slice()? {
        let rows = values.len() / columns;
        let slice = match one_scale {
            None => quantize_rows_int8(values, rows, columns),
            Some(scale) => quantize_int8_with_scale(values, rows, columns, scale),
        };
        dequantized.clear();
        dequantized.extend(dequantize_groups(&slice.codes, &slice.scales, columns));
        error.add(values, &dequantized);
        for part in scheme.encode_rows(module_name(view), shape, start / columns, &slice) {
            output
                .writer
                .write_tensor_part(&part.name, part.offset, &part.bytes)?;
        }
        output.advance(values.len() * view.info.dtype.bytes(), &view.info.name);
    }
    Ok(Outcome {
        error: Some(error.statistics()),
        ..Outcome::default()
    })
}

/// The largest magnitude of a matrix.
fn largest_magnitude(view: &TensorView<'_>, columns: usize) -> Result<f32, QuantizeError> {
    let mut slices = Slices::new(view, columns);
    let mut largest = 0.0f32;
    while let Some((_, values)) = slices.next_slice()? {
        largest = largest.max(absmax(values));
    }
    Ok(largest)
}
