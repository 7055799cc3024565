//! One observer as data.

use serde::{Deserialize, Serialize};

use crate::observers::percentile::DEFAULT_PERCENTILE;
use crate::observers::{
    AveragingConstant, ChannelAxis, Entropy, Histogram, KeptPercentage, MinMax,
    MovingAverageMinMax, MovingAveragePerChannelMinMax, Mse, ObserverError, ParameterRule,
    PerChannelMinMax, Percentile, QScheme, QuantizedDType, Statistics,
};

/// Which observer, and its own settings. The averaging constants are in (0, 1], the percentile in (50, 100].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ObserverKind {
    /// [`MinMax`]
    MinMax,
    /// [`MovingAverageMinMax`]
    MovingAverageMinMax {
        /// Share of the newest range; 0.01 by default.
        averaging_constant: AveragingConstant,
    },
    /// [`PerChannelMinMax`]
    PerChannelMinMax {
        /// Where the channels are; the first axis by default.
        axis: ChannelAxis,
    },
    /// [`MovingAveragePerChannelMinMax`]
    MovingAveragePerChannelMinMax {
        /// Where the channels are; the first axis by default.
        axis: ChannelAxis,
        /// Share of the newest range; 0.01 by default.
        averaging_constant: AveragingConstant,
    },
    /// [`Histogram`]
    Histogram,
    /// [`Percentile`]
    Percentile {
        /// The share that is kept, in percent; 99.99 by default.
        percentile: KeptPercentage,
    },
    /// [`Mse`]
    Mse,
    /// [`Entropy`]
    Entropy,
}

impl ObserverKind {
    fn is_per_channel(self) -> bool {
        matches!(
            self,
            Self::PerChannelMinMax { .. } | Self::MovingAveragePerChannelMinMax { .. }
        )
    }
}

/// An observer and how its ranges become parameters.
///
/// In JSON and TOML the fields stand side by side; what has its default may be left out.
///
/// ```
/// use fewbit_quantize::ObserverSettings;
/// let settings: ObserverSettings = toml::from_str(
///     "observer = 'percentile'\npercentile = 99.9\ndtype = 'quint8'\nqscheme = 'per_tensor_affine'",
/// ).unwrap();
/// let mut statistics = settings.statistics(0)?;
/// statistics.update(&[-1.0, 3.0])?;
/// assert_eq!(statistics.parameters(settings.rule())?[0].zero_point, 64);
/// # Ok::<(), fewbit_quantize::observers::ObserverError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FlatSettings", into = "FlatSettings")]
pub struct ObserverSettings {
    kind: ObserverKind,
    rule: ParameterRule,
}

impl ObserverSettings {
    /// An observer and a rule.
    ///
    /// # Errors
    /// [`ObserverError::Settings`] if one is per channel and the other is not.
    pub fn new(kind: ObserverKind, rule: ParameterRule) -> Result<Self, ObserverError> {
        if kind.is_per_channel() == rule.qscheme().is_per_channel() {
            return Ok(Self { kind, rule });
        }
        let (expected, found) = match kind.is_per_channel() {
            true => ("a per-channel scheme", "a per-tensor scheme"),
            false => ("a per-tensor scheme", "a per-channel scheme"),
        };
        Err(ObserverError::Settings {
            field: "qscheme",
            expected: format!(
                "{expected} with the observer {}",
                ObserverName::of(kind).text()
            ),
            found: found.to_owned(),
            hint: "only the observers per_channel_min_max and moving_average_per_channel_min_max see channels apart",
        })
    }

    /// Which observer.
    pub fn kind(self) -> ObserverKind {
        self.kind
    }

    /// How its ranges become parameters.
    pub fn rule(self) -> ParameterRule {
        self.rule
    }

    /// An observer that has seen nothing. `channels` is the number of channels of the tensors that it will see; observers of whole tensors
    /// do not look at it.
    ///
    /// # Errors
    /// None with settings that were read or made by [`new`](Self::new).
    pub fn statistics(self, channels: usize) -> Result<Statistics, ObserverError> {
        Ok(match self.kind {
            ObserverKind::MinMax => Statistics::MinMax(MinMax::default()),
            ObserverKind::MovingAverageMinMax { averaging_constant } => {
                let observer = MovingAverageMinMax::new(averaging_constant.get())?;
                Statistics::MovingAverageMinMax(observer)
            }
            ObserverKind::PerChannelMinMax { axis } => {
                Statistics::PerChannelMinMax(PerChannelMinMax::new(channels, axis))
            }
            ObserverKind::MovingAveragePerChannelMinMax {
                axis,
                averaging_constant,
            } => {
                let constant = averaging_constant.get();
                let observer = MovingAveragePerChannelMinMax::new(channels, axis, constant)?;
                Statistics::MovingAveragePerChannelMinMax(observer)
            }
            ObserverKind::Histogram => Statistics::Histogram(Histogram::default()),
            ObserverKind::Percentile { percentile } => {
                Statistics::Percentile(Percentile::new(percentile.get())?)
            }
            ObserverKind::Mse => Statistics::Mse(Mse::default()),
            ObserverKind::Entropy => Statistics::Entropy(Entropy::default()),
        })
    }
}

