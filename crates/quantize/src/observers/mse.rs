//! The range with the least squared error.
//!
//! # The error of a candidate
//!
//! The values of a bin are taken to be spread evenly over it. For a quantizer with scale s, zero point z and codes a..=b, put y = x / s and
//! r(y) = clamp(round(y), a - z, b - z). The squared error has the antiderivative `s³ F(y)` with
//!
//! ```text
//! F(y) = r / 12 + (y - r)³ / 3
//! ```
//!
//! as each whole step contributes 1/12 and the last piece, or what lies beyond the outer codes, the cube. A bin from x_1 to x_2 with n values
//! contributes `n s² (F(y_2) - F(y_1)) / (y_2 - y_1)`, and a bin that is one point `n s² (y - r)²`. Both rounding and clipping are in it, for
//! the very scale and zero point that would be used, symmetric schemes and reduced ranges included.
//!
//! # The candidates
//!
//! Each end of the range is the end of the values times 2^(-i/16), i = 0..=80, that is down to 1/32. Near the least error the
//! error is flat: a step of 4 % is finer than matters. Symmetric schemes try the 81 magnitudes. Affine schemes first shrink both ends alike,
//! then each end in turn while the error falls. A candidate must have a smaller error to be taken, so that of equals the widest wins.
//!
//! Source: our own. Shrinking a range by steps while measuring the squared error is done by OCTAV, llm-compressor and others; the closed
//! form over bins and the alternation are what is different.

use serde::{Deserialize, Serialize};

use super::dyadic_histogram::{Bin, DyadicHistogram};
use super::{ObserverError, ParameterRule, ValueRange};

/// Candidates for each end.
const CANDIDATES: usize = 81;

/// Candidates for each halving of an end.
const CANDIDATES_PER_OCTAVE: f64 = 16.0;

/// Rounds of alternation at most; it ends by itself after two or three.
const ROUNDS: usize = 8;

/// Chooses the range that quantizes with the least squared error, the default of fewbit's own static quantization.
///
/// `merge` gives exactly what one observer of both streams has. See the [module](self) for the formula and the candidates.
///
/// ```
/// use fewbit_quantize::observers::{Mse, ParameterRule, QScheme, QuantizedDType};
/// let mut observer = Mse::default();
/// let mut values: Vec<f32> = (0..100_000).map(|i| (i % 200) as f32 / 100.0 - 1.0).collect();
/// values[0] = 8.0;
/// observer.update(&values)?;
/// let rule = ParameterRule::new(QuantizedDType::Quint8, QScheme::PerTensorAffine, false)?;
/// let range = observer.range(rule).unwrap();
/// assert!(range.max() < 8.0); // finer steps for the many are worth the error of the one
/// # Ok::<(), fewbit_quantize::observers::ObserverError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mse {
    histogram: DyadicHistogram,
}

impl Mse {
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

    /// The least and the greatest value; `None` before any.
    pub fn values_seen(&self) -> Option<ValueRange> {
        self.histogram.range()
    }

    /// The range of least error under a rule; `None` before any value.
    pub fn range(&self, rule: ParameterRule) -> Option<ValueRange> {
        let full = self.histogram.range()?;
        let bins: Vec<Bin> = self.histogram.bins().collect();
        let search = Search { full, rule, bins };
        let mut best = search.candidate(0, 0);
        for i in 1..CANDIDATES {
            search.try_out(&mut best, i, i);
        }
        // An end on the wrong side of zero has no effect, nor has the smaller end of a symmetric range.
        let two_sided = full.min() < 0.0 && full.max() > 0.0 && !rule.qscheme().is_symmetric();
        for _ in 0..if two_sided { ROUNDS } else { 0 } {
            let before = best.error;
            for low in 0..CANDIDATES {
                let high = best.high;
                search.try_out(&mut best, low, high);
            }
            for high in 0..CANDIDATES {
                let low = best.low;
                search.try_out(&mut best, low, high);
            }
            if best.error == before {
                break;
            }
        }
        Some(search.range(best.low, best.high))
    }

    /// The mean squared error of quantizing what was seen with the parameters of a range, by the formula of the [module](self); 0 before
    /// any value.
    pub fn mean_squared_error(&self, range: ValueRange, rule: ParameterRule) -> f64 {
        let Some(full) = self.histogram.range() else {
            return 0.0;
        };
        let bins = self.histogram.bins().collect();
        let search = Search { full, rule, bins };
        search.squared_error(range) / self.histogram.total() as f64
    }
}

/// A pair of candidates.
#[derive(Clone, Copy)]
struct Candidate {
    low: usize,
    high: usize,
    error: f64,
}

struct Search {
    full: ValueRange,
    rule: ParameterRule,
    bins: Vec<Bin>,
}

impl Search {
    fn range(&self, low: usize, high: usize) -> ValueRange {
        let shrink = |end: f32, i: usize| {
            (f64::from(end) * (-(i as f64) / CANDIDATES_PER_OCTAVE).exp2()) as f32
        };
        if self.rule.qscheme().is_symmetric() {
            return self.full.within_magnitude(shrink(self.full.absmax(), high));
        }
        ValueRange::between(shrink(self.full.min(), low), shrink(self.full.max(), high))
    }

    fn candidate(&self, low: usize, high: usize) -> Candidate {
        let error = self.squared_error(self.range(low, high));
        Candidate { low, high, error }
    }

    fn try_out(&self, best: &mut Candidate, low: usize, high: usize) {
        let candidate = self.candidate(low, high);
        if candidate.error < best.error {
            *best = candidate;
        }
    }

    /// The sum over all values.
    fn squared_error(&self, range: ValueRange) -> f64 {
        /// 1.5 * 2^52: adding and subtracting it rounds to an integer, ties to even, what is far below it.
        const INTEGERS_ONLY: f64 = 6_755_399_441_055_744.0;
        let parameters = self.rule.parameters(range);
        let codes = self.rule.code_range();
        let least = f64::from(codes.min - parameters.zero_point);
        let greatest = f64::from(codes.max - parameters.zero_point);
        let scale = f64::from(parameters.scale);
        let rounded = |y: f64| y.clamp(least, greatest) + INTEGERS_ONLY - INTEGERS_ONLY;
        let antiderivative = |y: f64| {
            let r = rounded(y);
            r / 12.0 + (y - r).powi(3) / 3.0
        };
        let errors = self.bins.iter().map(|bin| {
            let (y1, y2) = (bin.low / scale, bin.high / scale);
            let mean = if y1 == y2 {
                (y1 - rounded(y1)).powi(2)
            } else {
                (antiderivative(y2) - antiderivative(y1)) / (y2 - y1)
            };
            bin.count as f64 * mean
        });
        errors.sum::<f64>() * scale * scale
    }
}
