//! What a model is converted to.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use fewbit_checkpoint::gguf::TensorType;
use fewbit_checkpoint::small_floats::SmallFloatType;

use crate::{CodeLayout, FloatDType, Int4Options, IntegerRecipe, Method, Recipe, WeightCodes};

/// The layout that [`convert_model`](crate::convert_model) writes.
///
/// Spelled `f32`, `fp16`, `bf16`, or as a method of quantization that needs no calibration: `dynamic`, `weight-only`, `nf4`, `fp4`; `int4` for `weight-only` with
/// int4 weights in groups ([`ConversionTarget::int4`]), `gptq`, `gptq_v2` and `awq` for the same in the layouts of these libraries, `fp8`, `nvfp4` and `mxfp4` for
/// `weight-only` with weights of small floats; or, for a file for llama.cpp, `gguf:` and one of ggml's types, `gguf:q8_0`.
///
/// ```
/// use fewbit_quantize::{ConversionTarget, FloatDType};
///
/// assert_eq!("fp16".parse(), Ok(ConversionTarget::Floats(FloatDType::Fp16)));
/// assert!("nf4".parse::<ConversionTarget>()?.is_lossy());
/// # Ok::<(), fewbit_quantize::UnknownTarget>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ConversionTarget {
    /// A plain checkpoint, every float of this dtype.
    Floats(FloatDType),
    /// What [`quantize_model`](crate::quantize_model) writes with this recipe.
    Quantized(Recipe),
    /// A GGUF file for llama.cpp with matrices of this type, of a model that it runs.
    Gguf(TensorType),
}

impl ConversionTarget {
    /// The spellings.
    pub const NAMES: [&'static str; 25] = [
        "f32",
        "fp16",
        "bf16",
        "dynamic",
        "weight-only",
        "int4",
        "gptq",
        "gptq_v2",
        "awq",
        "fp8",
        "nvfp4",
        "mxfp4",
        "nf4",
        "fp4",
        "gguf:f32",
        "gguf:f16",
        "gguf:bf16",
        "gguf:q8_0",
        "gguf:q6_k",
        "gguf:q5_k",
        "gguf:q5_1",
        "gguf:q5_0",
        "gguf:q4_1",
        "gguf:q4_0",
        "gguf:q4_k",
    ];

    /// Weights of 4 bits in groups.
    pub fn int4(options: Int4Options) -> Self {
        Self::weight_only(WeightCodes::Int4(options))
    }

    /// The options of a target that [`ConversionTarget::int4`] made.
    pub fn int4_options(&self) -> Option<Int4Options> {
        match self {
            Self::Quantized(recipe) => recipe.integer()?.weights.int4(),
            Self::Floats(_) | Self::Gguf(_) => None,
        }
    }

    fn weight_only(weights: WeightCodes) -> Self {
        let recipe = IntegerRecipe {
            weights,
            ..IntegerRecipe::weight_only()
        };
        Self::Quantized(recipe.into())
    }

    /// Whether weights get codes: what a float dtype of fewer digits rounds away does not count.
    pub fn is_lossy(&self) -> bool {
        match self {
            Self::Floats(_) => false,
            Self::Quantized(recipe) => recipe.method().float_dtype().is_none(),
            Self::Gguf(kind) => matches!(kind, TensorType::Blocks(_)),
        }
    }

    /// What is made of the source: a directory by a recipe, or a file with tensors of a type.
    pub(crate) fn output(&self) -> TargetOutput {
        TargetOutput::Directory(match self {
            Self::Floats(FloatDType::F32) => Recipe::F32,
            Self::Floats(FloatDType::Fp16) => Recipe::Fp16,
            Self::Floats(FloatDType::Bf16) => Recipe::Bf16,
            Self::Quantized(recipe) => recipe.clone(),
            Self::Gguf(kind) => return TargetOutput::Gguf(*kind),
        })
    }
}

/// See [`ConversionTarget::output`].
pub(crate) enum TargetOutput {
    Directory(Recipe),
    Gguf(TensorType),
}

/// The type that `gguf:NAME` names.
fn tensor_type(name: &str) -> Option<TensorType> {
    let name = name.to_ascii_lowercase();
    let mut known = TensorType::all();
    known.find(|kind| kind.to_string() == name)
}

impl fmt::Display for ConversionTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Floats(dtype) => f.pad(dtype.name()),
            Self::Quantized(recipe) => f.pad(&recipe.label()),
            Self::Gguf(kind) => f.pad(&format!("gguf:{kind}")),
        }
    }
}

impl Serialize for ConversionTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is no layout that a model is converted to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown layout `{0}`: expected one of {names}", names = ConversionTarget::NAMES.join(", "))]
pub struct UnknownTarget(pub String);

impl FromStr for ConversionTarget {
    type Err = UnknownTarget;

    fn from_str(text: &str) -> Result<Self, UnknownTarget> {
        let unknown = || UnknownTarget(text.to_owned());
        let in_layout = |layout| {
            Self::int4(Int4Options {
                layout,
                ..Int4Options::default()
            })
        };
        Ok(match text {
            "f32" | "fp32" | "float32" => Self::Floats(FloatDType::F32),
            "fp16" | "f16" | "float16" => Self::Floats(FloatDType::Fp16),
            "bf16" | "bfloat16" => Self::Floats(FloatDType::Bf16),
            "int4" => Self::int4(Int4Options::default()),
            "gptq" => in_layout(CodeLayout::Gptq),
            "gptq_v2" => in_layout(CodeLayout::GptqV2),
            "awq" => in_layout(CodeLayout::Awq),
            "fp8" => Self::weight_only(WeightCodes::of_floats(SmallFloatType::Fp8)),
            "nvfp4" => Self::weight_only(WeightCodes::of_floats(SmallFloatType::Nvfp4)),
            "mxfp4" => Self::weight_only(WeightCodes::of_floats(SmallFloatType::Mxfp4)),
            _ if let Some(name) = text.strip_prefix("gguf:") => {
                Self::Gguf(tensor_type(name).ok_or_else(unknown)?)
            }
            _ => {
                let method: Method = text.parse().map_err(|_| unknown())?;
                if method.needs_calibration() {
                    return Err(unknown());
                }
                Self::Quantized(Recipe::new(method))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read() {
        for name in ConversionTarget::NAMES {
            let target: ConversionTarget = name.parse().unwrap();
            let label = match name {
                "int4" | "gptq" | "gptq_v2" | "awq" => "weight-only + int4",
                "fp8" | "nvfp4" | "mxfp4" => "weight-only + ",
                name => name,
            };
            assert!(target.to_string().starts_with(label), "{target}");
        }
    }

    #[test]
    fn what_needs_calibration_is_no_target() {
        assert_eq!(
            "static"
                .parse::<ConversionTarget>()
                .unwrap_err()
                .to_string(),
            "unknown layout `static`: expected one of f32, fp16, bf16, dynamic, weight-only, int4, gptq, gptq_v2, awq, fp8, nvfp4, mxfp4, nf4, fp4, gguf:f32, gguf:f16, gguf:bf16, gguf:q8_0, gguf:q6_k, gguf:q5_k, gguf:q5_1, gguf:q5_0, gguf:q4_1, gguf:q4_0, gguf:q4_k"
        );
    }
}
