//! What `--backend` and `--activations` make of a recipe.

use crate::arguments::{ActivationsArgument, QuantizeArguments};
use crate::commands::calibrate;
use crate::failure::UsageError;
use fewbit::quantize::{ActivationsField, Backend};
use fewbit::{Method, RecipeFields};

pub(super) fn activations_field(argument: ActivationsArgument) -> ActivationsField {
    match argument {
        // What `qat` calls otherwise is a method of its own.
        ActivationsArgument::PerToken
        | ActivationsArgument::Dynamic
        | ActivationsArgument::Static
        | ActivationsArgument::None => ActivationsField::PerToken,
        ActivationsArgument::PerTensor => ActivationsField::PerTensor,
    }
}

/// `fields`, those of a method with its defaults, as the backend has them. What the backend gives a static recipe comes with calibration.
pub(super) fn apply(
    fields: RecipeFields,
    arguments: &QuantizeArguments,
) -> Result<RecipeFields, UsageError> {
    let backend = calibrate::backend(&arguments.calibration.texts);
    let activations = arguments
        .activations
        .map_or(ActivationsField::PerToken, activations_field);
    match (fields.method, activations, backend) {
        (Method::Dynamic, ActivationsField::PerTensor, Backend::Native) => {
            Err(UsageError(
                "--activations per-tensor: expected --backend fbgemm, x86, qnnpack or onednn beside it: it gives what PyTorch's quantize_dynamic gives there\n  hint: leave it out for a scale a token, which is more accurate"
                    .to_owned(),
            ))
        }
        (Method::Dynamic, ActivationsField::PerTensor, _) => {
            Ok(fields.with_scales_of_quantize_dynamic(backend))
        }
        (Method::Dynamic, ActivationsField::PerToken, Backend::Native) => Ok(fields),
        (Method::Dynamic, ActivationsField::PerToken, _) => Err(UsageError(format!(
            "--backend {backend} with --method dynamic: expected --activations per-tensor beside it\n  hint: PyTorch's dynamic layers have one scale for a whole input; leave the backend out for a scale a token, which is more accurate"
        ))),
        (method, ActivationsField::PerTensor, _) => Err(UsageError(format!(
            "--activations per-tensor does not go with the method `{method}`\n  hint: `dynamic` chooses scales of inputs at run time; `static` has one for each layer's input, chosen by calibration"
        ))),
        (_, ActivationsField::PerToken, _) => Ok(fields),
    }
}
