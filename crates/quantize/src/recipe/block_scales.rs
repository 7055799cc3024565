//! How the scale of a 4-bit block is chosen.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is stored as the absmax of a block of 4-bit codes. Every loader multiplies with it, whatever it is.
///
/// ```
/// use fewbit_quantize::BlockScales;
///
/// assert_eq!("mse".parse(), Ok(BlockScales::Mse));
/// assert_eq!(BlockScales::default(), BlockScales::Absmax);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockScales {
    /// The largest magnitude of the block: the bytes of bitsandbytes.
    #[default]
    Absmax,
    /// The scale with the least squared error of the block's weights ([`least_error_scale`](fewbit_numerics::four_bit_scales::least_error_scale)).
    Mse,
}

impl BlockScales {
    /// As recipes and command lines spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absmax => "absmax",
            Self::Mse => "mse",
        }
    }
}

impl fmt::Display for BlockScales {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is no choice of scales.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scales `{0}`: expected absmax or mse")]
pub struct UnknownBlockScales(pub String);

impl FromStr for BlockScales {
    type Err = UnknownBlockScales;

    fn from_str(text: &str) -> Result<Self, UnknownBlockScales> {
        [Self::Absmax, Self::Mse]
            .into_iter()
            .find(|scales| scales.name() == text)
            .ok_or_else(|| UnknownBlockScales(text.to_owned()))
    }
}
