//! A histogram whose bins depend on the values seen, and on nothing else.
//!
//! The width of a bin is a power of two, and zero is an edge: bin k ≥ 0 holds k w ≤ x < (k+1) w, and bin -1-k its mirror image,
//! -(k+1) w < x ≤ -k w, without zero itself. The exponent is the least with which the bins from the least to the greatest value, zero
//! included, number at most [`MOST_BINS`]. When the range grows, w doubles and neighbouring bins become one, exactly.
//!
//! So a histogram is a function of the multiset of values: order, batches and merging have no effect on any count. Between half of
//! [`MOST_BINS`] and all of them are in use, which is at least 8 for each step of an 8-bit code over the full range.

use serde::{Deserialize, Serialize};

use super::counting::{MAX_BINS, count_by_bin, whole_part};
use super::scan::value_range;
use super::{ObserverError, ValueRange};

/// The most bins in use.
pub(super) const MOST_BINS: usize = MAX_BINS;

/// Exponent of the narrowest bin: the scale of no quantizer comes near it, and its reciprocal is a float32.
const LEAST_EXPONENT: i32 = -126;

/// Counts by bins of width 2^exponent. `merge` gives exactly what one histogram of both streams has.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "SavedDyadicHistogram")]
pub(super) struct DyadicHistogram {
    range: Option<ValueRange>,
    exponent: i32,
    /// From the bin of the least value or zero to that of the greatest or zero; none before any value.
    counts: Vec<u64>,
}

/// Values in one bin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bin {
    /// The lower edge, or the least value of all.
    pub(super) low: f64,
    /// The upper edge, or the greatest value of all; equal to `low` if all values of the bin are the same.
    pub(super) high: f64,
    /// How many.
    pub(super) count: u64,
}

/// The grid for a range: its exponent, first bin and number of bins.
#[derive(Clone, Copy)]
struct Grid {
    exponent: i32,
    first: i32,
    bins: usize,
}

impl Grid {
    fn over(range: ValueRange) -> Self {
        let (min, max) = (range.min().min(0.0), range.max().max(0.0));
        let magnitude = range.absmax();
        // Below this the larger side alone has more than MOST_BINS bins.
        let least = exponent_of(magnitude) - MOST_BINS.ilog2() as i32;
        let mut exponent = least.max(LEAST_EXPONENT);
        loop {
            let scale = power_of_two(-exponent);
            let (first, last) = (bin_of(min, scale), bin_of(max, scale));
            let bins = (last - first) as usize + 1;
            if bins <= MOST_BINS {
                return Self {
                    exponent,
                    first,
                    bins,
                };
            }
            exponent += 1;
        }
    }
}

/// Counts do not overflow but in damaged files.
fn saturating_sum(counts: &[u64]) -> u64 {
    counts
        .iter()
        .fold(0, |sum, &count| sum.saturating_add(count))
}

/// The floor of the binary logarithm of a normal number; that of the least normal for zero and denormals.
fn exponent_of(magnitude: f32) -> i32 {
    let biased = (magnitude.to_bits() >> 23) as i32;
    biased.max(1) - 127
}

/// 2^exponent, -126..=127.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// The bin of a value, with `scale` the reciprocal of the width. The product is exact, except where it is a denormal, which is bin 0 or -1
/// all the same.
#[inline(always)]
fn bin_of(x: f32, scale: f32) -> i32 {
    let magnitude = whole_part(x.abs() * scale);
    if x < 0.0 { -1 - magnitude } else { magnitude }
}

impl DyadicHistogram {
    pub(super) fn update(&mut self, values: &[f32]) -> Result<(), ObserverError> {
        let Some(newest) = value_range(values)? else {
            return Ok(());
        };
        let grid = self.widen(newest);
        let scale = power_of_two(-grid.exponent);
        count_by_bin(values, &mut self.counts, |x| bin_of(x, scale) - grid.first);
        Ok(())
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let Some(more) = other.range else {
            return;
        };
        let grid = self.widen(more);
        let moved = other.counts_in(grid);
        for (count, more) in self.counts.iter_mut().zip(moved) {
            *count = count.saturating_add(more);
        }
    }

