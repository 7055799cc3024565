//! int8 with one scale a row, or one at all: linear layers and embedding tables.

use fewbit_checkpoint::compressed_tensors::{CompressedScheme, WeightScales};
use fewbit_checkpoint::{CheckpointError, TensorView, WeightLayout};
use fewbit_numerics::absmax::absmax;
use fewbit_numerics::rows::{
    Int8Rows, dequantize_groups, per_tensor_scale, quantize_int8_with_scale, quantize_rows_int8,
};

use super::slices::Slices;
use super::{Outcome, Output, matrix_shape};
use crate::QuantizeError;
use fewbit_numerics::error_statistics::ErrorSums;

/// Quantizes a matrix row by row as `scheme` has it and writes it, slice by slice, in `layout`.
pub(super) fn quantize(
    view: &TensorView<'_>,
    scheme: CompressedScheme,
    layout: &dyn WeightLayout,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let [_, columns] = matrix_shape(view)?;
    let one_scale = match scheme.weight_scales() {
        WeightScales::PerChannel => None,
        WeightScales::PerTensor => Some(per_tensor_scale(largest_magnitude(view, columns)?)),
    };
    let mut slices = Slices::new(view, columns);
    let mut error = ErrorSums::default();
    let mut dequantized = Vec::new();
    while let Some((start, values)) = slices.next_slice()? {
        let slice = quantize_rows(values, columns, one_scale);
        dequantized.clear();
        dequantized.extend(dequantize_groups(&slice.codes, &slice.scales, columns));
        error.add(values, &dequantized);
        output.write_rows(view, layout, start / columns, &scheme.stored_weight(slice))?;
        output.advance(values.len() * view.info.dtype.bytes(), &view.info.name);
    }
    Ok(Outcome {
        error: Some(error.statistics()),
        ..Outcome::default()
    })
}

/// The codes of a whole matrix, as [`quantize`] writes them.
pub(crate) fn in_memory(
    view: &TensorView<'_>,
    scheme: CompressedScheme,
) -> Result<Int8Rows, CheckpointError> {
    let [rows, columns] = matrix_shape(view)?;
    let mut values = vec![0.0; rows * columns];
    view.read_finite_range(0, &mut values)?;
    let one_scale = match scheme.weight_scales() {
        WeightScales::PerChannel => None,
        WeightScales::PerTensor => Some(per_tensor_scale(absmax(&values))),
    };
    Ok(quantize_rows(&values, columns, one_scale))
}

fn quantize_rows(values: &[f32], columns: usize, one_scale: Option<f32>) -> Int8Rows {
    let rows = values.len() / columns;
    match one_scale {
        None => quantize_rows_int8(values, rows, columns),
        Some(scale) => quantize_int8_with_scale(values, rows, columns, scale),
    }
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
