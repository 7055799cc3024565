//! Checks that turn NaN and infinity into errors, in weights and in values of a run.

use crate::ModelError;
use fewbit_checkpoint::{CheckpointError, MappedTensor, TensorView};
use fewbit_numerics::finite::first_non_finite;

/// The memory of a tensor of more elements is released part by part while it is checked, as it might be the largest part of the model.
const LARGE_TENSOR_ELEMENTS: usize = 1 << 22;

/// Elements of a large tensor whose memory is released at a time.
const PART_ELEMENTS: usize = 1 << 18;

/// Errors at the first NaN or infinity of a stored float tensor that is kept as it is stored; `mapped` is the same tensor.
pub(crate) fn check_tensor(
    view: &TensorView<'_>,
    mapped: Option<&MappedTensor>,
) -> Result<(), CheckpointError> {
    let elements = view.element_count();
    let Some(mapped) = mapped.filter(|_| elements > LARGE_TENSOR_ELEMENTS) else {
        return view.check_finite(0..elements);
    };
    let width = view.info.dtype.bytes();
    for start in (0..elements).step_by(PART_ELEMENTS) {
        let end = elements.min(start + PART_ELEMENTS);
        view.check_finite(start..end)?;
        mapped.release(start * width..end * width);
    }
    Ok(())
}

/// Errors at the first NaN or infinity of `values` (rows, columns), which came up at `end` of `module`; `first_row` is the
/// number of their first row.
pub(crate) fn check_values(
    values: &[f32],
    columns: usize,
    first_row: usize,
    module: &str,
    end: &str,
) -> Result<(), ModelError> {
    match first_non_finite(values) {
        None => Ok(()),
        Some((index, value)) => Err(ModelError::NonFinite {
            site: format!("{module}.{end}"),
            row: first_row + index / columns,
            column: index % columns,
            value,
        }),
    }
}