    /// The range of all values.
    pub(super) fn range(&self) -> Option<ValueRange> {
        self.range
    }

    /// The number of values.
    pub(super) fn total(&self) -> u64 {
        saturating_sum(&self.counts)
    }

    /// The bins that hold values, from the least.
    pub(super) fn bins(&self) -> impl Iterator<Item = Bin> {
        let range = self.range.unwrap_or(ValueRange::between(0.0, 0.0));
        let (min, max) = (f64::from(range.min()), f64::from(range.max()));
        let width = f64::from(power_of_two(self.exponent));
        let first = f64::from(self.first());
        let counted = self.counts.iter().enumerate();
        counted
            .filter(|(_, count)| **count > 0)
            .map(move |(bin, &count)| {
                let low = (first + bin as f64) * width;
                Bin {
                    low: low.clamp(min, max),
                    high: (low + width).clamp(min, max),
                    count,
                }
            })
    }

    /// Counts on both sides of zero, outwards: `(above, below)` with item k the values of magnitude k w to (k+1) w, in bins joined
    /// until neither has more than `most`; and w.
    pub(super) fn sides(&self, most: usize) -> (Vec<u64>, Vec<u64>, f64) {
        let below_zero = (-self.first()) as usize;
        let mut below: Vec<u64> = self.counts[..below_zero].iter().rev().copied().collect();
        let mut above = self.counts[below_zero..].to_vec();
        let mut width = f64::from(power_of_two(self.exponent));
        while below.len().max(above.len()) > most {
            for side in [&mut below, &mut above] {
                *side = side.chunks(2).map(saturating_sum).collect();
            }
            width *= 2.0;
        }
        (above, below, width)
    }

    /// The index of the first count: minus the number of bins below zero.
    fn first(&self) -> i32 {
        self.range.map_or(0, |range| {
            bin_of(range.min().min(0.0), power_of_two(-self.exponent))
        })
    }

    /// Makes room for values in `more`.
    fn widen(&mut self, more: ValueRange) -> Grid {
        let range = ValueRange::extended(self.range, more);
        let grid = Grid::over(range);
        if self.range != Some(range) {
            self.counts = self.counts_in(grid);
            self.exponent = grid.exponent;
            self.range = Some(range);
        }
        grid
    }

    /// The counts in a grid whose exponent is not less and whose range is not narrower.
    fn counts_in(&self, grid: Grid) -> Vec<u64> {
        let mut moved = vec![0u64; grid.bins];
        let joined = (grid.exponent - self.exponent).clamp(0, 31);
        let first = self.first();
        for (bin, &count) in self.counts.iter().enumerate() {
            // Arithmetic shift: bins k and their mirror images -1-k are halved alike.
            let bin = ((first + bin as i32) >> joined) - grid.first;
            let place = &mut moved[bin as usize];
            *place = place.saturating_add(count);
        }
        moved
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedDyadicHistogram {
    range: Option<ValueRange>,
    exponent: i32,
    counts: Vec<u64>,
}

impl TryFrom<SavedDyadicHistogram> for DyadicHistogram {
    type Error = ObserverError;

    fn try_from(saved: SavedDyadicHistogram) -> Result<Self, ObserverError> {
        let SavedDyadicHistogram {
            range,
            exponent,
            counts,
        } = saved;
        // The range determines both.
        let (expected_exponent, bins) = range.map_or((0, 0), |range| {
            let grid = Grid::over(range);
            (grid.exponent, grid.bins)
        });
        if (exponent, counts.len()) != (expected_exponent, bins) {
            return Err(ObserverError::Damaged {
                field: "counts",
                expected: format!("{bins} counts of the exponent {expected_exponent}"),
                found: format!("{} of the exponent {exponent}", counts.len()),
            });
        }
        // Both ends of the range are values that were counted.
        if range.is_some() && counts.iter().all(|&count| count == 0) {
            return Err(ObserverError::Damaged {
                field: "counts",
                expected: "those of the values that have the range".to_owned(),
                found: "zeros".to_owned(),
            });
        }
        Ok(Self {
            range,
            exponent,
            counts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f32]) -> DyadicHistogram {
        let mut histogram = DyadicHistogram::default();
        histogram.update(values).unwrap();
        histogram
    }

    /// Values over all exponents, both signs.
    fn wild(count: u32) -> Vec<f32> {
        (0..count)
            .map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761)))
            .filter(|x| x.is_finite())
            .collect()
    }

