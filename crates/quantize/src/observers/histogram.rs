//! PyTorch's histogram observer.
//!
//! A histogram of 2048 equal bins over the range seen so far. When the range grows, the old counts are spread over the new bins
//! (`regridding`); the range of the parameters is found by clipping tails while the expected error falls (`range_search`).
//! Both follow PyTorch 2.15, `torch/ao/quantization/observer.py`, `HistogramObserver`, operation by operation, so that scale and zero
//! point have the same bits.
//!
//! Where the two differ, and why:
//! - An infinity or NaN is an error here. PyTorch drops infinities with a warning, which hides an overflow in the model.
//! - Counts of one update are exact here. PyTorch counts in float32, where a bin stops growing at 2^24 values an update.
//! - A range wider than about 1.6e35 is computed in double here. PyTorch's product overflows there and its bins mean nothing.
//!
//! What is kept although it is no good: the error is summed in float32, so that it is 0 for values below about 1e-15 and infinite or NaN
//! for values above about 1e13. PyTorch then clips until little is left, and so does this observer. [`Mse`](super::Mse) does not.

use serde::{Deserialize, Serialize};

use super::counting::{count_by_bin, whole_part};
use super::scan::value_range;
use super::{ObserverError, ValueRange};

mod range_search;
mod regridding;

/// Number of bins: PyTorch's default.
pub const HISTOGRAM_BINS: usize = 2048;

/// 2^64 values, more than there can be. Only counts of damaged files reach it; without a bound their sums would be infinite.
const MOST_VALUES: f32 = u64::MAX as f32;

/// A histogram over the range seen so far, and the range that PyTorch's `HistogramObserver` chooses from it.
///
/// `merge(a, b)` is like having seen both streams up to where in the grid a value is counted: each time the grid changes, the counts of a
/// bin are spread over its width, which may move them by the width of the old bin. [`displacement`](Self::displacement) is the
/// sum of these widths, and the bound: no value is counted in a bin farther from it. So the number of values below any t lies between the
/// counts below t - d - w and t + d + w, with d the displacement and w the width of a bin.
///
/// ```
/// use fewbit_quantize::observers::Histogram;
/// let mut histogram = Histogram::default();
/// histogram.update(&[-1.0, 0.25, 0.5, 1.0])?;
/// let clipped = histogram.range().unwrap();
/// assert!(clipped.min() >= -1.0 && clipped.max() <= 1.0);
/// # Ok::<(), fewbit_quantize::observers::ObserverError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "SavedHistogram")]
pub struct Histogram {
    range: Option<ValueRange>,
    displacement: f64,
    /// (HISTOGRAM_BINS), or none before any value. Not whole numbers once the grid has changed.
    counts: Vec<f32>,
}

impl Histogram {
    /// Takes values of any shape in; none at all change nothing.
    ///
    /// # Errors
    /// [`ObserverError::NonFinite`]
    pub fn update(&mut self, values: &[f32]) -> Result<(), ObserverError> {
        let Some(newest) = value_range(values)? else {
            return Ok(());
        };
        let range = ValueRange::extended(self.range, newest);
        let mut counts = vec![0; HISTOGRAM_BINS];
        count_over(values, range, &mut counts);
        self.regrid(range);
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            *sum = (*sum + count as f32).min(MOST_VALUES);
        }
        Ok(())
    }

    /// Takes in what another observer has seen.
    pub fn merge(&mut self, other: &Self) {
        let Some(more) = other.range else {
            return;
        };
        let range = ValueRange::extended(self.range, more);
        let mut other = other.clone();
        other.regrid(range);
        self.regrid(range);
        self.displacement = self.displacement.max(other.displacement);
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum = (*sum + count).min(MOST_VALUES);
        }
    }

    /// The clipped range that gives the parameters; `None` before any value.
    pub fn range(&self) -> Option<ValueRange> {
        self.range
            .map(|range| range_search::clipped_range(range, &self.counts))
    }

    /// The range of all values, nothing clipped.
    pub fn full_range(&self) -> Option<ValueRange> {
        self.range
    }

    /// The number of values in each of [`HISTOGRAM_BINS`] equal parts of the full range; empty before any value.
    pub fn counts(&self) -> &[f32] {
        &self.counts
    }

    /// No value is counted in a bin farther from it than this, up to the roundings of a bin's ends.
    pub fn displacement(&self) -> f64 {
        self.displacement
    }

    /// Moves to the grid over `range`, which holds the present one.
    fn regrid(&mut self, range: ValueRange) {
        let Some(old) = self.range.replace(range) else {
            self.counts = vec![0.0; HISTOGRAM_BINS];
            return;
        };
        if old == range {
            return;
        }
        self.displacement += bin_width(old);
        self.counts = regridding::regridded(&self.counts, old, range);
        for count in &mut self.counts {
            *count = count.min(MOST_VALUES);
        }
    }
}

/// Width of a bin of the grid over `range`.
fn bin_width(range: ValueRange) -> f64 {
    (f64::from(range.max()) - f64::from(range.min())) / HISTOGRAM_BINS as f64
}

