//! The methods.

use std::fmt;
use std::str::FromStr;

use fewbit_numerics::dtype::DType;
use fewbit_numerics::four_bit::FourBitType;
use serde::{Deserialize, Serialize};

/// What becomes of the weights.
///
/// `f32` gives nothing fewer bits: it is what [`convert_model`](crate::convert_model) makes of codes, and no method of `quantize`. The others are
/// spelled `fp16`, `bf16`, `dynamic`, `static`, `weight-only`, `nf4` and `fp4` in recipes and on the command
/// line; `int4` is read as `nf4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Method {
    /// Every float tensor as IEEE single precision.
    #[serde(skip_deserializing)]
    F32,
    /// Every float tensor as IEEE half precision.
    Fp16,
    /// Every float tensor as bfloat16.
    Bf16,
    /// int8 weights with one scale an output channel; activations are quantized to 8 bits per token
    /// at run time (compressed-tensors `int-quantized`).
    Dynamic,
    /// int8 weights with one scale an output channel; activations are quantized with scales that calibration chose, or per
    /// token where no such scale is good enough (compressed-tensors `int-quantized`).
    Static,
    /// int8 weights with one scale an output channel; activations are not stored as quantized: fewbit gives them 12 bits per token at run time
    /// (compressed-tensors `pack-quantized`).
    WeightOnly,
    /// NormalFloat4 codes with one absmax a block (bitsandbytes).
    #[serde(alias = "int4")]
    Nf4,
    /// FP4 codes with one absmax a block (bitsandbytes).
    Fp4,
}

impl Method {
    /// Every method of `quantize`, from the most to the fewest bits.
    pub const ALL: [Method; 7] = [
        Method::Fp16,
        Method::Bf16,
        Method::Dynamic,
        Method::Static,
        Method::WeightOnly,
        Method::Nf4,
        Method::Fp4,
    ];

    /// The canonical spelling.
    pub fn name(self) -> &'static str {
        match self {
            Method::F32 => "f32",
            Method::Fp16 => "fp16",
            Method::Bf16 => "bf16",
            Method::Dynamic => "dynamic",
            Method::Static => "static",
            Method::WeightOnly => "weight-only",
            Method::Nf4 => "nf4",
            Method::Fp4 => "fp4",
        }
    }

    /// The dtype that the method converts every float tensor to, for the methods that only convert.
    pub fn float_dtype(self) -> Option<DType> {
        match self {
            Method::F32 => Some(DType::F32),
            Method::Fp16 => Some(DType::F16),
            Method::Bf16 => Some(DType::BF16),
            _ => None,
        }
    }

    /// The code table of the blockwise 4-bit methods.
    pub fn four_bit_type(self) -> Option<FourBitType> {
        match self {
            Method::Nf4 => Some(FourBitType::Nf4),
            Method::Fp4 => Some(FourBitType::Fp4),
            _ => None,
        }
    }

    /// Whether the method needs what calibration finds out about the model's activations.
    pub fn needs_calibration(self) -> bool {
        self == Method::Static
    }

    /// Whether the method stores integer codes in a compressed-tensors layout.
    pub fn is_integer(self) -> bool {
        matches!(self, Method::Dynamic | Method::Static | Method::WeightOnly)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is no method's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown method `{0}`: expected one of fp16, bf16, dynamic, static, weight-only, nf4, fp4, int4 (the same as nf4)"
)]
pub struct UnknownMethod(pub String);

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(text: &str) -> Result<Self, UnknownMethod> {
        if text == "int4" {
            return Ok(Method::Nf4);
        }
        Method::ALL
            .into_iter()
            .find(|method| method.name() == text)
            .ok_or_else(|| UnknownMethod(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_in_text_and_in_json() {
        for method in Method::ALL {
            assert_eq!(method.name().parse(), Ok(method));
            let json = serde_json::to_string(&method).unwrap();
            assert_eq!(json, format!("\"{}\"", method.name()));
            assert_eq!(serde_json::from_str::<Method>(&json).unwrap(), method);
        }
    }

    #[test]
    fn int4_is_read_as_nf4() {
        assert_eq!("int4".parse(), Ok(Method::Nf4));
        assert_eq!(
            serde_json::from_str::<Method>("\"int4\"").unwrap(),
            Method::Nf4
        );
    }

    #[test]
    fn an_unknown_name_lists_the_methods() {
        assert_eq!(
            "int3".parse::<Method>().unwrap_err().to_string(),
            "unknown method `int3`: expected one of fp16, bf16, dynamic, static, weight-only, nf4, fp4, int4 (the same as nf4)"
        );
    }
}
