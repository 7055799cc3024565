//! Relative attention bias: a number for each head and bucket of distances, added to the scaled scores.

use crate::spec::RelativeAttention;
use fewbit_kernels::DistanceBias;

pub(super) struct RelativeBias {
    relative: RelativeAttention,
    heads: usize,
    /// (relative.rows, heads)
    table: Vec<f32>,
}

impl RelativeBias {
    pub(super) fn new(relative: RelativeAttention, heads: usize, table: Vec<f32>) -> Self {
        Self {
            relative,
            heads,
            table,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self.table.as_slice())
    }

    /// Writes (heads, 2 * tokens - 1) to `out`: the bias of every distance between two of `tokens` tokens, from `1 - tokens` on.
    pub(super) fn fill(&self, tokens: usize, out: &mut Vec<f32>) {
        let distances = 1 - tokens as isize..tokens as isize;
        let buckets = |head| {
            let places = distances
                .clone()
                .map(|distance| self.relative.bucket(distance));
            places.map(move |bucket| self.table[bucket * self.heads + head])
        };
        out.clear();
        out.extend((0..self.heads).flat_map(buckets));
    }

    /// The numbers that [`RelativeBias::fill`] has written, in the form that the kernels take.
    pub(super) fn of_distances(tokens: usize, filled: &[f32]) -> DistanceBias<'_> {
        DistanceBias {
            values: filled,
            head_stride: 2 * tokens - 1,
            center: tokens - 1,
        }
    }
}

impl RelativeAttention {
    /// The bucket of `distance` = key position - query position.
    ///
    /// Keys after the query take the upper half of the buckets. Within a half of n, distances below n / 2 have buckets of
    /// their own; further ones share buckets that grow geometrically up to `max_distance`:
    /// n / 2 + floor(ln(d / (n / 2)) / ln(max_distance / (n / 2)) * n / 2), at most n - 1 (Raffel et al. 2020, T5).
    pub fn bucket(self, distance: isize) -> usize {
        let half = self.buckets / 2;
        let exact = half / 2;
        let base = if distance > 0 { half } else { 0 };
        let distance = distance.unsigned_abs();
        if distance < exact {
            return base + distance;
        }
        // Distances that sit on a bound are powers of two, of which log2 is exact.
        let steps = (half - exact) as u32;
        let reached = |j: u32| {
            let (d, exact, max) = (distance as f64, exact as f64, self.max_distance as f64);
            f64::from(steps) * (d / exact).log2() >= f64::from(j) * (max / exact).log2()
        };
        base + exact + (1..steps).take_while(|&j| reached(j)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MPNET: RelativeAttention = RelativeAttention {
        rows: 32,
        buckets: 32,
        max_distance: 128,
    };

    /// Bounds worked out from 8 * 2^(j / 2), where bucket 8 + j starts: 8, 11.3, 16, 22.6, 32, 45.3, 64, 90.5.
    #[test]
    fn buckets_start_where_the_formula_says() {
        let starts = [8, 12, 16, 23, 32, 46, 64, 91];
        for (j, &start) in starts.iter().enumerate() {
            assert_eq!(MPNET.bucket(-start), 8 + j, "distance -{start}");
            assert_eq!(MPNET.bucket(1 - start), 7 + j, "distance -{start} + 1");
            assert_eq!(MPNET.bucket(start), 24 + j, "distance {start}");
        }
        assert_eq!(MPNET.bucket(0), 0);
        assert_eq!(MPNET.bucket(1), 17);
        assert_eq!(MPNET.bucket(-100_000), 15);
        assert_eq!(MPNET.bucket(100_000), 31);
    }

    #[test]
    fn every_distance_has_the_number_of_its_bucket() {
        let heads = 2;
        let table: Vec<f32> = (0..32 * heads).map(|index| index as f32).collect();
        let bias = RelativeBias::new(MPNET, heads, table);
        for tokens in [1, 2, 7, 40] {
            let mut out = vec![-1.0; 3];
            bias.fill(tokens, &mut out);
            assert_eq!(out.len(), heads * (2 * tokens - 1));
            let bias = RelativeBias::of_distances(tokens, &out);
            for head in 0..heads {
                for query in 0..tokens {
                    for key in 0..tokens {
                        let expected = MPNET.bucket(key as isize - query as isize) * heads + head;
                        let place = head * bias.head_stride + bias.center + key - query;
                        assert_eq!(bias.values[place], expected as f32);
                    }
                }
            }
        }
    }
}
