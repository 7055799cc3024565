//! The least and the greatest value.

use serde::{Deserialize, Serialize};

use super::ObserverError;

/// `min..=max`, both finite, `min <= max`. Zero need not lie between them: the formulas of scales extend the range to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Bounds")]
pub struct ValueRange {
    min: f32,
    max: f32,
}

/// What is read, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bounds {
    min: f32,
    max: f32,
}

impl TryFrom<Bounds> for ValueRange {
    type Error = ObserverError;

    fn try_from(Bounds { min, max }: Bounds) -> Result<Self, ObserverError> {
        if min.is_finite() && max.is_finite() && min <= max {
            return Ok(Self { min, max });
        }
        Err(ObserverError::Damaged {
            field: "range",
            expected: "finite numbers, min <= max".to_owned(),
            found: format!("min {min}, max {max}"),
        })
    }
}

impl ValueRange {
    /// The range between two finite numbers, in whatever order.
    ///
    /// ```
    /// use fewbit_quantize::observers::ValueRange;
    /// let range = ValueRange::between(2.0, -1.0);
    /// assert_eq!((range.min(), range.max()), (-1.0, 2.0));
    /// ```
    ///
    /// # Panics
    ///
    /// If one is NaN or infinite.
    pub fn between(a: f32, b: f32) -> Self {
        assert!(
            a.is_finite() && b.is_finite(),
            "finite bounds, not {a} and {b}"
        );
        Self {
            min: a.min(b),
            max: a.max(b),
        }
    }

    /// The least value.
    pub fn min(self) -> f32 {
        self.min
    }

    /// The greatest value.
    pub fn max(self) -> f32 {
        self.max
    }

    /// The largest magnitude.
    pub fn absmax(self) -> f32 {
        self.min.abs().max(self.max.abs())
    }

    /// The least range that holds both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }

    /// The part of the range between `-magnitude` and `magnitude`; where there is none, the end nearest to zero.
    #[must_use]
    pub(super) fn within_magnitude(self, magnitude: f32) -> Self {
        Self {
            min: self.min.clamp(-magnitude, magnitude),
            max: self.max.clamp(-magnitude, magnitude),
        }
    }

    /// The range of what has been seen, after something more was.
    pub(super) fn extended(seen: Option<Self>, more: Self) -> Self {
        seen.map_or(more, |seen| seen.union(more))
    }
}
