//! Scale and zero point of a layer's input.

use serde::{Deserialize, Serialize};

/// How the input of a linear layer is quantized statically: `x ~ (code - zero_point) * scale`, codes -128..=127, or -64..=63 where
/// the recipe says `reduce_range`; beside FP8 weights the codes are E4M3 numbers and the zero point is 0.
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
