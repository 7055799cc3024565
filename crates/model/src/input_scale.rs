//! Where the scale and the zero point of an int8 layer's input come from.

use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_kernels::RowScale;
use fewbit_numerics::affine::{AffineParameters, CodeRange};

/// Codes of compressed-tensors are signed, those of the kernels are not: both codes and zero points are shifted by this.
const UNSIGNED_OFFSET: i32 = 128;

/// Where the scale and the zero point of an int8 layer's input come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum InputScale {
    /// A scale that kernels apply, also to rows that they compute (LayerNorm, requantization).
    Rows(RowScale),
    /// One for all rows, known beforehand, and codes (unsigned) that end before those of 8 bits.
    Clamped(AffineParameters, CodeRange),
    /// The range of all rows of a text, at run time, as in PyTorch's dynamic layers.
    Text { reduce_range: bool },
}

impl InputScale {
    pub(crate) fn of(activations: Int8Activations) -> Self {
        match activations {
            Int8Activations::Dynamic(scheme) => Self::Rows(RowScale::PerToken(scheme)),
            Int8Activations::DynamicPerTensor { reduce_range } => Self::Text { reduce_range },
            Int8Activations::Static {
                scale,
                zero_point,
                codes,
            } => {
                let parameters = AffineParameters {
                    scale,
                    zero_point: zero_point + UNSIGNED_OFFSET,
                };
                match codes {
                    CodeRange::INT8 => Self::Rows(RowScale::Static(parameters)),
                    CodeRange { min, max } => {
                        let (min, max) = (min + UNSIGNED_OFFSET, max + UNSIGNED_OFFSET);
                        Self::Clamped(parameters, CodeRange { min, max })
                    }
                }
            }
        }
    }
}
