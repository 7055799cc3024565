//! The triangular factor of a Hessian's inverse.

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::hessian::triangle;
use super::{ColumnOrder, Hessian};

/// What is added to the diagonal, as a part of its mean: first this, and ten and a hundred times as much where that is not enough.
pub const DAMPING: f64 = 0.01;

/// How often more damping is tried.
const ATTEMPTS: i32 = 3;

/// Rows that threads share.
const BLOCK_ROWS: usize = 64;

/// Rows of a block that one thread works on at a time: they share each finished row while it is in the cache.
const TILE_ROWS: usize = 8;

/// `U`, upper triangular with a positive diagonal, `Uᵀ U = (H + damping)⁻¹`.
///
/// It is computed without an inverse of H: with `H = R Rᵀ`, R upper triangular, it is `R⁻¹`.
/// In the reversed order of rows and columns R is the ordinary Cholesky factor. Rows and columns of H are those of the weight in the order in which they are
/// rounded.
#[derive(Debug, Clone, PartialEq)]
pub struct InverseFactor {
    order: ColumnOrder,
    /// The column of each row of U.
    columns: Vec<usize>,
    damping: f64,
    /// The last row of U first, each from the diagonal on: rows of 1, 2, 3 … entries.
    rows: Vec<f64>,
}

/// No damping makes the matrix positive definite.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a Hessian that has no Cholesky factor with {damping} of its mean diagonal added")]
pub struct NotPositive {
    /// The most damping that was tried.
    pub damping: f64,
}

impl InverseFactor {
    /// The factor for `hessian`, whose entries are finite, with its columns in `order`, on the threads of the current pool.
    ///
    /// A column whose inputs are all zero (its diagonal entry is 0, and so is its row) has the diagonal 1 instead: it neither gives nor
    /// takes anything, and the mean is that of the other columns.
    ///
    /// # Errors
    /// [`NotPositive`], which damping rules out for sums of squares, to the rounding of f64.
    pub fn of(hessian: &Hessian, order: ColumnOrder) -> Result<Self, NotPositive> {
        let mut damping = DAMPING;
        for attempt in 1..=ATTEMPTS {
            if let Some(factor) = Self::with_damping(hessian, order, damping) {
                return Ok(factor);
            }
            if attempt < ATTEMPTS {
                damping *= 10.0;
            }
        }
        Err(NotPositive { damping })
    }

    /// The factor with this much damping; none if the matrix is not positive definite then.
    pub fn with_damping(hessian: &Hessian, order: ColumnOrder, damping: f64) -> Option<Self> {
        let columns = order.columns(hessian);
        let size = columns.len();
        let mut lower = reversed_and_damped(hessian, &columns, damping);
        cholesky(&mut lower, size)?;
        invert(&mut lower, size);
        // Reversed back: row i of the inverse, from its diagonal entry to its first, is a row of U from the diagonal on.
        let mut rest = lower.as_mut_slice();
        for row in 0..size {
            let (row, others) = std::mem::take(&mut rest).split_at_mut(row + 1);
            row.reverse();
            rest = others;
        }
        let factor = Self {
            order,
            columns,
            damping,
            rows: lower,
        };
        factor.rows.iter().all(|x| x.is_finite()).then_some(factor)
    }

    /// The order in which columns are rounded with it.
    pub fn order(&self) -> ColumnOrder {
        self.order
    }

    /// The columns of the weights that it is for, in that order: row i of U is about the i-th of them.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// What was added to the diagonal, as a part of its mean.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    /// Row `row` of U, from its diagonal entry on.
    pub fn row(&self, row: usize) -> &[f64] {
        let index = self.columns.len() - 1 - row;
        &self.rows[triangle(index)..triangle(index + 1)]
    }
}

/// The lower triangle of the Hessian, rows and columns in the reverse of an order, with a positive diagonal.
fn reversed_and_damped(hessian: &Hessian, order: &[usize], damping: f64) -> Vec<f64> {
    let columns = order.len();
    let live = hessian.diagonal().filter(|&entry| entry > 0.0);
    let (count, sum) = live.fold((0u64, 0.0), |(count, sum), entry| (count + 1, sum + entry));
    let added = damping * sum / count.max(1) as f64;
    let mut lower = Vec::with_capacity(triangle(columns));
    for row in (0..columns).rev() {
        lower.extend(
            (row..columns)
                .rev()
                .map(|column| hessian.entry(order[row], order[column])),
        );
        let diagonal = lower.last_mut().expect("a row ends at its diagonal");
        *diagonal = if *diagonal > 0.0 {
            *diagonal + added
        } else {
            1.0
        };
    }
    lower
}

