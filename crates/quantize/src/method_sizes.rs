//! What each method would make of a checkpoint, without reading a weight.

use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Catalogue, ModuleKind};
use serde::Serialize;

use crate::default_embeddings::is_another_name_of_the_default;
use crate::plan::{needs_no_code, require_float_source};
use crate::{
    IntegerInputs, IntegerRecipe, QuantizeError, QuantizePlan, Recipe, Selection, StaticInput,
    StaticInputs,
};

/// The size that one recipe would give.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MethodSize {
    /// [`Recipe::label`].
    pub label: String,
    /// The recipe; that of `static` without scales, which calibration chooses.
    pub recipe: Recipe,
    /// Bytes of tensor data of the source.
    pub source_bytes: usize,
    /// Bytes of tensor data that the recipe would write.
    pub output_bytes: usize,
    /// Bytes of the whole file of weights that it would write, header included.
    pub file_bytes: u64,
    /// `source_bytes / output_bytes`
    pub compression_ratio: f64,
}

/// The size that each of [`Recipe::of_every_method`] would give: `static` with every input static, a few bytes more for each layer than
/// where inputs are dynamic.
/// A recipe with float embeddings is passed over where a method has them by default, as a head shares their table or fewbit does not run the model.
///
/// # Errors
/// Those of [`QuantizePlan::new`].
pub fn method_sizes(checkpoint: &Checkpoint) -> Result<Vec<MethodSize>, QuantizeError> {
    require_float_source(checkpoint)?;
    let catalogue = Catalogue::of_checkpoint(checkpoint)?;
    let mut sizes = Vec::new();
    for recipe in Recipe::of_every_method() {
        if !catalogue.is_of_an_encoder() && !needs_no_code(&recipe)
            || is_another_name_of_the_default(checkpoint, &catalogue, &recipe)
        {
            continue;
        }
        let planned = with_scales(checkpoint, &catalogue, &recipe)?;
        let plan = QuantizePlan::for_catalogue(checkpoint, &catalogue, &planned)?;
        sizes.push(MethodSize {
            label: recipe.label(),
            recipe,
            source_bytes: plan.source_bytes(),
            output_bytes: plan.output_bytes(),
            file_bytes: plan.file_bytes(),
            compression_ratio: plan.compression_ratio(),
        });
    }
    Ok(sizes)
}

/// A recipe of `static` with some scale for every input, as what is written takes as many bytes with any; others as they are.
fn with_scales(
    checkpoint: &Checkpoint,
    catalogue: &Catalogue,
    recipe: &Recipe,
) -> Result<Recipe, QuantizeError> {
    let Recipe::Integer(options) = recipe else {
        return Ok(recipe.clone());
    };
    let IntegerInputs::Static(inputs) = &options.inputs else {
        return Ok(recipe.clone());
    };
    let some = StaticInput {
        scale: 1.0,
        zero_point: 0,
    };
    let selection = Selection::new(checkpoint, catalogue, recipe)?;
    let modules = selection.quantized.iter();
    let linear = modules.filter(|selected| selected.module.kind() == ModuleKind::Linear);
    let names = linear.map(|selected| catalogue.without_prefix(&selected.module.name).to_owned());
    Ok(Recipe::Integer(IntegerRecipe {
        inputs: IntegerInputs::Static(StaticInputs {
            scales: names.map(|module| (module, some)).collect(),
            ..inputs.clone()
        }),
        ..options.clone()
    }))
}
