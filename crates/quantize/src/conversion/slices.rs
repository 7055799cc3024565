//! Reading a tensor slice by slice.

use fewbit_checkpoint::{CheckpointError, CheckpointErrorKind, TensorView};
use fewbit_numerics::finite::first_non_finite;

/// Elements of a slice, where the granule allows: 1 MiB of f32.
const SLICE_ELEMENTS: usize = 1 << 18;

/// Slices of a float tensor, in order, widened to f32 and known to be finite.
pub(super) struct Slices<'a> {
    view: &'a TensorView<'a>,
    buffer: Vec<f32>,
    slice_elements: usize,
    next: usize,
}

impl<'a> Slices<'a> {
    /// Slices whose lengths are multiples of `granule` (a row, a block), except for the last.
    pub(super) fn new(view: &'a TensorView<'a>, granule: usize) -> Self {
        let granule = granule.max(1);
        let slice_elements = (SLICE_ELEMENTS / granule).max(1) * granule;
        Self {
            view,
            buffer: Vec::new(),
            slice_elements: slice_elements.min(view.element_count()).max(1),
            next: 0,
        }
    }

    /// The next slice: index of its first element in the flattened tensor, and its values.
    ///
    /// # Errors
    /// NaN or infinity, named by tensor and index; a dtype that is no readable float.
    pub(super) fn next_slice(&mut self) -> Result<Option<(usize, &[f32])>, CheckpointError> {
        let start = self.next;
        let length = self.slice_elements.min(self.view.element_count() - start);
        if length == 0 {
            return Ok(None);
        }
        self.buffer.resize(length, 0.0);
        self.view.read_f32_range(start, &mut self.buffer)?;
        self.next += length;
        if let Some((offset, value)) = first_non_finite(&self.buffer) {
            return Err(non_finite(self.view, start + offset, value));
        }
        Ok(Some((start, &self.buffer)))
    }
}

fn non_finite(view: &TensorView<'_>, element: usize, value: f32) -> CheckpointError {
    let index = index_of(element, &view.info.shape);
    CheckpointError::new(
        CheckpointErrorKind::NonFinite,
        format!("expected finite values, found {value} at {index:?}"),
    )
    .in_file(&view.info.file)
    .at_tensor(&view.info.name)
    .hint("the checkpoint is damaged or its training diverged: no method can store this value")
}

/// Index of an element of the flattened tensor, one number a dimension.
pub(super) fn index_of(element: usize, shape: &[usize]) -> Vec<usize> {
    let mut rest = element;
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let size = size.max(1);
            let position = rest % size;
            rest /= size;
            position
        })
        .collect();
    index.reverse();
    index
}

#[cfg(test)]
mod tests {
    use super::index_of;

    #[test]
    fn indexes_are_row_major() {
        assert_eq!(index_of(0, &[2, 3]), [0, 0]);
        assert_eq!(index_of(5, &[2, 3]), [1, 2]);
        assert_eq!(index_of(23, &[2, 3, 4]), [1, 2, 3]);
        assert_eq!(index_of(7, &[9]), [7]);
        assert!(index_of(0, &[]).is_empty());
    }
}
