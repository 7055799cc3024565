//! What is collected of the inputs of a layer.

use super::Hessian;

/// Sums over the rows of an input that weights are quantized by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum InputStatistics {
    /// `sum x xᵀ`, which GPTQ needs.
    Hessian(Hessian),
    /// `sum x^2` of each column: all that weighted scales need.
    Squares(Vec<f64>),
}

impl InputStatistics {
    /// Of no rows of so many columns.
    pub(super) fn new(columns: usize, for_gptq: bool) -> Self {
        match for_gptq {
            true => Self::Hessian(Hessian::new(columns)),
            false => Self::Squares(vec![0.0; columns]),
        }
    }

    /// Bytes that they take.
    pub(super) fn bytes_of(columns: usize, for_gptq: bool) -> usize {
        match for_gptq {
            true => Hessian::bytes_of(columns),
            false => columns * size_of::<f64>(),
        }
    }

    /// Takes in what was seen, of the kind that it is made of.
    pub(super) fn add(&mut self, seen: &SeenRows) {
        match (self, seen) {
            (Self::Hessian(hessian), SeenRows::Values(values)) => hessian.add_rows(values),
            (Self::Squares(sums), SeenRows::Squares(squares)) => {
                for (sum, square) in sums.iter_mut().zip(squares) {
                    *sum += square;
                }
            }
            _ => unreachable!(
                "the same site says what is kept of its rows and what they are added to"
            ),
        }
    }

    /// Call it when all rows are there.
    pub(super) fn finish(&mut self) {
        if let Self::Hessian(hessian) = self {
            hessian.finish();
        }
    }

    /// Whether all sums are numbers.
    pub(super) fn is_finite(&self) -> bool {
        match self {
            Self::Hessian(hessian) => hessian.is_finite(),
            Self::Squares(sums) => sums.iter().all(|sum| sum.is_finite()),
        }
    }

    /// The mean square of each column as a part of the largest, 0 to 1; 0 where all inputs are.
    pub(super) fn importance(&self) -> Vec<f32> {
        let sums = match self {
            Self::Hessian(hessian) => hessian.diagonal().collect(),
            Self::Squares(sums) => sums.clone(),
        };
        let largest = sums.iter().copied().fold(0.0, f64::max);
        let parts = sums.iter().map(|&sum| match largest > 0.0 {
            true => (sum / largest) as f32,
            false => 0.0,
        });
        parts.collect()
    }
}

/// What is kept of some rows until they are added: the rows for all products, but of their squares no more than the sums.
pub(super) enum SeenRows {
    /// (rows, columns)
    Values(Vec<f32>),
    /// `sum x^2` of each column.
    Squares(Vec<f64>),
}

impl SeenRows {
    /// Takes in whole rows.
    pub(super) fn take_in(&mut self, rows: &[f32]) {
        match self {
            Self::Values(values) => values.extend_from_slice(rows),
            Self::Squares(sums) => {
                for row in rows.chunks_exact(sums.len()) {
                    for (sum, &x) in sums.iter_mut().zip(row) {
                        *sum += f64::from(x) * f64::from(x);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn importance_is_the_part_of_the_largest_mean_square() {
        for for_gptq in [false, true] {
            let mut statistics = InputStatistics::new(3, for_gptq);
            let mut add = |rows: &[f32]| {
                let mut seen = match for_gptq {
                    true => SeenRows::Values(Vec::new()),
                    false => SeenRows::Squares(vec![0.0; 3]),
                };
                seen.take_in(rows);
                statistics.add(&seen);
                statistics.finish();
                (statistics.importance(), statistics.is_finite())
            };
            assert_eq!(add(&[]), (vec![0.0; 3], true));
            add(&[1.0, 2.0, 0.0]);
            let rows = [-1.0, 0.0, 0.0, 0.0, -2.0, 0.0];
            assert_eq!(add(&rows), (vec![0.25, 1.0, 0.0], true));
            assert!(!add(&[f32::NAN, 1.0, 1.0]).1);
        }
    }
}
