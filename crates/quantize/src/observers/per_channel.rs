//! Minimum and maximum of each channel.

use serde::{Deserialize, Serialize};

use super::moving_average::{AverageRange, AveragingConstant, same_constant};
use super::scan::{column_ranges, value_range};
use super::{ObserverError, ValueRange};

/// Which axis of a row-major tensor holds the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelAxis {
    /// (channels, …): the output features of a weight. PyTorch's `ch_axis = 0`, the default.
    #[default]
    First,
    /// (…, channels): the features of a token.
    Last,
}

/// The channels of the tensors that an observer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Channels {
    count: usize,
    axis: ChannelAxis,
}

impl Channels {
    /// The range of each channel; `None` of no values.
    fn ranges(self, values: &[f32]) -> Result<Option<Vec<ValueRange>>, ObserverError> {
        if values.is_empty() {
            return Ok(None);
        }
        if self.count == 0 || !values.len().is_multiple_of(self.count) {
            return Err(ObserverError::Channels {
                channels: self.count,
                values: values.len(),
            });
        }
        if self.axis == ChannelAxis::Last {
            return column_ranges(values, self.count).map(Some);
        }
        let length = values.len() / self.count;
        let mut ranges = Vec::with_capacity(self.count);
        for (channel, values) in values.chunks_exact(length).enumerate() {
            match value_range(values) {
                Ok(range) => ranges.extend(range),
                Err(ObserverError::NonFinite { index, value }) => {
                    return Err(ObserverError::NonFinite {
                        index: channel * length + index,
                        value,
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(ranges))
    }

    fn same(self, other: Self) -> Result<(), ObserverError> {
        if self == other {
            return Ok(());
        }
        let text = |channels: Self| format!("{} on the {:?} axis", channels.count, channels.axis);
        Err(ObserverError::Merge {
            field: "channels",
            expected: text(self).to_lowercase(),
            found: text(other).to_lowercase(),
        })
    }

    /// As many states as channels, or none yet.
    fn check(self, states: usize) -> Result<(), ObserverError> {
        if states == 0 || states == self.count {
            return Ok(());
        }
        Err(ObserverError::Damaged {
            field: "ranges",
            expected: format!("none, or one for each of {} channels", self.count),
            found: states.to_string(),
        })
    }
}

/// The least and the greatest value of each channel: PyTorch's `PerChannelMinMaxObserver`.
///
/// `merge` gives exactly what one observer of both streams has.
///
/// ```
/// use fewbit_quantize::observers::{ChannelAxis, PerChannelMinMax};
/// let mut weight = PerChannelMinMax::new(2, ChannelAxis::First);
/// weight.update(&[1.0, -2.0, 3.0, 0.5, 0.25, -0.125])?;
/// let ranges = weight.ranges();
/// assert_eq!((ranges[0].min(), ranges[0].max()), (-2.0, 3.0));
/// assert_eq!((ranges[1].min(), ranges[1].max()), (-0.125, 0.5));
/// # Ok::<(), fewbit_quantize::observers::ObserverError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SavedPerChannelMinMax")]
pub struct PerChannelMinMax {
    channels: Channels,
    /// (channels), or none before any value.
    ranges: Vec<ValueRange>,
}

impl PerChannelMinMax {
    /// An observer of tensors with this many channels.
    pub fn new(channels: usize, axis: ChannelAxis) -> Self {
        let count = channels;
        Self {
            channels: Channels { count, axis },
            ranges: Vec::new(),
        }
    }

    /// Takes one row-major tensor in, or whole rows of one where the channels are the last axis; no values change nothing.
    ///
    /// # Errors
    /// [`ObserverError::Channels`], [`ObserverError::NonFinite`]
    pub fn update(&mut self, values: &[f32]) -> Result<(), ObserverError> {
        if let Some(ranges) = self.channels.ranges(values)? {
            self.extend(&ranges);
        }
        Ok(())
    }

    /// Takes in what another observer has seen.
    ///
    /// # Errors
    /// [`ObserverError::Merge`] if the channels differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), ObserverError> {
        self.channels.same(other.channels)?;
        self.extend(&other.ranges);
        Ok(())
    }

    /// The range of each channel; empty before any value.
    pub fn ranges(&self) -> &[ValueRange] {
        &self.ranges
    }

    fn extend(&mut self, more: &[ValueRange]) {
        if self.ranges.is_empty() {
            self.ranges = more.to_vec();
            return;
        }
        for (range, &more) in self.ranges.iter_mut().zip(more) {
            *range = range.union(more);
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedPerChannelMinMax {
    channels: Channels,
    ranges: Vec<ValueRange>,
}

impl TryFrom<SavedPerChannelMinMax> for PerChannelMinMax {
    type Error = ObserverError;

    fn try_from(saved: SavedPerChannelMinMax) -> Result<Self, ObserverError> {
        let SavedPerChannelMinMax { channels, ranges } = saved;
        channels.check(ranges.len())?;
        Ok(Self { channels, ranges })
    }
}

/// Moving averages of the minimum and the maximum of each channel: PyTorch's `MovingAveragePerChannelMinMaxObserver`.
///
/// Averages and merges are those of [`MovingAverageMinMax`](super::MovingAverageMinMax), channel by channel.
///
/// ```
/// use fewbit_quantize::observers::{ChannelAxis, MovingAveragePerChannelMinMax};
/// let mut observer = MovingAveragePerChannelMinMax::new(2, ChannelAxis::Last, 0.5)?;
/// observer.update(&[1.0, -2.0, 3.0, 0.0])?;
/// observer.update(&[5.0, -4.0])?;
/// let ranges: Vec<_> = observer.ranges().collect();
/// assert_eq!((ranges[0].min(), ranges[0].max()), (3.0, 4.0));
/// assert_eq!((ranges[1].min(), ranges[1].max()), (-3.0, -2.0));
/// # Ok::<(), fewbit_quantize::observers::ObserverError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SavedMovingAverages")]
pub struct MovingAveragePerChannelMinMax {
    averaging_constant: AveragingConstant,
    channels: Channels,
    updates: u64,
    /// (channels), or none before any value.
    states: Vec<AverageRange>,
}

impl MovingAveragePerChannelMinMax {
    /// An observer of tensors with this many channels; PyTorch's averaging constant is 0.01.
    ///
    /// # Errors
    /// [`ObserverError::Settings`] for a constant that is not in (0, 1].
    pub fn new(
        channels: usize,
        axis: ChannelAxis,
        averaging_constant: f32,
    ) -> Result<Self, ObserverError> {
        let count = channels;
        Ok(Self {
            averaging_constant: AveragingConstant::new(averaging_constant)?,
            channels: Channels { count, axis },
            updates: 0,
            states: Vec::new(),
        })
    }

    /// Takes one row-major tensor in; no values change nothing.
    ///
    /// # Errors
    /// [`ObserverError::Channels`], [`ObserverError::NonFinite`]
    pub fn update(&mut self, values: &[f32]) -> Result<(), ObserverError> {
        let Some(ranges) = self.channels.ranges(values)? else {
            return Ok(());
        };
        if self.states.is_empty() {
            self.states = ranges.into_iter().map(AverageRange::start).collect();
        } else {
            for (state, range) in self.states.iter_mut().zip(ranges) {
                state.update(range, self.averaging_constant);
            }
        }
        self.updates = self.updates.saturating_add(1);
        Ok(())
    }

    /// Continues with the updates that another observer has seen.
    ///
    /// # Errors
    /// [`ObserverError::Merge`] if the averaging constants or the channels differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), ObserverError> {
        same_constant(self.averaging_constant, other.averaging_constant)?;
        self.channels.same(other.channels)?;
        if self.states.is_empty() {
            self.states.clone_from(&other.states);
        } else {
            for (state, more) in self.states.iter_mut().zip(&other.states) {
                state.append(more, other.updates, self.averaging_constant);
            }
        }
        self.updates = self.updates.saturating_add(other.updates);
        Ok(())
    }

    /// The averages of each channel; none before any value.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = ValueRange> {
        self.states.iter().map(|state| state.average)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedMovingAverages {
    averaging_constant: AveragingConstant,
    channels: Channels,
    updates: u64,
    states: Vec<AverageRange>,
}

impl TryFrom<SavedMovingAverages> for MovingAveragePerChannelMinMax {
    type Error = ObserverError;

    fn try_from(saved: SavedMovingAverages) -> Result<Self, ObserverError> {
        let SavedMovingAverages {
            averaging_constant,
            channels,
            updates,
            states,
        } = saved;
        channels.check(states.len())?;
        Ok(Self {
            averaging_constant,
            channels,
            updates,
            states,
        })
    }
}
