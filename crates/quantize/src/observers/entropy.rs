//! The range that keeps most of the distribution.
//!
//! Kullback-Leibler calibration: over windows around zero, how much of the distribution is lost when the window's bins are joined to as few
//! as there are codes, and what lies outside is moved to the window's ends?
//!
//! For each window of i bins on either side of zero, i from [`QUANTIZED_BINS`] / 2 to the outermost:
//!
//! - p: the counts of the window's 2i bins, with all counts below and above it added to its first and its last bin;
//! - q: the counts without those added, summed over [`QUANTIZED_BINS`] groups of neighbouring bins, the bins of group j being
//!   floor(2i j / Q) up to floor(2i (j+1) / Q), and each sum spread evenly over the group's bins where p is not zero;
//! - in both, zeros become 1e-4 of a count, and both are divided by their sums;
//! - divergence: sum p ln(p / q) over the bins.
//!
//! The window of least divergence wins; of equals, the widest. The histogram's bins are joined until either side of zero has at most
//! [`HALF_BINS`], so that there are hundreds of windows to choose from.
//!
//! Source: Migacz, "8-bit inference with TensorRT", 2017, in the signed form of ONNX Runtime's entropy calibrator. That one has 128 bins and 128
//! codes by default, which leaves one window; and its groups have 2i / Q bins rounded down, so that the last bins of a window belong to none.

use serde::{Deserialize, Serialize};

use super::dyadic_histogram::DyadicHistogram;
use super::{ObserverError, ValueRange};

/// The most bins on either side of zero: 2048 in all.
pub const HALF_BINS: usize = 1024;

/// Groups that a window's bins are joined to, as in ONNX Runtime and TensorRT.
pub const QUANTIZED_BINS: usize = 128;

/// What stands for a count of zero.
const SMOOTHED_ZERO: f64 = 1e-4;

/// Chooses the window around zero whose distribution suffers least; see the [module](self).
///
/// The window is cut to the range of the values, so that a one-signed site has a one-signed range. `merge` gives exactly what one
/// observer of both streams has.
///
/// ```
/// use fewbit_quantize::observers::Entropy;
/// let mut observer = Entropy::default();
/// observer.update(&[-1.0, 0.0, 0.5, 1.0])?;
/// let range = observer.range().unwrap();
/// assert!(range.min() >= -1.0 && range.max() <= 1.0);
/// # Ok::<(), fewbit_quantize::observers::ObserverError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entropy {
    histogram: DyadicHistogram,
}

impl Entropy {
    /// Takes values of any shape in; none at all change nothing.
    ///
    /// # Errors
    /// [`ObserverError::NonFinite`]
    pub fn update(&mut self, values: &[f32]) -> Result<(), ObserverError> {
        self.histogram.update(values)
    }

    /// Takes in what another observer has seen.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.merge(&other.histogram);
    }

    /// The window of least divergence; `None` before any value.
    pub fn range(&self) -> Option<ValueRange> {
        let range = self.histogram.range()?;
        let (above, below, width) = self.histogram.sides(HALF_BINS);
        let half = above.len().max(below.len());
        let count = |side: &[u64], k: usize| side.get(k).map_or(0.0, |&count| count as f64);
        let counts: Vec<f64> = (0..half)
            .rev()
            .map(|k| count(&below, k))
            .chain((0..half).map(|k| count(&above, k)))
            .collect();
        let best = best_window(&counts);
        let bound = (best as f64 * width).min(f64::from(f32::MAX)) as f32;
        Some(range.within_magnitude(bound))
    }
}

/// How many bins on either side of the middle of `counts` to keep.
fn best_window(counts: &[f64]) -> usize {
    let half = counts.len() / 2;
    let mut best = (half, f64::INFINITY);
    for window in (QUANTIZED_BINS / 2..=half).rev() {
        let divergence = divergence(counts, window);
        if divergence < best.1 {
            best = (window, divergence);
        }
    }
    best.0
}

/// The divergence of the window of `half_window` bins on either side of the middle.
fn divergence(counts: &[f64], half_window: usize) -> f64 {
    let middle = counts.len() / 2;
    let (below, rest) = counts.split_at(middle - half_window);
    let (window, above) = rest.split_at(2 * half_window);
    let mut p = window.to_vec();
    p[0] += below.iter().sum::<f64>();
    p[2 * half_window - 1] += above.iter().sum::<f64>();
    let mut q = vec![0.0; p.len()];
    for group in 0..QUANTIZED_BINS {
        let bins = p.len() * group / QUANTIZED_BINS..p.len() * (group + 1) / QUANTIZED_BINS;
        let sum: f64 = window[bins.clone()].iter().sum();
        let occupied = p[bins.clone()].iter().filter(|&&p| p > 0.0).count();
        for bin in bins {
            if p[bin] > 0.0 {
                q[bin] = sum / occupied as f64;
            }
        }
    }
    for side in [&mut p, &mut q] {
        for x in &mut *side {
            if *x == 0.0 {
                *x = SMOOTHED_ZERO;
            }
        }
        let sum: f64 = side.iter().sum();
        for x in side {
            *x /= sum;
        }
    }
    p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum()
}
