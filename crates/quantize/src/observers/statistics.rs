//! Any of the observers.

use fewbit_numerics::affine::AffineParameters;
use serde::{Deserialize, Serialize};

use super::{
    Entropy, Histogram, MinMax, MovingAverageMinMax, MovingAveragePerChannelMinMax, Mse,
    ObserverError, ParameterRule, PerChannelMinMax, Percentile, ValueRange,
};

/// What one observer has collected: what calibration keeps for a site, saves as JSON and merges.
///
/// ```
/// use fewbit_quantize::observers::{MinMax, Statistics};
/// let mut statistics = Statistics::MinMax(MinMax::default());
/// statistics.update(&[-1.0, 2.0])?;
/// let json = serde_json::to_string(&statistics).unwrap();
/// assert_eq!(json, r#"{"observer":"min_max","range":{"min":-1.0,"max":2.0}}"#);
/// assert_eq!(serde_json::from_str::<Statistics>(&json).unwrap(), statistics);
/// # Ok::<(), fewbit_quantize::observers::ObserverError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "observer", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Statistics {
    /// [`MinMax`]
    MinMax(MinMax),
    /// [`MovingAverageMinMax`]
    MovingAverageMinMax(MovingAverageMinMax),
    /// [`PerChannelMinMax`]
    PerChannelMinMax(PerChannelMinMax),
    /// [`MovingAveragePerChannelMinMax`]
    MovingAveragePerChannelMinMax(MovingAveragePerChannelMinMax),
    /// [`Histogram`]
    Histogram(Histogram),
    /// [`Percentile`]
    Percentile(Percentile),
    /// [`Mse`]
    Mse(Mse),
    /// [`Entropy`]
    Entropy(Entropy),
}

impl Statistics {
    /// The observer's name, as it is saved.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MinMax(_) => "min_max",
            Self::MovingAverageMinMax(_) => "moving_average_min_max",
            Self::PerChannelMinMax(_) => "per_channel_min_max",
            Self::MovingAveragePerChannelMinMax(_) => "moving_average_per_channel_min_max",
            Self::Histogram(_) => "histogram",
            Self::Percentile(_) => "percentile",
            Self::Mse(_) => "mse",
            Self::Entropy(_) => "entropy",
        }
    }

    /// Takes values in: one row-major tensor, or whole rows of it where the observer allows it. No values change nothing.
    ///
    /// # Errors
    /// [`ObserverError::NonFinite`], [`ObserverError::Channels`]; the statistics are then what they were.
    pub fn update(&mut self, values: &[f32]) -> Result<(), ObserverError> {
        match self {
            Self::MinMax(observer) => observer.update(values),
            Self::MovingAverageMinMax(observer) => observer.update(values),
            Self::PerChannelMinMax(observer) => observer.update(values),
            Self::MovingAveragePerChannelMinMax(observer) => observer.update(values),
            Self::Histogram(observer) => observer.update(values),
            Self::Percentile(observer) => observer.update(values),
            Self::Mse(observer) => observer.update(values),
            Self::Entropy(observer) => observer.update(values),
        }
    }

    /// Takes in what another observer of the same kind and settings has seen, after what this one has.
    ///
    /// # Errors
    /// [`ObserverError::Merge`]; the statistics are then what they were.
    pub fn merge(&mut self, other: &Self) -> Result<(), ObserverError> {
        match (self, other) {
            (Self::MinMax(here), Self::MinMax(more)) => here.merge(more),
            (Self::MovingAverageMinMax(here), Self::MovingAverageMinMax(more)) => {
                return here.merge(more);
            }
            (Self::PerChannelMinMax(here), Self::PerChannelMinMax(more)) => {
                return here.merge(more);
            }
            (
                Self::MovingAveragePerChannelMinMax(here),
                Self::MovingAveragePerChannelMinMax(more),
            ) => return here.merge(more),
            (Self::Histogram(here), Self::Histogram(more)) => here.merge(more),
            (Self::Percentile(here), Self::Percentile(more)) => return here.merge(more),
            (Self::Mse(here), Self::Mse(more)) => here.merge(more),
            (Self::Entropy(here), Self::Entropy(more)) => here.merge(more),
            (here, other) => {
                return Err(ObserverError::Merge {
                    field: "observer",
                    expected: here.name().to_owned(),
                    found: other.name().to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The ranges to quantize under a rule: one, or one for each channel.
    ///
    /// # Errors
    /// [`ObserverError::NothingObserved`] before any value. PyTorch gives the scale 1 there, with a warning.
    pub fn ranges(&self, rule: ParameterRule) -> Result<Vec<ValueRange>, ObserverError> {
        let ranges: Vec<ValueRange> = match self {
            Self::MinMax(observer) => observer.range().into_iter().collect(),
            Self::MovingAverageMinMax(observer) => observer.range().into_iter().collect(),
            Self::PerChannelMinMax(observer) => observer.ranges().to_vec(),
            Self::MovingAveragePerChannelMinMax(observer) => observer.ranges().collect(),
            Self::Histogram(observer) => observer.range().into_iter().collect(),
            Self::Percentile(observer) => observer.range(rule).into_iter().collect(),
            Self::Mse(observer) => observer.range(rule).into_iter().collect(),
            Self::Entropy(observer) => observer.range().into_iter().collect(),
        };
        if ranges.is_empty() {
            return Err(ObserverError::NothingObserved);
        }
        Ok(ranges)
    }

    /// Scale and zero point under a rule: one, or one for each channel.
    ///
    /// # Errors
    /// Those of [`ranges`](Self::ranges).
    pub fn parameters(&self, rule: ParameterRule) -> Result<Vec<AffineParameters>, ObserverError> {
        let ranges = self.ranges(rule)?;
        Ok(ranges
            .into_iter()
            .map(|range| rule.parameters(range))
            .collect())
    }
}
