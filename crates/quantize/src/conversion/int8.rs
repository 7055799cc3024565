//! int8 with one scale a row, or one at all: linear layers and embedding tables.

use fewbit_checkpoint::compressed_tensors::{CompressedScheme, WeightScales};
use fewbit_checkpoint::{CheckpointError, TensorView, WeightLayout};
use fewbit_kernels::Kernels;
use fewbit_numerics::error_statistics::ErrorSums;
use fewbit_numerics::rows::{Int8Rows, per_tensor_scale, row_scale};

use super::float_slices::{FloatSlices, refuse};
use super::{Outcome, Output, matrix_shape};
use crate::QuantizeError;
use crate::weight_codecs::{self, ErrorFigures, quantize_int8};

/// Quantizes a matrix row by row as `scheme` has it and writes it, slice by slice, in `layout`.
pub(super) fn quantize(
    view: &TensorView<'_>,
    scheme: CompressedScheme,
    layout: &dyn WeightLayout,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let [_, columns] = matrix_shape(view)?;
    let kernels = output.kernels;
    let one_scale = one_scale(view, scheme, kernels)?;
    let mut slices = FloatSlices::new(view, columns);
    let mut error = ErrorSums::default();
    while let Some((place, floats)) = slices.next_slice()? {
        // A group is quantized as a row is.
        let group = scheme.group_size_of(columns).max(1);
        let shape = [place.len() / group, group];
        let (slice, found) = quantize_int8(kernels, floats, shape, one_scale, ErrorFigures::Sum);
        if !found.finite {
            return Err(refuse(view, place).into());
        }
        error.merge(&found.error);
        let first_row = place.start / columns;
        output.write_rows(view, layout, first_row, &scheme.stored_weight(slice))?;
        output.advance(place.len() * view.info.dtype.bytes(), &view.info.name);
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
    kernels: &Kernels,
) -> Result<Int8Rows, CheckpointError> {
    let [rows, columns] = matrix_shape(view)?;
    let one_scale = one_scale(view, scheme, kernels)?;
    let mut slices = FloatSlices::whole(view);
    let Some((place, floats)) = slices.next_slice()? else {
        return Ok(Int8Rows {
            rows,
            columns,
            codes: Vec::new(),
            scales: vec![row_scale(0.0); rows],
        });
    };
    let group = scheme.group_size_of(columns).max(1);
    let shape = [rows * columns / group, group];
    let (quantized, found) = quantize_int8(kernels, floats, shape, one_scale, ErrorFigures::Skip);
    if !found.finite {
        return Err(refuse(view, place));
    }
    Ok(quantized)
}

/// The scale of all rows, where they share one.
fn one_scale(
    view: &TensorView<'_>,
    scheme: CompressedScheme,
    kernels: &Kernels,
) -> Result<Option<f32>, CheckpointError> {
    if scheme.weight_scales() == WeightScales::PerChannel {
        return Ok(None);
    }
    let mut slices = FloatSlices::new(view, 1);
    let mut largest = 0.0f32;
    while let Some((place, floats)) = slices.next_slice()? {
        match weight_codecs::largest_magnitude(kernels, floats) {
            Some(of_slice) => largest = largest.max(of_slice),
            None => return Err(refuse(view, place)),
        }
    }
    Ok(Some(per_tensor_scale(largest)))
}
