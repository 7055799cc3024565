//! NaN and infinity are errors wherever they enter or come up.

use crate::ModelError;
use fewbit_checkpoint::{CheckpointError, MappedTensor, TensorView};
use fewbit_numerics::finite::first_non_finite;

/// Elements of a stored tensor that are widened at a time: 64 KiB of f32, which stay in the cache.
const SLICE_ELEMENTS: usize = 1 << 14;

/// A tensor of more elements is let go slice by slice while it is checked, as it might be the largest part of the model.
const LARGE_TENSOR_ELEMENTS: usize = 1 << 22;

/// Errors at the first NaN or infinity of a stored float tensor that is kept as it is stored; `mapped` is the same tensor.
pub(crate) fn check_tensor(
    view: &TensorView<'_>,
    mapped: Option<&MappedTensor>,
) -> Result<(), CheckpointError> {
    let elements = view.element_count();
    let large = mapped.filter(|_| elements > LARGE_TENSOR_ELEMENTS);
    let width = view.info.dtype.bytes();
    let mut buffer = vec![0.0; elements.min(SLICE_ELEMENTS)];
    for start in (0..elements).step_by(SLICE_ELEMENTS) {
        let values = &mut buffer[..SLICE_ELEMENTS.min(elements - start)];
        view.read_finite_range(start, values)?;
        if let Some(mapped) = large {
            mapped.release(start * width..(start + values.len()) * width);
        }
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
