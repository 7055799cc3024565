//! int8 with one scale a row: linear layers and embedding tables.

use fewbit_checkpoint::TensorView;
use fewbit_checkpoint::compressed_tensors::CompressedScheme;
use fewbit_numerics::affine::AffineParameters;
use fewbit_numerics::rows::{Int8Rows, quantize_rows_int8};

use super::slices::Slices;
use super::{Outcome, Output, matrix_shape, module_name};
use crate::QuantizeError;
use fewbit_numerics::error_statistics::ErrorSums;

/// Quantizes a matrix row by row and writes it in the layout of `scheme`.
pub(super) fn quantize(
    view: &TensorView<'_>,
    scheme: CompressedScheme,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let [rows, columns] = matrix_shape(view)?;
    let mut whole = Int8Rows {
        rows,
        columns,
        codes: Vec::with_capacity(view.element_count()),
        scales: Vec::with_capacity(rows),
    };
    let mut slices = Slices::new(view, columns);
    let mut error = ErrorSums::default();
    let mut dequantized = Vec::new();
    while let Some((_, values)) = slices.next_slice()? {
        let slice = quantize_rows_int8(values, values.len() / columns, columns);
        dequantize(&slice, &mut dequantized);
        error.add(values, &dequantized);
        whole.codes.extend_from_slice(&slice.codes);
        whole.scales.extend_from_slice(&slice.scales);
        output.advance(values.len() * view.info.dtype.bytes(), &view.info.name);
    }
    output.write_all(&scheme.encode(module_name(view), &whole))?;
    Ok(Outcome {
        error: Some(error.statistics()),
        underflowed: 0,
    })
}

fn dequantize(rows: &Int8Rows, out: &mut Vec<f32>) {
    out.clear();
    for (codes, &scale) in rows.codes.chunks_exact(rows.columns).zip(&rows.scales) {
        let parameters = AffineParameters {
            scale,
            zero_point: 0,
        };
        out.extend(codes.iter().map(|&code| parameters.dequantize(code.into())));
    }
}
