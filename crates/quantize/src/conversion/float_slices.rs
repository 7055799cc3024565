//! Reading what is quantized, slice by slice, as the file has it.

use std::ops::Range;

use fewbit_checkpoint::{CheckpointError, TensorView};
use fewbit_kernels::FloatBytes;
use fewbit_numerics::dtype::DType;

use super::matrix_shape;

/// Elements of a slice, where the granule allows: enough for every thread, and 8 MiB of f32 where a slice has to be put together.
const SLICE_ELEMENTS: usize = 1 << 21;

/// Slices of a float tensor, in order, whose pages do not stay in memory: bytes of the file, or f32 where these are no floats that kernels read or an adapter changes them.
pub(super) struct FloatSlices<'a> {
    view: &'a TensorView<'a>,
    in_file: Option<FloatBytes<'a>>,
    /// All elements in another order than that of the file.
    transposed: Option<Vec<f32>>,
    buffer: Vec<f32>,
    slice_elements: usize,
    /// Where the last slice begins, and where it ends.
    last: usize,
    next: usize,
}

impl<'a> FloatSlices<'a> {
    /// Slices whose lengths are multiples of `granule` (a row, a block), except for the last.
    pub(super) fn new(view: &'a TensorView<'a>, granule: usize) -> Self {
        let granule = granule.max(1);
        Self {
            view,
            in_file: floats_in_file(view),
            transposed: None,
            buffer: Vec::new(),
            slice_elements: (SLICE_ELEMENTS / granule).max(1) * granule,
            last: 0,
            next: 0,
        }
    }

    /// Slices of the transpose of a matrix, which is in memory as f32.
    ///
    /// # Errors
    /// No matrix; what [`next_slice`](Self::next_slice) is refused for.
    pub(super) fn of_transpose(
        view: &'a TensorView<'a>,
        granule: usize,
    ) -> Result<Self, CheckpointError> {
        let [rows, columns] = matrix_shape(view)?;
        let mut transposed = vec![0.0; rows * columns];
        let mut row = vec![0.0; columns];
        for index in 0..rows {
            view.read_f32_range(index * columns, &mut row)?;
            for (column, value) in row.iter().enumerate() {
                transposed[column * rows + index] = *value;
            }
        }
        Ok(Self {
            transposed: Some(transposed),
            ..Self::new(view, granule)
        })
    }

    /// All elements as one slice.
    pub(super) fn whole(view: &'a TensorView<'a>) -> Self {
        Self::new(view, view.element_count())
    }

    /// The next slice: its elements in the flattened tensor, and these. Whether they are finite is not looked at: see [`refuse`].
    ///
    /// # Errors
    /// A dtype that is no readable float; what keeps an adapter from being merged.
    pub(super) fn next_slice(
        &mut self,
    ) -> Result<Option<(Range<usize>, FloatBytes<'_>)>, CheckpointError> {
        let start = self.next;
        // Who has asked for the next slice is done with the one before.
        self.view.release(self.last..start);
        self.last = start;
        let end = self.view.element_count().min(start + self.slice_elements);
        if start == end {
            return Ok(None);
        }
        self.next = end;
        if let Some(transposed) = &self.transposed {
            return Ok(Some((
                start..end,
                FloatBytes::of_f32(&transposed[start..end]),
            )));
        }
        let floats = match self.in_file {
            Some(floats) => floats.range(start..end),
            None => {
                self.buffer.resize(end - start, 0.0);
                self.view.read_f32_range(start, &mut self.buffer)?;
                FloatBytes::of_f32(&self.buffer)
            }
        };
        Ok(Some((start..end, floats)))
    }
}

/// The elements where the file has them, if kernels read them there.
fn floats_in_file<'a>(view: &TensorView<'a>) -> Option<FloatBytes<'a>> {
    let bytes = view.file_bytes()?;
    // Files are little-endian.
    if cfg!(target_endian = "big") {
        return None;
    }
    match view.info.dtype {
        DType::F32 => Some(FloatBytes::f32(bytes)),
        DType::F16 => Some(FloatBytes::f16(bytes)),
        DType::BF16 => Some(FloatBytes::bf16(bytes)),
        _ => None,
    }
}

/// The error of `elements` in which a kernel met a NaN or an infinity: it names the first.
pub(super) fn refuse(view: &TensorView<'_>, elements: Range<usize>) -> CheckpointError {
    match view.check_finite(elements) {
        Err(error) => error,
        Ok(()) => unreachable!("the kernels and the checkpoint say alike what is finite"),
    }
}
