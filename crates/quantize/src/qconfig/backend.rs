//! Default qconfigs by backend.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ObserverKind, ObserverSettings, QConfig};
use crate::calibration::LEAST_SQNR_DB;
use crate::observers::{ChannelAxis, ParameterRule, QScheme, QuantizedDType};

/// Whose defaults a static quantization starts from.
///
/// All of them run on the same kernels; the PyTorch names give the parameters that PyTorch would give
/// (`torch.ao.quantization.get_default_qconfig`, 2.15).
///
/// | backend | activations | weights |
/// |---|---|---|
/// | `native` | [`Mse`](crate::observers::Mse) quint8 affine, 0..=255 | MinMax for each channel, qint8 symmetric |
/// | `fbgemm`, `x86` | Histogram quint8 affine, reduce_range: 0..=127 | MinMax for each channel, qint8 symmetric |
/// | `qnnpack` | Histogram quint8 affine, 0..=255 | MinMax, qint8 symmetric, one scale |
/// | `onednn` | Histogram quint8 affine, 0..=255 | MinMax for each channel, qint8 symmetric |
///
/// `native` leaves inputs dynamic that one range would cost too much; with PyTorch's backends every input is static, as in PyTorch
/// ([`least_sqnr_db`](Backend::least_sqnr_db)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// fewbit's own: all 8 bits, activation ranges of least squared error, weights by channel. The default.
    #[default]
    Native,
    /// PyTorch on servers, the older name.
    Fbgemm,
    /// PyTorch on servers, its default.
    X86,
    /// PyTorch on ARM.
    Qnnpack,
    /// PyTorch with oneDNN.
    Onednn,
}

impl Backend {
    /// Every backend.
    pub const ALL: [Backend; 5] = [
        Backend::Native,
        Backend::Fbgemm,
        Backend::X86,
        Backend::Qnnpack,
        Backend::Onednn,
    ];

    /// The canonical spelling.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Native => "native",
            Backend::Fbgemm => "fbgemm",
            Backend::X86 => "x86",
            Backend::Qnnpack => "qnnpack",
            Backend::Onednn => "onednn",
        }
    }

    /// The default observers.
    ///
    /// ```
    /// use fewbit_quantize::{Backend, ObserverKind};
    /// let x86 = Backend::X86.qconfig();
    /// assert_eq!(x86.activation().kind(), ObserverKind::Histogram);
    /// assert!(x86.activation().rule().reduce_range());
    /// ```
    pub fn qconfig(self) -> QConfig {
        let reduce_range = matches!(self, Backend::Fbgemm | Backend::X86);
        let activation = match self {
            Backend::Native => ObserverKind::Mse,
            _ => ObserverKind::Histogram,
        };
        let (weight, weight_scheme) = match self {
            Backend::Qnnpack => (ObserverKind::MinMax, QScheme::PerTensorSymmetric),
            _ => {
                let axis = ChannelAxis::First;
                (
                    ObserverKind::PerChannelMinMax { axis },
                    QScheme::PerChannelSymmetric,
                )
            }
        };
        let settings = |kind, dtype, qscheme, reduce_range| {
            ParameterRule::new(dtype, qscheme, reduce_range)
                .and_then(|rule| ObserverSettings::new(kind, rule))
                .expect("the defaults fit one another: a test makes all of them")
        };
        let activation = settings(
            activation,
            QuantizedDType::Quint8,
            QScheme::PerTensorAffine,
            reduce_range,
        );
        let weight = settings(weight, QuantizedDType::Qint8, weight_scheme, false);
        QConfig { activation, weight }
    }
}

impl Backend {
    /// The least ratio of signal to noise, in dB, of an input that is static unless told otherwise:
    /// [`LEAST_SQNR_DB`] with `native`. PyTorch makes every input static whatever that costs, so with its backends there is no least.
    ///
    /// ```
    /// use fewbit_quantize::Backend;
    /// assert_eq!(Backend::Native.least_sqnr_db(), 30.0);
    /// assert_eq!(Backend::X86.least_sqnr_db(), f64::NEG_INFINITY);
    /// ```
    pub fn least_sqnr_db(self) -> f64 {
        match self {
            Backend::Native => LEAST_SQNR_DB,
            Backend::Fbgemm | Backend::X86 | Backend::Qnnpack | Backend::Onednn => {
                f64::NEG_INFINITY
            }
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is no backend's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown backend `{0}`: expected one of native, fbgemm, x86, qnnpack, onednn")]
pub struct UnknownBackend(pub String);

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        Backend::ALL
            .into_iter()
            .find(|backend| backend.name() == text)
            .ok_or_else(|| UnknownBackend(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_in_text_and_in_json_and_has_a_qconfig() {
        for backend in Backend::ALL {
            assert_eq!(backend.name().parse(), Ok(backend));
            let json = serde_json::to_string(&backend).unwrap();
            assert_eq!(json, format!("\"{backend}\""));
            assert_eq!(serde_json::from_str::<Backend>(&json).unwrap(), backend);
            let json = serde_json::to_string(&backend.qconfig()).unwrap();
            let read: QConfig = serde_json::from_str(&json).unwrap();
            assert_eq!(read, backend.qconfig());
        }
        assert_eq!(Backend::default(), Backend::Native);
    }

    #[test]
    fn an_unknown_name_lists_the_backends() {
        assert_eq!(
            "cuda".parse::<Backend>().unwrap_err().to_string(),
            "unknown backend `cuda`: expected one of native, fbgemm, x86, qnnpack, onednn"
        );
    }
}
