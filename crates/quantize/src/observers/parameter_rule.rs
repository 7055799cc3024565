//! From a range to scale and zero point.

use fewbit_numerics::affine::{AffineParameters, CodeRange};
use serde::{Deserialize, Serialize};

use super::{ObserverError, ValueRange};

/// The 8-bit types of codes, by PyTorch's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuantizedDType {
    /// -128..=127
    Qint8,
    /// 0..=255
    Quint8,
}

/// How scales and zero points are laid out and chosen, by PyTorch's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QScheme {
    /// One scale and zero point; the codes cover the range extended to zero.
    PerTensorAffine,
    /// One scale; the codes cover the largest magnitude on both sides of zero.
    PerTensorSymmetric,
    /// Affine, for each channel.
    PerChannelAffine,
    /// Symmetric, for each channel.
    PerChannelSymmetric,
}

impl QScheme {
    /// Whether there are parameters for each channel.
    pub fn is_per_channel(self) -> bool {
        matches!(self, Self::PerChannelAffine | Self::PerChannelSymmetric)
    }

    /// Whether zero is in the middle of the codes.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::PerTensorSymmetric | Self::PerChannelSymmetric)
    }
}

/// How a range becomes scale and zero point: `UniformQuantizationObserverBase._calculate_qparams` of PyTorch.
///
/// ```
/// use fewbit_quantize::observers::{ParameterRule, QScheme, QuantizedDType, ValueRange};
/// let rule = ParameterRule::new(QuantizedDType::Quint8, QScheme::PerTensorAffine, false)?;
/// let parameters = rule.parameters(ValueRange::between(-1.0, 3.0));
/// assert_eq!((parameters.scale, parameters.zero_point), (4.0 / 255.0, 64));
/// # Ok::<(), fewbit_quantize::observers::ObserverError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedRule")]
pub struct ParameterRule {
    dtype: QuantizedDType,
    qscheme: QScheme,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    reduce_range: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedRule {
    dtype: QuantizedDType,
    qscheme: QScheme,
    #[serde(default)]
    reduce_range: bool,
}

impl TryFrom<UncheckedRule> for ParameterRule {
    type Error = ObserverError;

    fn try_from(rule: UncheckedRule) -> Result<Self, ObserverError> {
        Self::new(rule.dtype, rule.qscheme, rule.reduce_range)
    }
}

impl ParameterRule {
    /// `reduce_range` leaves one bit unused, -64..=63 or 0..=127. It is **never needed**: the INT8 products of fewbit do not
    /// saturate on any instruction set. It exists so that the parameters of PyTorch's qconfigs can be reproduced.
    ///
    /// # Errors
    /// [`ObserverError::Settings`] for symmetric `quint8` with `reduce_range`: its zero point 128 is no code of 0..=127. PyTorch refuses it
    /// too, in all observers but `HistogramObserver`.
    pub fn new(
        dtype: QuantizedDType,
        qscheme: QScheme,
        reduce_range: bool,
    ) -> Result<Self, ObserverError> {
        if reduce_range && dtype == QuantizedDType::Quint8 && qscheme.is_symmetric() {
            return Err(ObserverError::Settings {
                field: "reduce_range",
                expected: "false with quint8 and a symmetric scheme".to_owned(),
                found: "true".to_owned(),
                hint: "the zero point of symmetric quint8 is 128, which 0..=127 does not have: use qint8, an affine scheme, or all 8 bits",
            });
        }
        Ok(Self {
            dtype,
            qscheme,
            reduce_range,
        })
    }

    /// The type of the codes.
    pub fn dtype(self) -> QuantizedDType {
        self.dtype
    }

    /// The scheme.
    pub fn qscheme(self) -> QScheme {
        self.qscheme
    }

    /// Whether one bit is left unused.
    pub fn reduce_range(self) -> bool {
        self.reduce_range
    }

    /// The codes that are used.
    pub fn code_range(self) -> CodeRange {
        let full = match self.dtype {
            QuantizedDType::Qint8 => CodeRange::INT8,
            QuantizedDType::Quint8 => CodeRange::UINT8,
        };
        if self.reduce_range {
            full.reduced()
        } else {
            full
        }
    }

    /// Scale and zero point of a range: [`AffineParameters::affine`] or [`AffineParameters::symmetric`] over the
    /// [code range](Self::code_range).
    pub fn parameters(self, range: ValueRange) -> AffineParameters {
        if self.qscheme.is_symmetric() {
            AffineParameters::symmetric(range.absmax(), self.code_range())
        } else {
            AffineParameters::affine(range.min(), range.max(), self.code_range())
        }
    }
}
