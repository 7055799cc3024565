//! Weights rounded so that a layer's outputs change least, not each weight by itself: GPTQ.
//!
//! Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022,
//! arXiv:2210.17323. `docs/numerics.md` has the formulas.
//!
//! A layer's inputs x, over the tokens of calibration texts, make the [`Hessian`] `H = sum x xᵀ`, so that a change d of one row of the weight changes
//! the outputs by `d H dᵀ` in all. The columns are rounded one after the other in a [`ColumnOrder`], each by a [`ColumnQuantizer`]; the columns that
//! are still to come take over what is lost, as the [`InverseFactor`] of H says ([`round_rows()`]). Scales are chosen before: those of int8 channels and groups, of int4 groups,
//! of NF4 and FP4 blocks. For scales that are weighted by activations, without GPTQ, the diagonal of H alone is summed.
//!
//! Inputs are those of the float model, for all layers: what is collected depends on the model and the texts alone. Hessians are held for one
//! layer of the encoder at a time, or for as many as fit into [`HESSIAN_BYTES`].
//!
//! ```no_run
//! use fewbit_quantize::calibration::CalibrationSamples;
//! use fewbit_quantize::{GptqCalibration, IntegerRecipe, Rounding, quantize_model_with_gptq};
//!
//! let rounding = Rounding::Gptq { saturation_proof: false };
//! let recipe = IntegerRecipe::dynamic().with_rounding(rounding).into();
//! let texts = vec!["Texts like those that".to_owned(), "the model will see.".to_owned()];
//! let calibration = GptqCalibration::new(CalibrationSamples::Texts(texts), 2);
//! let (source, out) = ("models/minilm", "models/minilm-gptq");
//! quantize_model_with_gptq(source, &recipe, &calibration, out, false, &mut |_, _, _| {})?;
//! # Ok::<(), fewbit_quantize::QuantizeError>(())
//! ```

mod collect;
mod column_order;
mod factor;
mod finished_layers;
mod four_bit;
mod hessian;
mod input_statistics;
mod int4;
mod int8;
mod passes;
mod round_rows;
mod round_weight;

use std::path::{Path, PathBuf};

use crate::QuantizeError;
use crate::calibration::CalibrationSamples;
pub use column_order::ColumnOrder;
pub use factor::{DAMPING, InverseFactor, NotPositive};
pub(crate) use finished_layers::FinishedLayers;
pub use four_bit::{FourBitCodes, FourBitScales, four_bit_codes, nearest_four_bit_codes};
pub use hessian::Hessian;
pub(crate) use input_statistics::InputStatistics;
use input_statistics::SeenRows;
pub use int4::{Int4Codes, Int4Parameters, int4_codes, nearest_int4_codes};
pub use int8::{NearestCodes, SaturationProofCodes, int8_groups, int8_rows};
pub(crate) use passes::{GptqModule, GptqOutput, GptqPasses};
pub use round_rows::{ColumnQuantizer, round_rows};

/// Bytes of Hessians that are collected at a time unless another number is given; those of one layer of the encoder may be more.
pub const HESSIAN_BYTES: usize = 64 << 20;

/// What Hessians, or mean squares for weighted scales, are collected from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GptqCalibration {
    /// Texts or rows of token ids.
    pub samples: CalibrationSamples,
    /// Worker threads, at least 1. They have no effect on the result.
    pub threads: usize,
    /// Bytes of Hessians that are collected at a time, but for those of one layer, which are never cut: more of them need fewer passes
    /// over the samples. No effect on the result.
    pub hessian_bytes: usize,
    /// A directory for the layers that are rounded already, so that an interrupted run can go on: it is made after the first pass over
    /// the samples, and removed when the model is written. What lies there of the same model, recipe and samples is not rounded again.
    pub finished_layers: Option<PathBuf>,
}

impl GptqCalibration {
    /// With [`HESSIAN_BYTES`] at a time, and nothing saved on the way.
    pub fn new(samples: CalibrationSamples, threads: usize) -> Self {
        Self {
            samples,
            threads,
            hessian_bytes: HESSIAN_BYTES,
            finished_layers: None,
        }
    }

    /// The same, with the finished layers of `out` kept [beside it](Self::path_beside). With `resume` those of an interrupted run are gone on
    /// from, if there are any.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] if there are some and nobody said `resume`.
    pub fn kept_beside(self, out: &Path, resume: bool) -> Result<Self, QuantizeError> {
        let directory = Self::path_beside(out);
        if directory.exists() && !resume {
            return Err(QuantizeError::Calibration {
                place: directory.display().to_string(),
                expected: "nothing".to_owned(),
                found: "the finished layers of a run that was interrupted".to_owned(),
                hint: "go on with --resume, or remove the directory to start again".to_owned(),
            });
        }
        Ok(Self {
            finished_layers: Some(directory),
            ..self
        })
    }

    /// Where the finished layers of an output directory lie: beside it, with `.partial` after its name.
    ///
    /// ```
    /// use fewbit_quantize::GptqCalibration;
    /// use std::path::Path;
    ///
    /// let path = GptqCalibration::path_beside(Path::new("folder/model/"));
    /// assert_eq!(path, Path::new("folder/model.partial"));
    /// ```
    pub fn path_beside(out: &Path) -> PathBuf {
        fewbit_checkpoint::partial_path(out)
    }
}