/// Adds the number of values in each bin over `range`, which holds them all: `torch.histc`.
///
/// The bin is `(x - min) * 2048 / (max - min)` in float32, in this order, truncated; the greatest value is in the last bin.
fn count_over(values: &[f32], range: ValueRange, counts: &mut [u64]) {
    const BINS: f32 = HISTOGRAM_BINS as f32;
    const LAST: i32 = HISTOGRAM_BINS as i32 - 1;
    let (min, max) = (range.min(), range.max());
    let width = max - min;
    if width == 0.0 {
        // histc widens an empty range by 1 on either side, which puts its only value in the middle.
        counts[HISTOGRAM_BINS / 2] += values.len() as u64;
    } else if (width * BINS).is_finite() {
        count_by_bin(values, counts, |x| {
            whole_part((x - min) * BINS / width).min(LAST)
        });
    } else {
        let (min, width) = (f64::from(min), f64::from(max) - f64::from(min));
        count_by_bin(values, counts, |x| {
            (((f64::from(x) - min) * f64::from(BINS) / width) as i32).min(LAST)
        });
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedHistogram {
    range: Option<ValueRange>,
    displacement: f64,
    counts: Vec<f32>,
}

impl TryFrom<SavedHistogram> for Histogram {
    type Error = ObserverError;

    fn try_from(saved: SavedHistogram) -> Result<Self, ObserverError> {
        let SavedHistogram {
            range,
            displacement,
            counts,
        } = saved;
        let damaged = |field, expected: String, found: String| ObserverError::Damaged {
            field,
            expected,
            found,
        };
        let bins = if range.is_some() { HISTOGRAM_BINS } else { 0 };
        if counts.len() != bins {
            let expected = format!("{bins} numbers");
            return Err(damaged("counts", expected, counts.len().to_string()));
        }
        if let Some(count) = counts
            .iter()
            .find(|count| !(0.0..=MOST_VALUES).contains(*count))
        {
            let expected = format!("numbers from 0 to {MOST_VALUES}");
            return Err(damaged("counts", expected, count.to_string()));
        }
        if !(displacement >= 0.0 && displacement.is_finite()) {
            let expected = "a finite number that is not negative".to_owned();
            return Err(damaged("displacement", expected, displacement.to_string()));
        }
        Ok(Self {
            range,
            displacement,
            counts,
        })
    }
}

/// `torch.sum` of [`HISTOGRAM_BINS`] numbers in float32, in its order: 32 running sums in groups of 16 terms, whose results are
/// added up in a second level, and so on; then four sums become one, and at last its 8 lanes. The order has an effect on the last
/// bits, and these on whether the search goes on.
fn sum_in_torch_order(values: &[f32]) -> f32 {
    const LANES: usize = 8;
    const CHAINS: usize = 4;
    const TERMS: usize = 16;
    const LEVELS: usize = 4;
    type Sums = [f32; LANES * CHAINS];
    let add = |sums: &mut Sums, more: &[f32]| {
        for (sum, more) in sums.iter_mut().zip(more) {
            *sum += more;
        }
    };
    let mut levels: [Sums; LEVELS] = [[0.0; LANES * CHAINS]; LEVELS];
    for (index, terms) in values.chunks(TERMS * LANES * CHAINS).enumerate() {
        for term in terms.chunks(LANES * CHAINS) {
            add(&mut levels[0], term);
        }
        // Level k is passed on after each 16^k groups.
        let mut groups = index + 1;
        for level in 1..LEVELS {
            let below = std::mem::replace(&mut levels[level - 1], [0.0; LANES * CHAINS]);
            add(&mut levels[level], &below);
            if !groups.is_multiple_of(TERMS) {
                break;
            }
            groups /= TERMS;
        }
    }
    let [mut sums, higher @ ..] = levels;
    for level in &higher {
        add(&mut sums, level);
    }
    let (chains, _) = sums.as_chunks::<LANES>();
    let mut lanes = chains[0];
    for chain in &chains[1..] {
        for (lane, more) in lanes.iter_mut().zip(chain) {
            *lane += more;
        }
    }
    lanes.into_iter().fold(0.0, |sum, lane| sum + lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_has_the_bits_of_torch() {
        // Cubes of well mixed fractions, where another order, or a sum in double, has another last bit. The bits are those of `torch.sum` of
        // torch 2.15 over the same numbers, once as they are and once times 3.
        let cubes: Vec<f32> = (0..HISTOGRAM_BINS as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0)
            .map(|x| x * x * x)
            .collect();
        assert_eq!(sum_in_torch_order(&cubes).to_bits(), 0x43ff_c2bf);
        let tripled: Vec<f32> = cubes.iter().map(|x| x * 3.0).collect();
        assert_eq!(sum_in_torch_order(&tripled).to_bits(), 0x44bf_d211);
        let in_double: f64 = cubes.iter().map(|&x| f64::from(x)).sum();
        assert_eq!((in_double as f32).to_bits(), 0x43ff_c2c0);
    }
}
