//! How the scale of a 4-bit block is chosen.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is stored as the absmax of a block of 4-bit codes. Every loader multiplies with it, whatever it is.
///
/// ```
/// use fewbit_quantize::BlockScales;
///
/// assert_eq!(BlockScales::Mse.name(), "mse");
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
