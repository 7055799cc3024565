//! Where a product goes: all columns of a row-major matrix, or some of them while other threads write the others.

use crate::panel_layout::INT8_PANEL_VECTORS;
use crate::simd::LANES;
use std::marker::PhantomData;
use std::ops::Range;

/// Columns can be split at multiples of this number, where panels of weights begin on every instruction set.
pub const COLUMN_SPLIT: usize = INT8_PANEL_VECTORS * LANES;

/// Some columns of all rows of a row-major matrix, to be written.
///
/// A product computes the columns that its output has. Few rows leave nothing else to share out: each thread takes some columns, and
/// reads the weights of these alone.
///
/// ```
/// use fewbit_kernels::OutputColumns;
/// let mut matrix = [0.0; 2 * 96];
/// let (left, right) = OutputColumns::of_matrix(&mut matrix, 96).split_at(64);
/// assert_eq!((left.columns(), right.columns()), (0..64, 64..96));
/// ```
#[derive(Debug)]
pub struct OutputColumns<'a, T = f32> {
    /// The first of the columns in the first row.
    start: *mut T,
    rows: usize,
    /// Elements from one row to the next.
    stride: usize,
    /// Columns of the full matrix.
    matrix_columns: usize,
    columns: Range<usize>,
    matrix: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a mutable borrow of its elements, and no other value refers to them.
unsafe impl<T: Send> Send for OutputColumns<'_, T> {}

impl<'a, T> OutputColumns<'a, T> {
    /// All columns of a matrix (rows, `columns`).
    ///
    /// # Panics
    ///
    /// If `matrix` does not consist of whole rows.
    pub fn of_matrix(matrix: &'a mut [T], columns: usize) -> Self {
        Self::padded(matrix, columns, columns)
    }

    /// All columns of a matrix (rows, `columns`) whose rows begin `stride` elements apart.
    pub(crate) fn padded(matrix: &'a mut [T], columns: usize, stride: usize) -> Self {
        let rows = matrix.len().checked_div(stride).unwrap_or(0);
        assert!(
            columns <= stride && rows * stride == matrix.len(),
            "whole rows of {columns} columns, found {} elements",
            matrix.len()
        );
        Self {
            start: matrix.as_mut_ptr(),
            rows,
            stride,
            matrix_columns: columns,
            columns: 0..columns,
            matrix: PhantomData,
        }
    }

    /// Those before column `at` of the matrix, and the others.
    ///
    /// # Panics
    ///
    /// If `at` is neither one of these columns and a multiple of [`COLUMN_SPLIT`], nor their end.
    pub fn split_at(self, at: usize) -> (Self, Self) {
        let Range { start, end } = self.columns;
        assert!(
            at == end || (start..end).contains(&at) && at.is_multiple_of(COLUMN_SPLIT),
            "split columns {start}..{end} at a multiple of {COLUMN_SPLIT}, found {at}"
        );
        let right = Self {
            // Wrapping: there may be no row, and nothing after it.
            start: self.start.wrapping_add(at - start),
            columns: at..end,
            ..self
        };
        let left = Self {
            columns: start..at,
            ..self
        };
        (left, right)
    }

    /// Which columns of the matrix these are.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Which columns of the full matrix these are.
    pub(crate) fn matrix_columns(&self) -> usize {
        self.matrix_columns
    }

    /// How many columns these are.
    pub(crate) fn count(&self) -> usize {
        self.columns.len()
    }

    /// Some of these columns, counted from the first one of them.
    pub(crate) fn part(&mut self, part: Range<usize>) -> OutputColumns<'_, T> {
        assert!(part.start <= part.end && part.end <= self.count());
        OutputColumns {
            start: self.start.wrapping_add(part.start),
            columns: self.columns.start + part.start..self.columns.start + part.end,
            matrix: PhantomData,
            ..*self
        }
    }

    /// These columns without the first `rows` rows.
    pub(crate) fn after(self, rows: usize) -> Self {
        assert!(rows <= self.rows);
        Self {
            start: self.start.wrapping_add(rows * self.stride),
            rows: self.rows - rows,
            ..self
        }
    }

    /// The columns first..first + count of a row, counted from the first one of these columns.
    #[inline(always)]
    pub(crate) fn slice(&mut self, row: usize, first: usize, count: usize) -> &mut [T] {
        assert!(row < self.rows && first <= self.count() && count <= self.count() - first);
        // SAFETY: the row and the columns are in the matrix. No two `OutputColumns` have an element in common, and the borrow of `self`
        // is the only one of this one's.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride + first), count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_rows_are_where_they_belong() {
        let mut matrix: Vec<usize> = (0..3 * 130).collect();
        let (mut left, right) = OutputColumns::of_matrix(&mut matrix, 130).split_at(64);
        let (mut middle, mut right) = right.split_at(128);
        assert_eq!(middle.columns(), 64..128);
        assert_eq!((right.rows(), right.columns()), (3, 128..130));
        assert_eq!(left.slice(2, 62, 2), [260 + 62, 260 + 63]);
        assert_eq!(middle.slice(1, 1, 2), [130 + 65, 130 + 66]);
        assert_eq!(right.slice(2, 0, 2), [260 + 128, 260 + 129]);
        let mut part = middle.part(16..48);
        assert_eq!(part.part(1..2).after(2).slice(0, 0, 1), [260 + 81]);
        assert_eq!((part.columns(), part.slice(0, 1, 1)[0]), (80..112, 81));
        right.slice(0, 1, 1)[0] = 0;
        assert_eq!((matrix[128], matrix[129], matrix[130]), (128, 0, 130));
    }

    #[test]
    fn without_rows_or_columns() {
        let (left, right) = OutputColumns::<f32>::of_matrix(&mut [], 100).split_at(64);
        assert_eq!((left.rows(), right.columns()), (0, 64..100));
        let none = OutputColumns::<f32>::of_matrix(&mut [], 0);
        assert_eq!((none.rows(), none.columns()), (0, 0..0));
    }

    #[test]
    #[should_panic = "at a multiple of 64"]
    fn panels_are_not_split() {
        let _parts = OutputColumns::of_matrix(&mut [0.0; 200], 200).split_at(100);
    }
}
