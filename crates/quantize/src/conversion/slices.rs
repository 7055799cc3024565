//! Reading a tensor slice by slice.

use fewbit_checkpoint::{CheckpointError, TensorView};

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
        self.view.read_finite_range(start, &mut self.buffer)?;
        self.next += length;
        Ok(Some((start, &self.buffer)))
    }
}
