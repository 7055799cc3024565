//! NaN and infinity are errors wherever they enter or come up.

use crate::ModelError;
use fewbit_checkpoint::{CheckpointError, CheckpointErrorKind, TensorView};
use fewbit_numerics::finite::first_non_finite;

/// Elements of a stored tensor that are widened at a time: 64 KiB of f32, which stay in the cache.
const SLICE_ELEMENTS: usize = 1 << 14;

/// Errors at the first NaN or infinity of a stored float tensor (a vector or a matrix).
pub(crate) fn check_tensor(view: &TensorView<'_>) -> Result<(), CheckpointError> {
    let elements = view.element_count();
    let mut buffer = vec![0.0; elements.min(SLICE_ELEMENTS)];
    for start in (0..elements).step_by(SLICE_ELEMENTS) {
        let values = &mut buffer[..SLICE_ELEMENTS.min(elements - start)];
        view.read_f32_range(start, values)?;
        if let Some((offset, value)) = find(values) {
            let element = start + offset;
            let index = match view.info.shape[..] {
                [_, columns] => vec![element / columns, element % columns],
                _ => vec![element],
            };
            let message = format!("expected finite values, found {value} at {index:?}");
            return Err(
                CheckpointError::new(CheckpointErrorKind::NonFinite, message)
                    .in_file(&view.info.file)
                    .at_tensor(&view.info.name)
                    .hint("the checkpoint is damaged or its training diverged"),
            );
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
    match find(values) {
        None => Ok(()),
        Some((index, value)) => Err(ModelError::NonFinite {
            site: format!("{module}.{end}"),
            row: first_row + index / columns,
            column: index % columns,
            value,
        }),
    }
}

fn find(values: &[f32]) -> Option<(usize, f32)> {
    // Without an early exit this becomes vector code; the search runs only when there is something to find.
    if values
        .iter()
        .fold(true, |all, value| all & value.is_finite())
    {
        return None;
    }
    first_non_finite(values)
}
