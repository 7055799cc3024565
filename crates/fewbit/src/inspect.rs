//! What a checkpoint consists of, and what each method would make of it. Reads no weights but int8 ones.

use crate::Error;
use crate::size::{ModelSize, TensorSize, disk_bytes, tensor_sizes};
use fewbit_checkpoint::{Checkpoint, RenamedTensor, StoredWeight};
use fewbit_model::{Catalogue, EncoderSpec, open_checkpoint};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::saturation::saturating_pairs;
use fewbit_quantize::{MethodSize, method_sizes};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Everything that `fewbit inspect` shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The checkpoint directory.
    pub directory: PathBuf,
    /// config.json `model_type`; "unknown" where there is none.
    pub model_type: String,
    /// What config.json says of an encoder that fewbit runs; none for any other model, of which the tensors alone are known.
    #[serde(flatten)]
    pub encoder: Option<EncoderShape>,
    /// How the checkpoint says it is quantized: method and format; none for a float checkpoint.
    pub quantization: Option<String>,
    /// What 16-bit sums of products would do to the int8 weights of linear layers; none where there are no such weights.
    pub saturation: Option<PairSaturation>,
    /// Parameters and bytes.
    pub size: ModelSize,
    /// Every tensor, in file order, under the names that quantized weights have ([`open_checkpoint`]).
    pub tensors: Vec<TensorSize>,
    /// The tensors that have other names in the files, or are parts of others there.
    pub renamed: Vec<RenamedTensor>,
    /// The size that each method would give; empty for a checkpoint that is quantized already.
    pub methods: Vec<MethodSize>,
}

/// The sizes of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EncoderShape {
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
}

/// Whether the pairs of neighbouring weights of int8 layers can saturate 16 bits ([`fewbit_numerics::saturation`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PairSaturation {
    /// Whether none can.
    pub saturation_proof: bool,
    /// How many can.
    pub saturating_pairs: u64,
    /// How many there are: of the columns 2i and 2i + 1 of every row.
    pub pairs: u64,
}

/// Describes the checkpoint in `directory`.
///
/// # Errors
/// The directory is not a readable checkpoint, or its config.json is no encoder's although it says so.
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
    let checkpoint = open_checkpoint(directory)?;
    let catalogue = Catalogue::of_checkpoint(&checkpoint)?;
    let encoder = match catalogue.is_of_an_encoder() {
        false => None,
        true => {
            let spec = EncoderSpec::from_checkpoint(&checkpoint)?;
            Some(EncoderShape {
                layers: spec.layers,
                stored_layers: catalogue.stored_layers(&checkpoint),
                hidden_size: spec.hidden_size,
                heads: spec.heads,
                vocab_size: spec.vocab_size,
            })
        }
    };
    let tensors = tensor_sizes(&checkpoint, &catalogue)?;
    let quantization = checkpoint
        .quantization()
        .is_quantized()
        .then(|| checkpoint.quantization().to_string());
    // Nobody can tell what codes stand for that no configuration speaks of.
    let is_float = quantization.is_none() && checkpoint.expect_no_codes_without_config().is_ok();
    let methods = match is_float {
        true => method_sizes(&checkpoint)?,
        false => Vec::new(),
    };
    Ok(Inspection {
        directory: checkpoint.directory().to_owned(),
        model_type: catalogue.model_type.clone(),
        encoder,
        saturation: pair_saturation(&checkpoint, &catalogue)?,
        quantization,
        size: ModelSize::from_tensors(&tensors, disk_bytes(&checkpoint)?),
        tensors,
        renamed: checkpoint.renamed().to_vec(),
        methods,
    })
}

fn pair_saturation(
    checkpoint: &Checkpoint,
    catalogue: &Catalogue,
) -> Result<Option<PairSaturation>, Error> {
    if !checkpoint.quantization().is_quantized() {
        return Ok(None);
    }
    // Of a model that fewbit does not run, codes of 8 bits that lie in the file as they are.
    let is_looked_at = |name: &str| {
        let weight = checkpoint.get(&format!("{name}.weight"));
        catalogue.is_of_an_encoder() || weight.is_some_and(|view| view.info.dtype == DType::I8)
    };
    let (mut saturating, mut pairs) = (0, 0);
    for module in catalogue.linear_modules() {
        let [rows, columns] = module.shape;
        if rows * columns == 0 || !is_looked_at(&module.name) {
            continue;
        }
        let codes = match module.stored_weight(checkpoint)? {
            StoredWeight::Int8 { codes, .. } => codes,
            StoredWeight::WeightOnly { codes, bits: 8, .. } => codes,
            _ => continue,
        };
        saturating += saturating_pairs(&codes, columns) as u64;
        pairs += rows as u64 * (columns as u64 / 2);
    }
    Ok((pairs > 0).then_some(PairSaturation {
        saturation_proof: saturating == 0,
        saturating_pairs: saturating,
        pairs,
    }))
}
