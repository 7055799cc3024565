//! The rounding of rows, column after column.

use super::InverseFactor;

/// How a weight becomes a code, where others will still make up for what is lost.
///
/// One quantizer has one row: its scales, and its codes as far as they are known. It is asked for each column once, in order.
pub trait ColumnQuantizer {
    /// Chooses the code of the weight `remaining[0]`, that of column `column`, and returns what it stands for. The other values
    /// of `remaining` are the columns to come, as they are now.
    fn quantize(&mut self, column: usize, remaining: &[f64]) -> f64;
}

/// Rounds rows (rows, columns; row-major), each with a quantizer of its own, in the natural order of columns.
///
/// With q the value that the quantizer gives column j of a row w, the columns k > j become
///
/// ```text
/// w[k] - (w[j] - q) / U[j][j] * U[j][k]
/// ```
///
/// which is where the change of the outputs is least, given the columns up to j. Afterwards `rows` holds q.
///
/// # Panics
/// If there is not one row for each quantizer.
pub fn round_rows<Q: ColumnQuantizer>(
    rows: &mut [f64],
    factor: &InverseFactor,
    quantizers: &mut [Q],
) {
    let columns = factor.columns();
    assert_eq!(rows.len(), quantizers.len() * columns, "a row each");
    // All rows at a column, so that a row of U is read once for all of them.
    for column in 0..columns {
        let of_factor = factor.row(column);
        let (diagonal, of_factor) = (of_factor[0], &of_factor[1..]);
        for (row, quantizer) in rows.chunks_exact_mut(columns).zip(quantizers.iter_mut()) {
            let remaining = &mut row[column..];
            let value = quantizer.quantize(column, remaining);
            let error = (remaining[0] - value) / diagonal;
            remaining[0] = value;
            for (weight, entry) in remaining[1..].iter_mut().zip(of_factor) {
                *weight -= error * entry;
            }
        }
    }
}
