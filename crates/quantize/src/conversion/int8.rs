//! int8 with one scale a row: linear layers and embedding tables.

use fewbit_checkpoint::TensorView;
use fewbit_checkpoint::compressed_tensors::CompressedScheme;
use fewbit_numerics::rows::{dequantize_groups, quantize_rows_int8};

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
    let mut slices = Slices::new(view, columns);
    let mut error = ErrorSums::default();
    let mut dequantized = Vec::new();
    while let Some((start, values)) = slices.next_slice()? {
        let slice = quantize_rows_int8(values, values.len() / columns, columns);
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
        underflowed: 0,
    })
}
