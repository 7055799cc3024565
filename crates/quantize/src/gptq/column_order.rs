//! In which order columns are rounded.

use super::Hessian;

/// An order of the columns of a weight. What is rounded first is made up for by the most others; what is rounded last, by none. The weight is stored in its
/// natural order whatever this is, as scales are chosen before a column is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ColumnOrder {
    /// As they lie in the weight.
    #[default]
    Natural,
    /// By the falling mean square of their inputs, the diagonal of the Hessian: "act order", or `desc_act`.
    FallingSquares,
    /// The pairs of columns 2i and 2i + 1 by the falling sum of both: a pair stays together, and a last column without a neighbour comes last.
    FallingPairs,
}

impl ColumnOrder {
    /// The columns of `hessian` in this order; equal ones as they lie.
    pub fn columns(self, hessian: &Hessian) -> Vec<usize> {
        let columns = hessian.columns();
        let squares: Vec<f64> = hessian.diagonal().collect();
        let mut order: Vec<usize> = (0..columns).collect();
        match self {
            Self::Natural => {}
            Self::FallingSquares => {
                order.sort_by(|&a, &b| squares[b].total_cmp(&squares[a]));
            }
            Self::FallingPairs => {
                let mut pairs: Vec<usize> = (0..columns / 2).collect();
                let of_pair = |pair: usize| squares[2 * pair] + squares[2 * pair + 1];
                pairs.sort_by(|&a, &b| of_pair(b).total_cmp(&of_pair(a)));
                let in_order = pairs.iter().flat_map(|pair| [2 * pair, 2 * pair + 1]);
                for (place, column) in order.iter_mut().zip(in_order) {
                    *place = column;
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_inputs_come_first_and_equal_ones_as_they_lie() {
        let mut hessian = Hessian::new(7);
        hessian.add_rows(&[1.0, 3.0, 2.0, -3.0, 0.0, 4.0, 9.0]);
        hessian.finish();
        assert_eq!(
            ColumnOrder::Natural.columns(&hessian),
            [0, 1, 2, 3, 4, 5, 6]
        );
        assert_eq!(
            ColumnOrder::FallingSquares.columns(&hessian),
            [6, 5, 1, 3, 2, 0, 4]
        );
        // 10, 13 and 16; the last has no neighbour.
        assert_eq!(
            ColumnOrder::FallingPairs.columns(&hessian),
            [4, 5, 2, 3, 0, 1, 6]
        );
    }
}
