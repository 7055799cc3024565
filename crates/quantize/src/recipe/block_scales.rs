//! How the scale of a 4-bit block, or of an int4 group, is chosen.

use std::fmt;

use fewbit_numerics::int4_groups::GroupScales;
use serde::{Deserialize, Serialize};

/// What is stored as the absmax of a block of 4-bit codes, or as the scale of a group of int4 codes. Every loader multiplies with it, whatever it is.
///
/// ```
/// use fewbit_quantize::BlockScales;
///
/// assert_eq!(BlockScales::Mse.name(), "mse");
/// assert_eq!(BlockScales::default(), BlockScales::Absmax);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockScales {
    /// The largest magnitude of the block: the bytes of bitsandbytes.
    #[default]
    Absmax,
    /// The scale with the least squared error of the block's weights ([`least_error_scale`](fewbit_numerics::four_bit_scales::least_error_scale)).
    Mse,
    /// The same, where the squared error of a weight counts as much as the mean square of its input over calibration texts
    /// ([`least_weighted_error_scale`](fewbit_numerics::four_bit_scales::least_weighted_error_scale)).
    ActivationWeighted,
}

impl BlockScales {
    /// As recipes and command lines spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absmax => "absmax",
            Self::Mse => "mse",
            Self::ActivationWeighted => "activation-weighted",
        }
    }

    /// How int4 groups choose their scales in the words of the numerics. Where nothing is known of inputs, all of them count alike.
    pub(crate) fn of_groups(self) -> GroupScales {
        match self {
            Self::Absmax => GroupScales::Range,
            Self::Mse | Self::ActivationWeighted => GroupScales::LeastSquaredError,
        }
    }

    /// As tables call it; none of the largest magnitude, which is not worth a word.
    pub(crate) fn label(self) -> Option<&'static str> {
        match self {
            Self::Absmax => None,
            Self::Mse => Some("MSE scales"),
            Self::ActivationWeighted => Some("activation-weighted scales"),
        }
    }
}

impl fmt::Display for BlockScales {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
