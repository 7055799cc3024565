//! Float weights, as a layout of quantized ones finds them beside those, or in their place.
use crate::{Checkpoint, CheckpointError, CheckpointErrorKind, StoredWeight};

/// Reads a float weight; anything else is an error that says what config.json had promised.
pub(crate) fn read_float<'a>(
    checkpoint: &'a Checkpoint,
    module: &str,
    shape: [usize; 2],
) -> Result<StoredWeight<'a>, CheckpointError> {
    let name = format!("{module}.weight");
    let Some(view) = checkpoint.get(&name) else {
        let parts = checkpoint.weight_tensor_names(module);
        return match parts.first() {
            None => Err(checkpoint.missing(&name)),
            Some(part) => Err(inconsistent(
                checkpoint,
                part,
                "a float weight",
                "a part of a quantized one",
            )),
        };
    };
    if !view.info.is_readable_float() {
        let found = view.info.dtype.name();
        return Err(
            inconsistent(checkpoint, &name, "F32, F16, BF16 or F64", found)
                .in_file(&view.info.file),
        );
    }
    view.expect_shape(&shape)?;
    Ok(StoredWeight::Float(view))
}

/// The tensors of a module are not what `quantization_config` says.
pub(crate) fn inconsistent(
    checkpoint: &Checkpoint,
    tensor: &str,
    expected: &str,
    found: &str,
) -> CheckpointError {
    let error = CheckpointError::new(
        CheckpointErrorKind::WrongDType,
        format!(
            "config.json ({}): expected {expected}, found {found}",
            checkpoint.quantization()
        ),
    )
    .in_file(checkpoint.weights_file())
    .at_tensor(tensor);
    if checkpoint.quantization().is_quantized() {
        error.hint("config.json and the weights belong to different models, or its list of ignored modules is wrong")
    } else {
        error.hint("a quantized checkpoint needs its `quantization_config` in config.json")
    }
}
