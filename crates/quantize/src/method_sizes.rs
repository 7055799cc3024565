//! What each method would make of a checkpoint, without reading a weight.

use fewbit_checkpoint::Checkpoint;
use fewbit_model::EncoderSpec;
use serde::Serialize;

use crate::{QuantizeError, QuantizePlan, Recipe};

/// The size that one recipe would give.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MethodSize {
    /// [`Recipe::label`].
    pub label: String,
    /// The recipe.
    pub recipe: Recipe,
    /// Bytes of tensor data of the source.
    pub source_bytes: usize,
    /// Bytes of tensor data that the recipe would write.
    pub output_bytes: usize,
    /// `source_bytes / output_bytes`
    pub compression_ratio: f64,
}

/// The size that each of [`Recipe::standard`] would give.
///
/// # Errors
/// Those of [`QuantizePlan::new`].
pub fn method_sizes(checkpoint: &Checkpoint) -> Result<Vec<MethodSize>, QuantizeError> {
    let spec = EncoderSpec::from_checkpoint(checkpoint)?;
    Recipe::standard()
        .into_iter()
        .map(|recipe| {
            let plan = QuantizePlan::for_spec(checkpoint, &spec, &recipe)?;
            Ok(MethodSize {
                label: recipe.label(),
                recipe,
                source_bytes: plan.source_bytes(),
                output_bytes: plan.output_bytes(),
                compression_ratio: plan.compression_ratio(),
            })
        })
        .collect()
}
