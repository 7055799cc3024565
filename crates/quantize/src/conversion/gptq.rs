//! int8 weights that GPTQ rounds: all rows of one are there at a time.

use fewbit_checkpoint::TensorView;
use fewbit_checkpoint::compressed_tensors::CompressedScheme;
use fewbit_numerics::error_statistics::ErrorSums;
use fewbit_numerics::rows::{Int8Rows, dequantize_groups};

use super::{Outcome, Output, matrix_shape};
use crate::QuantizeError;

/// Reads a matrix, has it rounded, and writes it in the layout of `scheme`; also returns what was written.
pub(crate) fn quantize(
    view: &TensorView<'_>,
    scheme: CompressedScheme,
    rounded: &dyn Fn(&[f32]) -> Int8Rows,
    output: &mut Output<'_>,
) -> Result<(Outcome, Int8Rows), QuantizeError> {
    let [_, columns] = matrix_shape(view)?;
    let mut weights = vec![0.0; view.element_count()];
    view.read_finite_range(0, &mut weights)?;
    let rows = rounded(&weights);
    output.write_rows(view, &scheme, 0, &scheme.stored_weight_of(&rows))?;
    let mut error = ErrorSums::default();
    let dequantized: Vec<f32> =
        dequantize_groups(&rows.codes, &rows.scales, None, columns).collect();
    error.add(&weights, &dequantized);
    output.advance(weights.len() * view.info.dtype.bytes(), &view.info.name);
    let outcome = Outcome {
        error: Some(error.statistics()),
        ..Outcome::default()
    };
    Ok((outcome, rows))
}
