//! The range that leaves out a share of the values.

use serde::{Deserialize, Serialize};

use super::dyadic_histogram::{DyadicHistogram, MOST_BINS};
use super::{ObserverError, ParameterRule, ValueRange};

/// The share of the values that is kept where no other is given, in percent.
pub const DEFAULT_PERCENTILE: f64 = 99.99;

/// A share in percent: more than 50, at most 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct KeptPercentage(f64);

impl KeptPercentage {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`ObserverError::Settings`] for what is not in (50, 100].
    pub fn new(percentile: f64) -> Result<Self, ObserverError> {
        if percentile > 50.0 && percentile <= 100.0 {
            return Ok(Self(percentile));
        }
        Err(ObserverError::Settings {
            field: "percentile",
            expected: "more than 50, at most 100".to_owned(),
            found: percentile.to_string(),
            hint: "it is in percent: 99.99 leaves out one value in 10,000",
        })
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// How many of `total` values may be left out.
    fn left_out(self, total: u64) -> f64 {
        total as f64 * ((100.0 - self.0) / 100.0)
    }
}

impl Default for KeptPercentage {
    fn default() -> Self {
        Self(DEFAULT_PERCENTILE)
    }
}

impl TryFrom<f64> for KeptPercentage {
    type Error = ObserverError;

    fn try_from(percentile: f64) -> Result<Self, ObserverError> {
        Self::new(percentile)
    }
}

impl From<KeptPercentage> for f64 {
    fn from(percentile: KeptPercentage) -> f64 {
        percentile.0
    }
}

/// Keeps a share of the values, 99.99 % by default.
///
/// Affine schemes leave out at most half of the rest on either side; symmetric ones leave out the largest magnitudes. A bound is the outer
/// edge of the bin where its quantile lies, and never beyond the values seen; so it is less than a bin from the quantile, and
/// a bin is at most 1/2047 of the range extended to zero. `merge` gives exactly what one observer of both streams has.
///
/// Source: the percentile calibrator of ONNX Runtime's `quantize_static`, which takes its histogram over equal bins of a range that grows.
///
/// ```
/// use fewbit_quantize::observers::{ParameterRule, Percentile, QScheme, QuantizedDType};
/// let mut observer = Percentile::new(99.0)?;
/// let mut values: Vec<f32> = (0..1000).map(|i| (i % 100) as f32 / 100.0).collect();
/// values[0] = 1000.0;
/// observer.update(&values)?;
/// let rule = ParameterRule::new(QuantizedDType::Quint8, QScheme::PerTensorAffine, false)?;
/// let range = observer.range(rule).unwrap();
/// assert_eq!(range.max(), 1.0); // the outlier is left out; bins are half a unit wide
/// # Ok::<(), fewbit_quantize::observers::ObserverError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Percentile {
    percentile: KeptPercentage,
    histogram: DyadicHistogram,
}

impl Percentile {
    /// Keeps `percentile` percent of the values.
    ///
    /// # Errors
    /// [`ObserverError::Settings`] for what is not in (50, 100].
    pub fn new(percentile: f64) -> Result<Self, ObserverError> {
        Ok(Self {
            percentile: KeptPercentage::new(percentile)?,
            histogram: DyadicHistogram::default(),
        })
    }

    /// Takes values of any shape in; none at all change nothing.
    ///
    /// # Errors
    /// [`ObserverError::NonFinite`]
    pub fn update(&mut self, values: &[f32]) -> Result<(), ObserverError> {
        self.histogram.update(values)
    }

    /// Takes in what another observer has seen.
    ///
    /// # Errors
    /// [`ObserverError::Merge`] if the percentiles differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), ObserverError> {
        if self.percentile != other.percentile {
            return Err(ObserverError::Merge {
                field: "percentile",
                expected: self.percentile.get().to_string(),
                found: other.percentile.get().to_string(),
            });
        }
        self.histogram.merge(&other.histogram);
        Ok(())
    }

    /// The range that is kept; `None` before any value.
    pub fn range(&self, rule: ParameterRule) -> Option<ValueRange> {
        let range = self.histogram.range()?;
        let left_out = self.percentile.left_out(self.histogram.total());
        if rule.qscheme().is_symmetric() {
            let (above, below, width) = self.histogram.sides(MOST_BINS);
            let magnitudes = |k: usize| [&above, &below].map(|side| *side.get(k).unwrap_or(&0));
            let outwards = (0..above.len().max(below.len())).rev();
            let place = kept_bin(outwards.map(|k| (k, magnitudes(k).iter().sum())), left_out);
            let bound = (place as f64 + 1.0) * width;
            return Some(range.within_magnitude(float_bound(bound)));
        }
        let bins: Vec<_> = self.histogram.bins().collect();
        let places = bins.iter().enumerate().map(|(i, bin)| (i, bin.count));
        let low = kept_bin(places.clone(), left_out / 2.0);
        let high = kept_bin(places.rev(), left_out / 2.0);
        // Edges are floats: multiples of a power of two with few digits, or values.
        Some(ValueRange::between(
            float_bound(bins[low].low),
            float_bound(bins[high].high),
        ))
    }
}

/// The first place where more values have been passed than may be left out.
fn kept_bin(counts: impl Iterator<Item = (usize, u64)>, left_out: f64) -> usize {
    let mut passed = 0.0;
    let mut place = 0;
    for (next, count) in counts {
        place = next;
        passed += count as f64;
        if passed > left_out {
            break;
        }
    }
    place
}

/// A bound as float32; beyond its range, the largest float.
fn float_bound(bound: f64) -> f32 {
    bound.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}
