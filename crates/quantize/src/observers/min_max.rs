//! The running minimum and maximum.

use serde::{Deserialize, Serialize};

use super::scan::value_range;
use super::{ObserverError, ValueRange};

/// The least and the greatest of all values: PyTorch's `MinMaxObserver`.
///
/// `merge` gives exactly what one observer of both streams has.
///
/// ```
/// use fewbit_quantize::observers::MinMax;
/// let (mut all, mut part) = (MinMax::default(), MinMax::default());
/// all.update(&[1.0, -0.5])?;
/// part.update(&[3.0])?;
/// all.merge(&part);
/// let range = all.range().unwrap();
/// assert_eq!((range.min(), range.max()), (-0.5, 3.0));
/// # Ok::<(), fewbit_quantize::observers::ObserverError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinMax {
    range: Option<ValueRange>,
}

impl MinMax {
    /// Takes values of any shape in; none at all change nothing.
    ///
    /// # Errors
    /// [`ObserverError::NonFinite`]; PyTorch lets both pass into the range.
    pub fn update(&mut self, values: &[f32]) -> Result<(), ObserverError> {
        if let Some(range) = value_range(values)? {
            self.range = Some(ValueRange::extended(self.range, range));
        }
        Ok(())
    }

    /// Takes in what another observer has seen.
    pub fn merge(&mut self, other: &Self) {
        if let Some(range) = other.range {
            self.range = Some(ValueRange::extended(self.range, range));
        }
    }

    /// The range; `None` before any value.
    pub fn range(&self) -> Option<ValueRange> {
        self.range
    }
}
