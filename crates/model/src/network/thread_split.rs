//! How several threads share a block.

use fewbit_kernels::COLUMN_SPLIT;

/// Several threads share the rows of a block where each gets at least this number, and the columns of each product where not.
const LEAST_SHARED_ROWS: usize = 32;

/// How the work on a block is split among threads: by chunks of rows, or by columns of each product.
#[derive(Clone, Copy)]
pub(super) struct ThreadSplit {
    /// Threads that take chunks of rows.
    pub(super) rows: usize,
    /// Threads that take columns of a product.
    pub(super) columns: usize,
}

impl ThreadSplit {
    /// At most `threads` threads, as many as find work: in `rows` rows that can be shared out, or else in the columns of products, of which
    /// the narrowest has `columns`.
    pub(super) fn of(threads: usize, rows: usize, columns: usize) -> Self {
        let by_rows = threads.min(rows / LEAST_SHARED_ROWS).max(1);
        let by_columns = threads.min(columns.div_ceil(COLUMN_SPLIT)).max(1);
        if by_rows >= by_columns {
            Self {
                rows: by_rows,
                columns: 1,
            }
        } else {
            Self {
                rows: 1,
                columns: by_columns,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_rows_where_these_occupy_as_many() {
        let split = |threads, rows| {
            let ThreadSplit { rows, columns } = ThreadSplit::of(threads, rows, 384);
            (rows, columns)
        };
        assert_eq!(split(1, 1), (1, 1));
        assert_eq!(split(1, 256), (1, 1));
        assert_eq!(split(2, 63), (1, 2));
        assert_eq!(split(2, 64), (2, 1));
        assert_eq!(split(4, 100), (1, 4));
        // A product of 384 columns has six parts.
        assert_eq!(split(64, 16), (1, 6));
        assert_eq!(split(64, 191), (1, 6));
        assert_eq!(split(64, 512), (16, 1));
    }
}
