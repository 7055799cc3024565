//! Reading a tensor slice by slice.

use fewbit_checkpoint::{CheckpointError, TensorView};

use crate::PlanRow;

/// Elements of a slice, where the granule allows: 1 MiB of f32.
const SLICE_ELEMENTS: usize = 1 << 18;

/// Slices of a float tensor, in order, widened to f32 and, where the encoder uses the tensor, known to be finite.
pub(super) struct Slices<'a> {
    view: &'a TensorView<'a>,
    buffer: Vec<f32>,
    slice_elements: usize,
    /// Where the last slice begins, and where it ends.
    last: usize,
    next: usize,
    must_be_finite: bool,
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
            last: 0,
            next: 0,
            must_be_finite: true,
        }
    }

    /// Slices of a tensor that stays float. A tensor that the encoder does not use may hold anything.
    pub(super) fn of_row(view: &'a TensorView<'a>, row: &PlanRow) -> Self {
        Self {
            must_be_finite: row.is_of_the_encoder(),
            ..Self::new(view, 1)
        }
    }

    /// The next slice: index of its first element in the flattened tensor, and its values.
    ///
    /// # Errors
    /// NaN or infinity where they may not be, named by tensor and index; a dtype that is no readable float.
    pub(super) fn next_slice(&mut self) -> Result<Option<(usize, &[f32])>, CheckpointError> {
        let start = self.next;
        // Who has asked for the next slice is done with the one before.
        self.view.release(self.last..start);
        self.last = start;
        let length = self.slice_elements.min(self.view.element_count() - start);
        if length == 0 {
            return Ok(None);
        }
        self.buffer.resize(length, 0.0);
        if self.must_be_finite {
            self.view.read_finite_range(start, &mut self.buffer)?;
        } else {
            self.view.read_f32_range(start, &mut self.buffer)?;
        }
        self.next += length;
        Ok(Some((start, &self.buffer)))
    }
}
