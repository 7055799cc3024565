//! Which model statistics belong to.

use fewbit_checkpoint::Checkpoint;
use fewbit_model::Module;
use sha2::{Digest, Sha256};

use crate::QuantizeError;

/// SHA-256, in hexadecimal digits, of the names, shapes, dtypes and bytes of the weights of the linear layers: models that differ in one
/// of them have other activations.
///
/// # Errors
/// A weight that is missing or cannot be read.
pub fn fingerprint<'m>(
    checkpoint: &Checkpoint,
    modules: impl IntoIterator<Item = &'m Module>,
) -> Result<String, QuantizeError> {
    let mut hash = Sha256::new();
    for module in modules {
        let view = checkpoint.require(&format!("{}.weight", module.name))?;
        hash.update(format!(
            "{} {:?} {}\n",
            module.name,
            view.info.shape,
            view.info.dtype.name()
        ));
        hash.update(&view.bytes()?);
    }
    Ok(hexadecimal(&hash.finalize()))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
