//! Which observers see activations and weights: the data of a static quantization.

use fewbit_checkpoint::compressed_tensors::WeightScales;
use serde::{Deserialize, Serialize};

use crate::observers::ObserverError;

mod backend;
mod observer_settings;

pub use backend::{Backend, UnknownBackend};
pub use observer_settings::{ObserverKind, ObserverSettings};

/// An observer for activations and one for weights, as in PyTorch.
///
/// [`Backend::qconfig`] has the defaults of fewbit and of PyTorch's backends.
///
/// ```
/// use fewbit_quantize::{Backend, QConfig};
/// let qconfig = Backend::Native.qconfig();
/// let text = toml::to_string(&qconfig).unwrap();
/// assert_eq!(
///     text,
///     r#"[activation]
/// observer = "mse"
/// dtype = "quint8"
/// qscheme = "per_tensor_affine"
///
/// [weight]
/// observer = "per_channel_min_max"
/// dtype = "qint8"
/// qscheme = "per_channel_symmetric"
/// "#
/// );
/// assert_eq!(toml::from_str::<QConfig>(&text).unwrap(), qconfig);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedQConfig")]
pub struct QConfig {
    activation: ObserverSettings,
    weight: ObserverSettings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedQConfig {
    activation: ObserverSettings,
    weight: ObserverSettings,
}

impl TryFrom<UncheckedQConfig> for QConfig {
    type Error = ObserverError;

    fn try_from(unchecked: UncheckedQConfig) -> Result<Self, ObserverError> {
        Self::new(unchecked.activation, unchecked.weight)
    }
}

impl QConfig {
    /// Both observers.
    ///
    /// # Errors
    /// [`ObserverError::Settings`] for activations with a scale for each channel: a product sums over the channels, so that their scales
    /// cannot be taken out of it.
    pub fn new(
        activation: ObserverSettings,
        weight: ObserverSettings,
    ) -> Result<Self, ObserverError> {
        if activation.rule().qscheme().is_per_channel() {
            return Err(ObserverError::Settings {
                field: "activation.qscheme",
                expected: "per_tensor_affine or per_tensor_symmetric".to_owned(),
                found: "a per-channel scheme".to_owned(),
                hint: "a linear layer sums over the channels of its input: only weights have a scale for each channel",
            });
        }
        Ok(Self { activation, weight })
    }

    /// What observes the input of a layer.
    pub fn activation(&self) -> ObserverSettings {
        self.activation
    }

    /// What observes a weight (out_features, in_features).
    pub fn weight(&self) -> ObserverSettings {
        self.weight
    }

    /// Which elements of a weight share a scale.
    pub fn weight_scales(&self) -> WeightScales {
        match self.weight.rule().qscheme().is_per_channel() {
            true => WeightScales::PerChannel,
            false => WeightScales::PerTensor,
        }
    }
}
