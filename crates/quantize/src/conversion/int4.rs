//! int4 with a scale for each group of columns: linear layers.

use fewbit_checkpoint::compressed_tensors::Int4Scheme;
use fewbit_checkpoint::{CheckpointError, TensorView};
use fewbit_numerics::error_statistics::ErrorSums;
use fewbit_numerics::int4_groups::{GroupScales, Int4Groups, Int4Settings};

use super::float_slices::{FloatSlices, refuse};
use super::{Outcome, Output, matrix_shape};
use crate::QuantizeError;
use crate::weight_codecs::{ErrorFigures, quantize_int4};

/// Rows whose packed zero points are a word of their own.
const ROWS_OF_A_WORD: usize = 8;

/// Quantizes a matrix group by group as `scheme` has it and writes it, slice by slice.
pub(super) fn quantize(
    view: &TensorView<'_>,
    scheme: Int4Scheme,
    scales: GroupScales,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let [_, columns] = matrix_shape(view)?;
    let settings = settings(scheme, scales, columns);
    let mut slices = FloatSlices::new(view, ROWS_OF_A_WORD * columns);
    let mut error = ErrorSums::default();
    while let Some((place, floats)) = slices.next_slice()? {
        let shape = [place.len() / columns, columns];
        let Some((groups, found)) = quantize_int4(floats, shape, settings, ErrorFigures::Sum)
        else {
            return Err(refuse(view, place).into());
        };
        error.merge(&found);
        let first_row = place.start / columns;
        output.write_rows(view, &scheme, first_row, &scheme.stored_weight(groups))?;
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
    scheme: Int4Scheme,
    scales: GroupScales,
) -> Result<Int4Groups, CheckpointError> {
    let shape = matrix_shape(view)?;
    let settings = settings(scheme, scales, shape[1]);
    let mut slices = FloatSlices::whole(view);
    let Some((place, floats)) = slices.next_slice()? else {
        return Ok(fewbit_numerics::int4_groups::quantize_int4(
            &[],
            shape[0],
            shape[1],
            settings,
        ));
    };
    match quantize_int4(floats, shape, settings, ErrorFigures::Skip) {
        Some((groups, _)) => Ok(groups),
        None => Err(refuse(view, place)),
    }
}

fn settings(scheme: Int4Scheme, scales: GroupScales, columns: usize) -> Int4Settings {
    Int4Settings {
        group_size: scheme.group_size_of(columns),
        asymmetric: scheme.asymmetric,
        scales,
    }
}
