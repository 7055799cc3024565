//! Scale and zero point of a layer's input.

use fewbit_checkpoint::compressed_tensors::{CompressedScheme, WeightScales};
use serde::{Deserialize, Serialize};

/// How the input of a linear layer is quantized statically: `x ~ (code - zero_point) * scale`, codes -128..=127, or -64..=63 where
/// the recipe says `reduce_range`.
///
/// ```
/// use fewbit_quantize::StaticInput;
/// let input: StaticInput = toml::from_str("scale = 0.02\nzero_point = -5").unwrap();
/// assert_eq!(input, StaticInput { scale: 0.02, zero_point: -5 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticInput {
    /// Distance of two neighbouring codes; finite and at least the least positive normal float.
    pub scale: f32,
    /// The code of 0.
    pub zero_point: i8,
}

impl StaticInput {
    /// How a layer with this input is stored.
    pub(crate) fn scheme(self, weights: WeightScales, reduce_range: bool) -> CompressedScheme {
        CompressedScheme::StaticInt8 {
            scale: self.scale,
            zero_point: self.zero_point,
            weights,
            reduce_range,
        }
    }
}