    #[test]
    fn bins_hold_what_their_edges_say() {
        for values in [
            vec![0.0],
            vec![3.0; 5],
            vec![-3.0, -1.0, -1.0],
            vec![0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 4095.0],
            vec![-4095.0, -2.0, 0.0],
            vec![f32::MAX, f32::MIN, 1.0],
            vec![1e-45, -1e-45, 1e-40],
            (0..2000).map(|i| (i as f32 - 700.0) * 0.37).collect(),
            wild(3000),
        ] {
            let histogram = of(&values);
            assert_eq!(histogram.total(), values.len() as u64);
            let width = 2f64.powi(histogram.exponent);
            let bin_of = |x: f32| {
                let magnitude = (f64::from(x).abs() / width).floor();
                if x < 0.0 { -1.0 - magnitude } else { magnitude }
            };
            let (min, max) = values.iter().fold((f32::MAX, f32::MIN), |(min, max), &x| {
                (min.min(x), max.max(x))
            });
            let mut indices: Vec<f64> = values.iter().map(|&x| bin_of(x)).collect();
            indices.sort_by(f64::total_cmp);
            let expected: Vec<Bin> = indices
                .chunk_by(|a, b| a == b)
                .map(|group| Bin {
                    low: (group[0] * width).max(min.into()),
                    high: ((group[0] + 1.0) * width).min(max.into()),
                    count: group.len() as u64,
                })
                .collect();
            assert_eq!(histogram.bins().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn at_least_half_of_the_bins_are_in_use() {
        for (min, max) in [
            (-1.0, 1.0),
            (0.0, 1.0),
            (0.0, 0.999),
            (-1e-3, 700.0),
            (-3e38, 3e38),
            (0.0, 1e-30),
            (5.0, 5.0),
            (-2.0, 0.0),
        ] {
            let grid = Grid::over(ValueRange::between(min, max));
            assert!(
                (MOST_BINS / 2..=MOST_BINS).contains(&grid.bins),
                "{} for {min}..{max}",
                grid.bins
            );
            // 2^128 on either side in half of the bins: both the width and its reciprocal are normal numbers.
            assert!((LEAST_EXPONENT..=117).contains(&grid.exponent));
        }
    }

    #[test]
    fn any_split_in_any_order_gives_the_same_histogram() {
        let values: Vec<f32> = (0..3000)
            .map(|i| ((i * 7919 % 3001) as f32 - 1000.0) * 1.01f32.powi(i - 2000))
            .collect();
        let whole = of(&values);
        for length in [1, 7, 64, 999, 3000] {
            let mut merged = DyadicHistogram::default();
            let mut updated = DyadicHistogram::default();
            for part in values.rchunks(length) {
                merged.merge(&of(part));
                updated.update(part).unwrap();
            }
            assert_eq!(merged, whole, "merged parts of {length}");
            assert_eq!(updated, whole, "updates of {length}");
        }
        let wild = wild(5000);
        let mut parts = of(&wild[..100]);
        parts.merge(&of(&wild[100..]));
        assert_eq!(parts, of(&wild));
    }

    #[test]
    fn merging_nothing_changes_nothing() {
        let some = of(&[1.0, -2.0]);
        let mut merged = some.clone();
        merged.merge(&DyadicHistogram::default());
        assert_eq!(merged, some);
        let mut empty = DyadicHistogram::default();
        empty.merge(&some);
        assert_eq!(empty, some);
    }

    #[test]
    fn sides_count_magnitudes() {
        let histogram = of(&[0.0, 0.25, -0.25, -0.75, 1.0, 1.875, -0.0]);
        let (above, below, width) = histogram.sides(16);
        assert_eq!(width, 0.125);
        assert_eq!(above.iter().sum::<u64>() + below.iter().sum::<u64>(), 7);
        assert_eq!((above[0], above[2], above[8], above[15]), (2, 1, 1, 1));
        assert_eq!((below[2], below[6]), (1, 1));
    }
}
