//! int4 with a scale for each group of columns: linear layers.

use fewbit_checkpoint::{CheckpointError, GroupLayout, TensorView};
use fewbit_kernels::Kernels;
use fewbit_numerics::error_statistics::ErrorSums;
use fewbit_numerics::int4_groups::{GroupScales, Int4Groups, Int4Settings};

use super::float_slices::{FloatSlices, refuse};
use super::{Outcome, Output, matrix_shape};
use crate::QuantizeError;
use crate::weight_codecs::{ErrorFigures, quantize_int4};

/// Rows whose packed zero points are a word of their own.
const ROWS_OF_A_WORD: usize = 8;

/// Quantizes a matrix group by group as `layout` has it and writes it, slice by slice, or at the end where the layout takes a whole weight.
pub(super) fn quantize(
    view: &TensorView<'_>,
    layout: GroupLayout,
    scales: GroupScales,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let [_, columns] = matrix_shape(view)?;
    let settings = settings(layout, scales, columns);
    let mut slices = FloatSlices::new(view, ROWS_OF_A_WORD * columns);
    let mut error = ErrorSums::default();
    let mut whole: Option<Int4Groups> = None;
    while let Some((place, floats)) = slices.next_slice()? {
        let shape = [place.len() / columns, columns];
        let Some((groups, found)) =
            quantize_int4(output.kernels, floats, shape, settings, ErrorFigures::Sum)
        else {
            return Err(refuse(view, place).into());
        };
        error.merge(&found);
        match (&mut whole, layout.takes_parts()) {
            (_, true) => {
                let first_row = place.start / columns;
                output.write_rows(view, &layout, first_row, &layout.stored_weight(groups))?;
            }
            (Some(whole), false) => append(whole, groups),
            (None, false) => whole = Some(groups),
        }
        output.advance(place.len() * view.info.dtype.bytes(), &view.info.name);
    }
    if let Some(groups) = whole {
        output.write_rows(view, &layout, 0, &layout.stored_weight(groups))?;
    }
    Ok(Outcome {
        error: Some(error.statistics()),
        ..Outcome::default()
    })
}

/// The codes of a whole matrix, as [`quantize`] writes them.
pub(crate) fn in_memory(
    kernels: &Kernels,
    view: &TensorView<'_>,
    layout: GroupLayout,
    scales: GroupScales,
) -> Result<Int4Groups, CheckpointError> {
    let shape = matrix_shape(view)?;
    let settings = settings(layout, scales, shape[1]);
    let mut slices = FloatSlices::whole(view);
    let Some((place, floats)) = slices.next_slice()? else {
        return Ok(fewbit_numerics::int4_groups::quantize_int4(
            &[],
            shape[0],
            shape[1],
            settings,
        ));
    };
    match quantize_int4(kernels, floats, shape, settings, ErrorFigures::Skip) {
        Some((groups, _)) => Ok(groups),
        None => Err(refuse(view, place)),
    }
}

/// Adds the rows of `more`.
fn append(whole: &mut Int4Groups, more: Int4Groups) {
    whole.rows += more.rows;
    whole.codes.extend(more.codes);
    whole.scales.extend(more.scales);
    if let (Some(points), Some(more)) = (&mut whole.zero_points, more.zero_points) {
        points.extend(more);
    }
}

/// How a weight of so many columns becomes codes in that layout.
pub(crate) fn settings(layout: GroupLayout, scales: GroupScales, columns: usize) -> Int4Settings {
    Int4Settings {
        group_size: layout.group_size_of(columns),
        asymmetric: layout.is_asymmetric(),
        scales,
        storage: layout.storage(),
    }
}
