//! What a checkpoint consists of, and what each method would make of it. Reads no weight.

use crate::Error;
use crate::size::{ModelSize, TensorSize, disk_bytes, tensor_sizes};
use fewbit_checkpoint::Checkpoint;
use fewbit_model::EncoderSpec;
use fewbit_quantize::{MethodSize, method_sizes};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Everything that `fewbit inspect` shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The checkpoint directory.
    pub directory: PathBuf,
    /// config.json `model_type`.
    pub model_type: String,
    /// Transformer layers that the model runs.
    pub layers: usize,
    /// Transformer layers that the files hold tensors of, counted to the last one; those beyond `layers` are not used.
    pub stored_layers: usize,
    /// Columns of the hidden states.
    pub hidden_size: usize,
    /// Attention heads.
    pub heads: usize,
    /// Rows of the word embedding table.
    pub vocab_size: usize,
    /// How the checkpoint says it is quantized: method and format; none for a float checkpoint.
    pub quantization: Option<String>,
    /// Parameters and bytes.
    pub size: ModelSize,
    /// Every stored tensor, in file order.
    pub tensors: Vec<TensorSize>,
    /// The size that each method would give; empty for a checkpoint that is quantized already.
    pub methods: Vec<MethodSize>,
}

/// Describes the checkpoint in `directory`.
///
/// # Errors
/// The directory is not a readable checkpoint of a known model type.
///
/// ```
/// # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/golden/architectures/bert");
/// let inspection = fewbit::inspect(directory)?;
/// assert_eq!(inspection.model_type, "bert");
/// assert_eq!(inspection.size.by_dtype[0].name, "F32");
/// for method in &inspection.methods {
///     println!("{}: {} bytes", method.label, method.output_bytes);
/// }
/// # Ok::<(), fewbit::Error>(())
/// ```
pub fn inspect(directory: impl AsRef<Path>) -> Result<Inspection, Error> {
    let checkpoint = Checkpoint::open(directory)?;
    let spec = EncoderSpec::from_checkpoint(&checkpoint)?;
    let tensors = tensor_sizes(&checkpoint, &spec)?;
    let quantization = checkpoint
        .quantization()
        .is_quantized()
        .then(|| checkpoint.quantization().to_string());
    let methods = if quantization.is_none() {
        method_sizes(&checkpoint)?
    } else {
        Vec::new()
    };
    Ok(Inspection {
        directory: checkpoint.directory().to_owned(),
        model_type: spec.model_type.clone(),
        layers: spec.layers,
        stored_layers: stored_layers(&checkpoint, &spec),
        hidden_size: spec.hidden_size,
        heads: spec.heads,
        vocab_size: spec.vocab_size,
        quantization,
        size: ModelSize::from_tensors(&tensors, disk_bytes(&checkpoint)?),
        tensors,
        methods,
    })
}

/// Transformer layers that the files hold tensors of, counted to the last one.
pub fn stored_layers(checkpoint: &Checkpoint, spec: &EncoderSpec) -> usize {
    let layers = format!("{}{}.", spec.prefix, spec.names.layers);
    let number = |name: &str| -> Option<usize> {
        let (number, _) = name.strip_prefix(&layers)?.split_once('.')?;
        number.parse().ok()
    };
    checkpoint
        .tensors()
        .filter_map(|info| number(&info.name))
        .max()
        .map_or(0, |last| last.saturating_add(1))
}
