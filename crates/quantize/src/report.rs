//! What was done.

use std::path::PathBuf;

use fewbit_numerics::error_statistics::ErrorStatistics;
use serde::Serialize;

use crate::{KeptModule, PartBytes, PlanRow, QuantizePlan, Recipe};

/// What became of one module, and what it cost.
///
/// The error figures compare the stored weight, dequantized, with the source weight widened to f32;
/// their formulas are those of [`ErrorStatistics`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleReport {
    /// Module path as in the checkpoint.
    pub module: String,
    /// Part of the model.
    pub part: &'static str,
    /// What was done to the weight.
    pub action: String,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Bytes of the weight in the source.
    pub source_bytes: usize,
    /// Bytes of codes, scales and quantization state.
    pub output_bytes: usize,
    /// `8 * output_bytes / elements`
    pub bits_per_weight: f64,
    /// Signal to quantization noise ratio in dB; infinite (`null` in JSON) where nothing was lost.
    pub sqnr_db: f64,
    /// Cosine of the angle between the weight and its approximation.
    pub cosine: f64,
    /// Largest difference of one element.
    pub max_absolute_error: f64,
}

impl ModuleReport {
    pub(crate) fn new(module: &str, row: &PlanRow, error: &ErrorStatistics) -> Self {
        Self {
            module: module.to_owned(),
            part: row.part,
            action: row.action.to_string(),
            shape: row.shape.clone(),
            source_bytes: row.source_bytes,
            output_bytes: row.output_bytes,
            bits_per_weight: 8.0 * row.output_bytes as f64 / row.elements() as f64,
            sqnr_db: error.sqnr_db,
            cosine: error.cosine,
            max_absolute_error: error.max_absolute,
        }
    }
}

/// What [`quantize_model`](crate::quantize_model) did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantizeReport {
    /// Source directory.
    pub source: PathBuf,
    /// The directory that was written.
    pub output: PathBuf,
    /// The recipe.
    pub recipe: Recipe,
    /// Bytes of tensor data in the source.
    pub source_bytes: usize,
    /// Bytes of tensor data written.
    pub output_bytes: usize,
    /// Bytes of all files of weights, headers included.
    pub file_bytes: u64,
    /// Number of files of weights.
    pub files: usize,
    /// `source_bytes / output_bytes`
    pub compression_ratio: f64,
    /// See [`QuantizePlan::bits_per_weight`].
    pub bits_per_weight: Option<f64>,
    /// Bytes by part of the model; they add up to the totals.
    pub parts: Vec<PartBytes>,
    /// Modules whose weight was changed, in file order.
    pub modules: Vec<ModuleReport>,
    /// Modules with a matrix that stayed float, and why.
    pub kept: Vec<KeptModule>,
    /// Values other than zero that a conversion to fp16 or bf16 rounded to zero.
    pub underflowed: usize,
    /// What a user should know about how the result can be used.
    pub notes: Vec<String>,
    /// Wall time of the whole conversion.
    pub elapsed_seconds: f64,
}

impl QuantizeReport {
    /// The report of a plan of which nothing is done yet.
    pub(crate) fn of_plan(source: PathBuf, plan: &QuantizePlan) -> Self {
        Self {
            source,
            output: PathBuf::new(),
            recipe: plan.recipe().clone(),
            source_bytes: plan.source_bytes(),
            output_bytes: plan.output_bytes(),
            file_bytes: plan.file_bytes(),
            files: 1,
            compression_ratio: plan.compression_ratio(),
            bits_per_weight: plan.bits_per_weight(),
            parts: plan.parts().to_vec(),
            modules: Vec::new(),
            kept: plan.kept().to_vec(),
            underflowed: 0,
            notes: plan.notes().to_vec(),
            elapsed_seconds: 0.0,
        }
    }
}