/// The names of observers in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ObserverName {
    MinMax,
    MovingAverageMinMax,
    PerChannelMinMax,
    MovingAveragePerChannelMinMax,
    Histogram,
    Percentile,
    Mse,
    Entropy,
}

impl ObserverName {
    fn of(kind: ObserverKind) -> Self {
        match kind {
            ObserverKind::MinMax => Self::MinMax,
            ObserverKind::MovingAverageMinMax { .. } => Self::MovingAverageMinMax,
            ObserverKind::PerChannelMinMax { .. } => Self::PerChannelMinMax,
            ObserverKind::MovingAveragePerChannelMinMax { .. } => {
                Self::MovingAveragePerChannelMinMax
            }
            ObserverKind::Histogram => Self::Histogram,
            ObserverKind::Percentile { .. } => Self::Percentile,
            ObserverKind::Mse => Self::Mse,
            ObserverKind::Entropy => Self::Entropy,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::MinMax => "min_max",
            Self::MovingAverageMinMax => "moving_average_min_max",
            Self::PerChannelMinMax => "per_channel_min_max",
            Self::MovingAveragePerChannelMinMax => "moving_average_per_channel_min_max",
            Self::Histogram => "histogram",
            Self::Percentile => "percentile",
            Self::Mse => "mse",
            Self::Entropy => "entropy",
        }
    }
}

/// The fields as they are written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlatSettings {
    observer: ObserverName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    averaging_constant: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    percentile: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    axis: Option<ChannelAxis>,
    dtype: QuantizedDType,
    qscheme: QScheme,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reduce_range: bool,
}

impl TryFrom<FlatSettings> for ObserverSettings {
    type Error = ObserverError;

    fn try_from(flat: FlatSettings) -> Result<Self, ObserverError> {
        let name = flat.observer;
        let foreign = |field, present: bool, hint| match present {
            false => Ok(()),
            true => Err(ObserverError::Settings {
                field,
                expected: format!("none with the observer {}", name.text()),
                found: "one".to_owned(),
                hint,
            }),
        };
        let moving = matches!(
            name,
            ObserverName::MovingAverageMinMax | ObserverName::MovingAveragePerChannelMinMax
        );
        let by_channel = matches!(
            name,
            ObserverName::PerChannelMinMax | ObserverName::MovingAveragePerChannelMinMax
        );
        foreign(
            "averaging_constant",
            flat.averaging_constant.is_some() && !moving,
            "the moving averages have one",
        )?;
        foreign(
            "percentile",
            flat.percentile.is_some() && name != ObserverName::Percentile,
            "the observer percentile has one",
        )?;
        foreign(
            "axis",
            flat.axis.is_some() && !by_channel,
            "the per-channel observers have one",
        )?;
        let axis = flat.axis.unwrap_or_default();
        let averaging_constant = match flat.averaging_constant {
            Some(constant) => AveragingConstant::new(constant)?,
            None => AveragingConstant::default(),
        };
        let kind = match name {
            ObserverName::MinMax => ObserverKind::MinMax,
            ObserverName::MovingAverageMinMax => {
                ObserverKind::MovingAverageMinMax { averaging_constant }
            }
            ObserverName::PerChannelMinMax => ObserverKind::PerChannelMinMax { axis },
            ObserverName::MovingAveragePerChannelMinMax => {
                ObserverKind::MovingAveragePerChannelMinMax {
                    axis,
                    averaging_constant,
                }
            }
            ObserverName::Histogram => ObserverKind::Histogram,
            ObserverName::Percentile => ObserverKind::Percentile {
                percentile: KeptPercentage::new(flat.percentile.unwrap_or(DEFAULT_PERCENTILE))?,
            },
            ObserverName::Mse => ObserverKind::Mse,
            ObserverName::Entropy => ObserverKind::Entropy,
        };
        Self::new(
            kind,
            ParameterRule::new(flat.dtype, flat.qscheme, flat.reduce_range)?,
        )
    }
}

impl From<ObserverSettings> for FlatSettings {
    fn from(settings: ObserverSettings) -> Self {
        let ObserverSettings { kind, rule } = settings;
        let mut flat = Self {
            observer: ObserverName::of(kind),
            averaging_constant: None,
            percentile: None,
            axis: None,
            dtype: rule.dtype(),
            qscheme: rule.qscheme(),
            reduce_range: rule.reduce_range(),
        };
        let written = |axis| (axis != ChannelAxis::default()).then_some(axis);
        match kind {
            ObserverKind::MovingAverageMinMax { averaging_constant } => {
                flat.averaging_constant = Some(averaging_constant.get());
            }
            ObserverKind::PerChannelMinMax { axis } => flat.axis = written(axis),
            ObserverKind::MovingAveragePerChannelMinMax {
                axis,
                averaging_constant,
            } => {
                flat.axis = written(axis);
                flat.averaging_constant = Some(averaging_constant.get());
            }
            ObserverKind::Percentile { percentile } => flat.percentile = Some(percentile.get()),
            ObserverKind::MinMax
            | ObserverKind::Histogram
            | ObserverKind::Mse
            | ObserverKind::Entropy => {}
        }
        flat
    }
}