/// The rows of a block of a lower triangle, and all rows before them.
fn split_block(lower: &mut [f64], start: usize, end: usize) -> (&[f64], Vec<&mut [f64]>) {
    let (before, block) = lower[..triangle(end)].split_at_mut(triangle(start));
    let mut rest = block;
    let rows = (start..end).map(|row| {
        let (row, others) = std::mem::take(&mut rest).split_at_mut(row + 1);
        rest = others;
        row
    });
    let rows = rows.collect();
    (before, rows)
}

fn row_of(lower: &[f64], row: usize) -> &[f64] {
    &lower[triangle(row)..triangle(row + 1)]
}

/// Makes the lower triangle of A that of L, `A = L Lᵀ`. None if A is not positive definite.
///
/// `L[i][j] = (A[i][j] - sum over k < j of L[i][k] L[j][k]) / L[j][j]`, and the root of it on the diagonal: each row needs only those above it.
fn cholesky(lower: &mut [f64], size: usize) -> Option<()> {
    for start in (0..size).step_by(BLOCK_ROWS) {
        let end = size.min(start + BLOCK_ROWS);
        let (before, mut rows) = split_block(lower, start, end);
        // What the rows of the block need of finished ones, each for itself.
        rows.par_chunks_mut(TILE_ROWS).for_each(|tile| {
            for column in 0..start {
                let above = row_of(before, column);
                for row in &mut *tile {
                    let sum = row[column] - dot(&row[..column], above);
                    row[column] = sum / above[column];
                }
            }
        });
        for index in 0..rows.len() {
            let (above, row) = rows.split_at_mut(index);
            let row = &mut *row[0];
            for (column, above) in (start..).zip(above) {
                let sum = row[column] - dot(&row[..column], above);
                row[column] = sum / above[column];
            }
            let diagonal = start + index;
            let square = row[diagonal] - dot(&row[..diagonal], &row[..diagonal]);
            if !(square > 0.0 && square.is_finite()) {
                return None;
            }
            row[diagonal] = square.sqrt();
        }
    }
    Some(())
}

/// Makes the lower triangle L its inverse: row i of it is `-(sum over k < i of L[i][k] * row k) / L[i][i]`, and `1 / L[i][i]` on the diagonal.
fn invert(lower: &mut [f64], size: usize) {
    for start in (0..size).step_by(BLOCK_ROWS) {
        let end = size.min(start + BLOCK_ROWS);
        let (before, mut rows) = split_block(lower, start, end);
        let coefficients: Vec<Vec<f64>> = rows.iter().map(|row| row.to_vec()).collect();
        rows.par_chunks_mut(TILE_ROWS)
            .zip(coefficients.par_chunks(TILE_ROWS))
            .for_each(|(tile, coefficients)| {
                tile.iter_mut().for_each(|row| row.fill(0.0));
                for column in 0..start {
                    let above = row_of(before, column);
                    for (row, coefficients) in tile.iter_mut().zip(coefficients) {
                        add_scaled(row, coefficients[column], above);
                    }
                }
            });
        for (index, coefficients) in coefficients.iter().enumerate() {
            let (above, row) = rows.split_at_mut(index);
            let row = &mut *row[0];
            for (column, above) in (start..).zip(above) {
                add_scaled(row, coefficients[column], above);
            }
            let diagonal = start + index;
            let inverse = 1.0 / coefficients[diagonal];
            row.iter_mut().for_each(|entry| *entry *= -inverse);
            row[diagonal] = inverse;
        }
    }
}

/// Sums of products in eight chains, which a compiler can keep in vectors, in an order that does not depend on the machine.
fn dot(left: &[f64], right: &[f64]) -> f64 {
    const CHAINS: usize = 8;
    let right = &right[..left.len()];
    let (left, left_rest) = left.as_chunks::<CHAINS>();
    let (right, right_rest) = right.as_chunks::<CHAINS>();
    let mut sums = [0.0; CHAINS];
    for (left, right) in left.iter().zip(right) {
        for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
            *sum += left * right;
        }
    }
    let rest = left_rest.iter().zip(right_rest);
    sums.iter().sum::<f64>() + rest.map(|(left, right)| left * right).sum::<f64>()
}

/// `to += factor * from`, over the entries that `from` has.
fn add_scaled(to: &mut [f64], factor: f64, from: &[f64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}
