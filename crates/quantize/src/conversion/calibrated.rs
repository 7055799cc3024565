//! Weights that were rounded for their inputs: all rows of one are there at a time.

use fewbit_checkpoint::{StoredWeight, TensorView};
use fewbit_kernels::FloatBytes;
use fewbit_numerics::error_statistics::ErrorSums;

use super::{Outcome, Output, matrix_shape};
use crate::weight_codecs::four_bit_error;
use crate::{PlanRow, QuantizeError};

/// The values of a weight.
///
/// # Errors
/// NaN or infinity; what keeps it from being read.
pub(crate) fn read(view: &TensorView<'_>) -> Result<Vec<f32>, QuantizeError> {
    matrix_shape(view)?;
    let mut weights = vec![0.0; view.element_count()];
    view.read_finite_range(0, &mut weights)?;
    Ok(weights)
}

/// Writes `rounded`, which became of the `weights` of `view`, in the layout of its row.
pub(crate) fn write(
    view: &TensorView<'_>,
    row: &PlanRow,
    weights: &[f32],
    rounded: &StoredWeight<'_>,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let shape = matrix_shape(view)?;
    let layout = row.action.layout().expect("it is quantized");
    output.write_rows(view, layout, 0, rounded)?;
    let error = match rounded {
        // Before they are rounded to the dtype of the layout, as of weights that are not calibrated.
        StoredWeight::FourBit {
            packed,
            absmax,
            block_size,
            kind,
            ..
        } => {
            let source = FloatBytes::of_f32(weights);
            four_bit_error(output.kernels, source, packed, absmax, *block_size, *kind)
        }
        _ => {
            let mut error = ErrorSums::default();
            error.add(weights, &rounded.dequantize(shape)?);
            error
        }
    };
    output.advance(weights.len() * view.info.dtype.bytes(), &view.info.name);
    Ok(Outcome {
        error: Some(error.statistics()),
        ..Outcome::default()
    })
}
