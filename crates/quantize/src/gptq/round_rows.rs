//! The rounding of rows, column after column.

use std::ops::Range;

use super::InverseFactor;

/// Columns that are rounded before those after them are told of it, all at once. Even, so that no pair of columns is cut.
const BLOCK_COLUMNS: usize = 128;

/// Columns after a block that are changed together, and rows: their weights stay in registers while the errors of the block go by.
const PANEL_COLUMNS: usize = 4;
const PANEL_ROWS: usize = 4;

/// How a weight becomes a code, where others will still make up for what is lost.
///
/// One quantizer has one row: its scales, and its codes as far as they are known. It is asked for each column once, in the order of the factor.
pub trait ColumnQuantizer {
    /// Chooses the code of the weight `remaining[0]`, that of column `column`, and returns what it stands for. The other values
    /// of `remaining` are columns to come, as they are now: all that are known to be up to date, and at least the neighbour of an even column in an order
    /// that keeps pairs together.
    fn quantize(&mut self, column: usize, remaining: &[f64]) -> f64;
}

/// Rounds rows (rows, columns; row-major), each with a quantizer of its own, in the order of the factor.
///
/// With q the value that the quantizer gives the j-th column of a row w, the columns k > j become
///
/// ```text
/// w[k] - (w[j] - q) / U[j][j] * U[j][k]
/// ```
///
/// which is where the change of the outputs is least, given the columns up to j. Columns beyond the block of j hear of it when the block is done; each weight
/// loses the same products in the same order as if it were told at once, so that blocks change no bit.
///
/// # Panics
/// If there is not one row for each quantizer.
pub fn round_rows<Q: ColumnQuantizer>(
    weights: &[f32],
    factor: &InverseFactor,
    quantizers: &mut [Q],
) {
    let order = factor.columns();
    let columns = order.len();
    assert_eq!(weights.len(), quantizers.len() * columns, "a row each");
    let in_order = weights
        .chunks_exact(columns)
        .flat_map(|row| order.iter().map(|&column| f64::from(row[column])));
    let mut rows: Vec<f64> = in_order.collect();
    let mut errors = vec![[0.0; BLOCK_COLUMNS]; quantizers.len()];
    for start in (0..columns).step_by(BLOCK_COLUMNS) {
        let block = start..columns.min(start + BLOCK_COLUMNS);
        // All rows at a column, so that a row of U is read once for all of them.
        for position in block.clone() {
            let of_factor = &factor.row(position)[..block.end - position];
            let (diagonal, of_factor) = (of_factor[0], &of_factor[1..]);
            let rows = rows.chunks_exact_mut(columns).zip(&mut errors);
            for ((row, errors), quantizer) in rows.zip(quantizers.iter_mut()) {
                let remaining = &mut row[position..block.end];
                let value = quantizer.quantize(order[position], remaining);
                let error = (remaining[0] - value) / diagonal;
                errors[position - start] = error;
                for (weight, entry) in remaining[1..].iter_mut().zip(of_factor) {
                    *weight -= error * entry;
                }
            }
        }
        tell_later_columns(&mut rows, factor, &errors, block);
    }
}

/// Takes the errors of a block of columns, divided by the diagonal, from the columns after it.
fn tell_later_columns(
    rows: &mut [f64],
    factor: &InverseFactor,
    errors: &[[f64; BLOCK_COLUMNS]],
    block: Range<usize>,
) {
    let columns = factor.columns().len();
    let mut panel = [[0.0; PANEL_COLUMNS]; BLOCK_COLUMNS];
    for first in (block.end..columns).step_by(PANEL_COLUMNS) {
        let width = PANEL_COLUMNS.min(columns - first);
        for (entries, position) in panel.iter_mut().zip(block.clone()) {
            let place = first - position;
            entries[..width].copy_from_slice(&factor.row(position)[place..place + width]);
        }
        let panel = &panel[..block.len()];
        for (chunk, errors) in errors.chunks(PANEL_ROWS).enumerate() {
            let place = |row: usize| {
                let start = (chunk * PANEL_ROWS + row) * columns + first;
                start..start + width
            };
            let mut weights = [[0.0; PANEL_COLUMNS]; PANEL_ROWS];
            for (row, weights) in weights[..errors.len()].iter_mut().enumerate() {
                weights[..width].copy_from_slice(&rows[place(row)]);
            }
            match errors {
                [a, b, c, d] => subtract_products(&mut weights, [a, b, c, d], panel),
                _ => {
                    for (weights, errors) in weights.iter_mut().zip(errors) {
                        subtract_products(std::array::from_mut(weights), [errors], panel);
                    }
                }
            }
            for (row, weights) in weights[..errors.len()].iter().enumerate() {
                rows[place(row)].copy_from_slice(&weights[..width]);
            }
        }
    }
}

/// Takes from each weight the products of its row's errors with its column's entries, one after the other.
fn subtract_products<const ROWS: usize>(
    weights: &mut [[f64; PANEL_COLUMNS]; ROWS],
    errors: [&[f64; BLOCK_COLUMNS]; ROWS],
    panel: &[[f64; PANEL_COLUMNS]],
) {
    let mut left = *weights;
    for (index, entries) in panel.iter().enumerate() {
        for (left, errors) in left.iter_mut().zip(errors) {
            for (left, entry) in left.iter_mut().zip(entries) {
                *left -= errors[index] * entry;
            }
        }
    }
    *weights = left;
}
