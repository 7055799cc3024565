//! What the inputs of a layer look like together: `H = sum x xᵀ` over its rows x.
//!
//! The paper has 2/N times this sum, N being the number of rows: a factor that nothing depends on, as damping is relative.

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// Rows whose products are summed in f32, before the sum is added in f64: an entry is off by less than `256 * 2^-24` of the sum of its
/// magnitudes, however many rows there are.
const BLOCK_ROWS: usize = 256;

/// Columns that are multiplied together.
const PANEL: usize = 8;

/// Some columns of a block: what each row has in them.
type Panel = [[f32; PANEL]];

/// Sums over rows of a matrix with so many columns. The result depends on the rows and their order alone, not on how they are cut into
/// calls, nor on the number of threads.
#[derive(Debug, Clone, PartialEq)]
pub struct Hessian {
    columns: usize,
    rows: u64,
    /// The lower triangle, row by row: row i has i + 1 entries.
    sums: Vec<f64>,
    /// Rows that do not fill a block yet.
    pending: Vec<f32>,
}

impl Hessian {
    /// Of no rows.
    pub fn new(columns: usize) -> Self {
        Self {
            columns,
            rows: 0,
            sums: vec![0.0; triangle(columns)],
            pending: Vec::new(),
        }
    }

    /// Bytes that the Hessian of so many columns takes.
    pub fn bytes_of(columns: usize) -> usize {
        triangle(columns) * size_of::<f64>()
    }

    /// Columns of the rows, and of H.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows that were taken in.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes in rows (rows, columns; row-major), on the threads of the current pool.
    ///
    /// # Panics
    /// If `values` are no whole rows.
    pub fn add_rows(&mut self, mut values: &[f32]) {
        assert_eq!(values.len() % self.columns, 0, "whole rows");
        self.rows += (values.len() / self.columns) as u64;
        let block = BLOCK_ROWS * self.columns;
        while !values.is_empty() {
            let free = block - self.pending.len();
            let (now, later) = values.split_at(free.min(values.len()));
            self.pending.extend_from_slice(now);
            values = later;
            if self.pending.len() == block {
                self.add_pending();
            }
        }
    }

    /// Takes in the rows that do not fill a block. Call it when all rows are there.
    pub fn finish(&mut self) {
        if !self.pending.is_empty() {
            self.add_pending();
        }
        self.pending = Vec::new();
    }

    fn add_pending(&mut self) {
        let rows = self.pending.len() / self.columns;
        let panels: Vec<Vec<[f32; PANEL]>> = (0..self.columns.div_ceil(PANEL))
            .into_par_iter()
            .map(|index| panel(&self.pending, self.columns, index * PANEL))
            .collect();
        debug_assert!(panels.iter().all(|panel| panel.len() == rows));
        // The rows of H that belong to one panel lie together.
        let mut rest = self.sums.as_mut_slice();
        let mut strips = Vec::with_capacity(panels.len());
        for first in (0..self.columns).step_by(PANEL) {
            let end = self.columns.min(first + PANEL);
            let (strip, others) =
                std::mem::take(&mut rest).split_at_mut(triangle(end) - triangle(first));
            rest = others;
            strips.push((first / PANEL, strip));
        }
        // The longest first, so that no thread is left with one at the end.
        strips
            .into_par_iter()
            .rev()
            .with_max_len(1)
            .for_each(|(index, strip)| add_products(strip, &panels, index, self.columns));
        self.pending.clear();
    }

    /// The entry of a row and a column.
    pub fn entry(&self, row: usize, column: usize) -> f64 {
        let (row, column) = (row.max(column), row.min(column));
        self.sums[triangle(row) + column]
    }

    /// The diagonal: `sum x^2` of each column.
    pub fn diagonal(&self) -> impl Iterator<Item = f64> {
        (0..self.columns).map(|column| self.entry(column, column))
    }

    /// Whether all entries are numbers. Rows that are not finite make others, and so do squares beyond f32.
    pub fn is_finite(&self) -> bool {
        self.sums.iter().all(|sum| sum.is_finite())
    }
}

/// Entries of a lower triangle with so many rows.
pub(super) fn triangle(rows: usize) -> usize {
    rows * (rows + 1) / 2
}

/// The columns from `first` on of a block, row by row, filled up with zeros.
fn panel(block: &[f32], columns: usize, first: usize) -> Vec<[f32; PANEL]> {
    let width = PANEL.min(columns - first);
    let rows = block.chunks_exact(columns);
    rows.map(|row| {
        let mut values = [0.0; PANEL];
        values[..width].copy_from_slice(&row[first..first + width]);
        values
    })
    .collect()
}

/// Adds the products of panel `index` with itself and all before it to the rows of H that belong to it.
fn add_products(strip: &mut [f64], panels: &[Vec<[f32; PANEL]>], index: usize, columns: usize) {
    const HALF: usize = PANEL / 2;
    let first_row = index * PANEL;
    for (other, right) in panels[..=index].iter().enumerate() {
        for half in [0, HALF] {
            let sums = products::<HALF>(&panels[index], half, right);
            for (offset, sums) in sums.iter().enumerate() {
                let row = first_row + half + offset;
                let first_column = other * PANEL;
                if row >= columns || first_column > row {
                    continue;
                }
                let end = PANEL.min(row + 1 - first_column);
                let start = triangle(row) - triangle(first_row) + first_column;
                for (entry, sum) in strip[start..start + end].iter_mut().zip(sums) {
                    *entry += f64::from(*sum);
                }
            }
        }
    }
}

/// Sums over rows of the products of `N` columns of one panel, from `start` on, with all of another.
fn products<const N: usize>(left: &Panel, start: usize, right: &Panel) -> [[f32; PANEL]; N] {
    let mut sums = [[0.0; PANEL]; N];
    for (left, right) in left.iter().zip(right) {
        for (sums, &left) in sums.iter_mut().zip(&left[start..start + N]) {
            for (sum, &right) in sums.iter_mut().zip(right) {
                *sum += left * right;
            }
        }
    }
    sums
}
