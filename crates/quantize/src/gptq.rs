//! Weights rounded so that a layer's outputs change least, not each weight by itself: GPTQ.
//!
//! Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022,
//! arXiv:2210.17323. `docs/numerics.md` has the formulas.
//!
//! A layer's inputs x, over the tokens of calibration texts, make the [`Hessian`] `H = sum x xᵀ`, so that a change d of one row of the weight changes
//! the outputs by `d H dᵀ` in all. The columns are rounded one after the other, each by a [`ColumnQuantizer`]; the columns that
//! are still to come take over what is lost, as the [`InverseFactor`] of H says ([`round_rows`]).
//!
//! Inputs are those of the float model, for all layers: what is collected depends on the model and the texts alone. Hessians are held for one
//! layer of the encoder at a time, or for as many as fit into [`HESSIAN_BYTES`].
//!
//! ```no_run
//! use fewbit_quantize::calibration::CalibrationSamples;
//! use fewbit_quantize::gptq::{GptqCalibration, quantize_model_with_gptq};
//! use fewbit_quantize::{Method, Recipe};
//!
//! let recipe = Recipe::new(Method::Dynamic).with_gptq(true);
//! let texts = vec!["Texts like those that".to_owned(), "the model will see.".to_owned()];
//! let calibration = GptqCalibration { samples: CalibrationSamples::Texts(texts), threads: 2 };
//! let (source, out) = ("models/minilm", "models/minilm-gptq");
//! quantize_model_with_gptq(source, &recipe, &calibration, out, false, &mut |_, _, _| {})?;
//! # Ok::<(), fewbit_quantize::QuantizeError>(())
//! ```

mod collect;
mod factor;
mod hessian;
mod int8;
mod passes;
mod round_rows;

pub use crate::convert::quantize_model_with_gptq;
pub use factor::{DAMPING, InverseFactor, NotPositive};
pub use hessian::Hessian;
pub use int8::{NearestCodes, SaturationProofCodes, int8_rows};
pub(crate) use passes::{GptqModule, GptqOutput, GptqPasses};
pub use round_rows::{ColumnQuantizer, round_rows};

use crate::calibration::CalibrationSamples;

/// Bytes of Hessians that are collected at a time; those of one layer of the encoder may be more.
pub const HESSIAN_BYTES: usize = 64 << 20;

/// What Hessians are collected from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GptqCalibration {
    /// Texts or rows of token ids.
    pub samples: CalibrationSamples,
    /// Worker threads, at least 1. They have no effect on the result.
    pub threads: usize,
}
