//! Moving averages of the minimum and the maximum.
//!
//! # What a merge of averages is
//!
//! With averaging constant c, an average m becomes m + c (x - m) at each update; the first update sets it. After n updates
//! x_1 … x_n it is `(1-c)^(n-1) x_1 + c sum_k (1-c)^(n-k) x_k`, k from 2. An average that was at a before these
//! updates would be `(1-c)^n a + c sum_k (1-c)^(n-k) x_k`, k from 1. The two differ by (1-c)^n (a - x_1), so that an observer
//! that keeps x_1 and n beside its average can be appended to another:
//!
//! ```text
//! merged = average_b + (1-c)^(n_b) (average_a - first_b)
//! ```
//!
//! `a.merge(b)` is therefore what a would be after the updates of b, in this order, as the average of a stream depends on its order.
//! Rounding aside: one update errs by at most u M (1 + 4c), where u = 2^-24 and M is the largest magnitude seen, and what it errs
//! fades by 1-c with each later update, so that an average of n updates is within min(n, 1/c) u M (1 + 4c) of the exact one, and a
//! merged average within that of its parts added, plus u M.

use serde::{Deserialize, Serialize};

use super::scan::value_range;
use super::{ObserverError, ValueRange};

/// PyTorch's averaging constant.
pub const DEFAULT_AVERAGING_CONSTANT: f32 = 0.01;

/// A share of the newest range: more than 0, at most 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f32", into = "f32")]
pub struct AveragingConstant(f32);

impl AveragingConstant {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`ObserverError::Settings`] for what is not in (0, 1].
    pub fn new(constant: f32) -> Result<Self, ObserverError> {
        if constant > 0.0 && constant <= 1.0 {
            return Ok(Self(constant));
        }
        Err(ObserverError::Settings {
            field: "averaging_constant",
            expected: "more than 0, at most 1".to_owned(),
            found: constant.to_string(),
            hint: "PyTorch's default is 0.01; 1 keeps the newest range only",
        })
    }

    /// The number.
    pub fn get(self) -> f32 {
        self.0
    }

    /// One step of the average in float32, as PyTorch takes it. Where a difference overflows the step is taken in double:
    /// the average lies between the two.
    fn step(self, average: f32, newest: f32) -> f32 {
        let next = average + self.0 * (newest - average);
        if next.is_finite() {
            return next;
        }
        let (average, newest) = (f64::from(average), f64::from(newest));
        (average + f64::from(self.0) * (newest - average)) as f32
    }
}

impl Default for AveragingConstant {
    fn default() -> Self {
        Self(DEFAULT_AVERAGING_CONSTANT)
    }
}

impl TryFrom<f32> for AveragingConstant {
    type Error = ObserverError;

    fn try_from(constant: f32) -> Result<Self, ObserverError> {
        Self::new(constant)
    }
}

impl From<AveragingConstant> for f32 {
    fn from(constant: AveragingConstant) -> f32 {
        constant.0
    }
}

/// The averages of a minimum and a maximum, and where they began.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AverageRange {
    /// The range of the first update.
    first: ValueRange,
    /// The averages now.
    pub(super) average: ValueRange,
}

impl AverageRange {
    pub(super) fn start(first: ValueRange) -> Self {
        Self {
            first,
            average: first,
        }
    }

    pub(super) fn update(&mut self, newest: ValueRange, constant: AveragingConstant) {
        let average = self.average;
        self.average = ValueRange::between(
            constant.step(average.min(), newest.min()),
            constant.step(average.max(), newest.max()),
        );
    }

    /// Continues with what another average saw in its `updates` updates.
    pub(super) fn append(&mut self, other: &Self, updates: u64, constant: AveragingConstant) {
        let exponent = i32::try_from(updates).unwrap_or(i32::MAX);
        let share = (1.0 - f64::from(constant.0)).powi(exponent);
        let continued = |here: f32, first: f32, average: f32| {
            // Between the least and the greatest value of both streams: clamped for the sake of damaged files only.
            let exact = f64::from(average) + share * (f64::from(here) - f64::from(first));
            exact.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
        };
        self.average = ValueRange::between(
            continued(self.average.min(), other.first.min(), other.average.min()),
            continued(self.average.max(), other.first.max(), other.average.max()),
        );
    }
}

/// Exponential moving averages of the minimum and the maximum of each update: PyTorch's `MovingAverageMinMaxObserver`.
///
/// The average is over updates, not over values: how a calibration text is cut into batches has an effect on it, and so has
/// their order. `a.merge(b)` is what `a` would be after the updates of `b`; see the [module](self) for the formula and the bound.
///
/// ```
/// use fewbit_quantize::observers::MovingAverageMinMax;
/// let mut observer = MovingAverageMinMax::new(0.25)?;
/// observer.update(&[-1.0, 4.0])?;
/// observer.update(&[0.0, 8.0])?;
/// let range = observer.range().unwrap();
/// assert_eq!((range.min(), range.max()), (-0.75, 5.0));
/// # Ok::<(), fewbit_quantize::observers::ObserverError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MovingAverageMinMax {
    averaging_constant: AveragingConstant,
    updates: u64,
    state: Option<AverageRange>,
}

impl MovingAverageMinMax {
    /// An observer with this averaging constant; `default()` has PyTorch's 0.01.
    ///
    /// # Errors
    /// [`ObserverError::Settings`] for a constant that is not in (0, 1].
    pub fn new(averaging_constant: f32) -> Result<Self, ObserverError> {
        Ok(Self {
            averaging_constant: AveragingConstant::new(averaging_constant)?,
            ..Self::default()
        })
    }

    /// Takes values of any shape in; none at all change nothing.
    ///
    /// # Errors
    /// [`ObserverError::NonFinite`]
    pub fn update(&mut self, values: &[f32]) -> Result<(), ObserverError> {
        let Some(range) = value_range(values)? else {
            return Ok(());
        };
        match &mut self.state {
            Some(state) => state.update(range, self.averaging_constant),
            None => self.state = Some(AverageRange::start(range)),
        }
        self.updates = self.updates.saturating_add(1);
        Ok(())
    }

    /// Continues with the updates that another observer has seen.
    ///
    /// # Errors
    /// [`ObserverError::Merge`] if the averaging constants differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), ObserverError> {
        same_constant(self.averaging_constant, other.averaging_constant)?;
        match (&mut self.state, &other.state) {
            (Some(state), Some(more)) => {
                state.append(more, other.updates, self.averaging_constant);
            }
            (None, more) => self.state = *more,
            (Some(_), None) => {}
        }
        self.updates = self.updates.saturating_add(other.updates);
        Ok(())
    }

    /// The averages; `None` before any value.
    pub fn range(&self) -> Option<ValueRange> {
        self.state.map(|state| state.average)
    }
}

pub(super) fn same_constant(
    here: AveragingConstant,
    there: AveragingConstant,
) -> Result<(), ObserverError> {
    if here == there {
        return Ok(());
    }
    Err(ObserverError::Merge {
        field: "averaging_constant",
        expected: here.get().to_string(),
        found: there.get().to_string(),
    })
}
