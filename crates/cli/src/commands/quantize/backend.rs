//! What `--backend` and `--activations` make of a recipe.

use crate::arguments::{ActivationsArgument, QuantizeArguments};
use crate::commands::calibrate;
use crate::failure::UsageError;
use fewbit::quantize::{ActivationScales, Backend};
use fewbit::{Method, Recipe};

pub(super) fn activation_scales(argument: ActivationsArgument) -> ActivationScales {
    match argument {
        ActivationsArgument::PerToken => ActivationScales::PerToken,
        ActivationsArgument::PerTensor => ActivationScales::PerTensor,
    }
}

/// `recipe`, that of a method with its defaults, as the backend has it. What the backend gives a static recipe comes with calibration.
pub(super) fn apply(recipe: Recipe, arguments: &QuantizeArguments) -> Result<Recipe, UsageError> {
    let backend = calibrate::backend(&arguments.calibration.texts);
    let activations = arguments
        .activations
        .map_or(ActivationScales::PerToken, activation_scales);
    match (recipe.method, activations, backend) {
        (Method::Dynamic, ActivationScales::PerTensor, Backend::Native) => {
            Err(UsageError(
                "--activations per-tensor: expected --backend fbgemm, x86, qnnpack or onednn beside it: it gives what PyTorch's quantize_dynamic gives there\n  hint: leave it out for a scale a token, which is more accurate"
                    .to_owned(),
            ))
        }
        (Method::Dynamic, ActivationScales::PerTensor, _) => {
            let torch = Recipe::quantize_dynamic(backend);
            Ok(Recipe {
                activations: torch.activations,
                weight_scales: torch.weight_scales,
                reduce_range: torch.reduce_range,
                ..recipe
            })
        }
        (Method::Dynamic, ActivationScales::PerToken, Backend::Native) => Ok(recipe),
        (Method::Dynamic, ActivationScales::PerToken, _) => Err(UsageError(format!(
            "--backend {backend} with --method dynamic: expected --activations per-tensor beside it\n  hint: PyTorch's dynamic layers have one scale for a whole input; leave the backend out for a scale a token, which is more accurate"
        ))),
        (method, ActivationScales::PerTensor, _) => Err(UsageError(format!(
            "--activations per-tensor does not go with the method `{method}`\n  hint: `dynamic` chooses scales of inputs at run time; `static` has one for each layer's input, chosen by calibration"
        ))),
        (_, ActivationScales::PerToken, _) => Ok(recipe),
    }
}
