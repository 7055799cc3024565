//! In which order a file has the rows of a matrix.

/// The order of rows, in a file and in the checkpoint that it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOrder {
    /// The same in both.
    Same,
    /// Queries and keys of llama.cpp's architecture `llama`, which turns neighbouring features, where transformers turns the two halves of a head: row
    /// `half + i` of a head follows its row `i`.
    InterleavedHeads {
        /// Rows of a head, an even number.
        head_rows: usize,
    },
}

impl RowOrder {
    /// Where the file has row `row` of the checkpoint.
    pub fn stored(self, row: usize) -> usize {
        match self {
            Self::Same => row,
            Self::InterleavedHeads { head_rows } => {
                let (head, inside) = (row / head_rows, row % head_rows);
                let half = head_rows / 2;
                head * head_rows + inside % half * 2 + inside / half
            }
        }
    }

    /// Which row of the checkpoint the file has at `row`.
    pub fn of_stored(self, row: usize) -> usize {
        match self {
            Self::Same => row,
            Self::InterleavedHeads { head_rows } => {
                let (head, inside) = (row / head_rows, row % head_rows);
                let half = head_rows / 2;
                head * head_rows + inside % 2 * half + inside / 2
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RowOrder;

    #[test]
    fn halves_of_heads_are_interleaved() {
        let order = RowOrder::InterleavedHeads { head_rows: 6 };
        let stored: Vec<usize> = (0..12).map(|row| order.of_stored(row)).collect();
        // numpy: arange(12).reshape(2, 2, 3).swapaxes(1, 2).reshape(-1)
        assert_eq!(stored, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        for row in 0..12 {
            assert_eq!(order.of_stored(order.stored(row)), row);
        }
    }
}
