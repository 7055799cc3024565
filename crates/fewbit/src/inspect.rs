//! What a checkpoint consists of, and what each method would make of it. Reads no weights but int8 ones.

use crate::Error;
use crate::size::{ModelSize, TensorSize, disk_bytes, tensor_sizes};
use fewbit_checkpoint::{Checkpoint, RenamedTensor, StoredWeight};
use fewbit_model::task_head::{CrossEncoder, ModelClass};
use fewbit_model::{
    Catalogue, EncoderSpec, HeadSpec, Labels, ModelError, ScoreFunction, Task, open_checkpoint,
};
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
    /// The task head; none where config.json names no model class that has one.
    pub head: Option<HeadInspection>,
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

/// What config.json says of a task head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeadInspection {
    /// The model class of transformers: `BertForSequenceClassification`.
    pub model_class: String,
    /// What the head is for; none for a kind that fewbit does not know.
    pub task: Option<Task>,
    /// The names of a classifier's logits.
    pub labels: Vec<String>,
    /// What the logits of a text are put through.
    pub scores: Option<ScoreFunction>,
    /// Why fewbit gives no logits of it; none where it does.
    pub not_run: Option<String>,
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
    let head = ModelClass::of_config(checkpoint.config())
        .filter(ModelClass::has_head)
        .map(|class| inspect_head(&checkpoint, &catalogue, class));
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
        head,
        saturation: pair_saturation(&checkpoint, &catalogue)?,
        quantization,
        size: ModelSize::from_tensors(&tensors, disk_bytes(&checkpoint)?),
        tensors,
        renamed: checkpoint.renamed().to_vec(),
        methods,
    })
}

fn inspect_head(
    checkpoint: &Checkpoint,
    catalogue: &Catalogue,
    class: ModelClass<'_>,
) -> HeadInspection {
    let mut inspection = HeadInspection {
        model_class: class.name().to_owned(),
        task: class.task(),
        labels: Vec::new(),
        scores: None,
        not_run: None,
    };
    if !catalogue.is_of_an_encoder() {
        inspection.not_run = Some("fewbit does not run this model".to_owned());
    } else if let Err(error) = read_head(checkpoint, &mut inspection) {
        let text = error.to_string();
        inspection.not_run = text.lines().next().map(str::to_owned);
    }
    inspection
}

/// Fills in what the head gives; the error says why fewbit does not run it.
fn read_head(checkpoint: &Checkpoint, inspection: &mut HeadInspection) -> Result<(), ModelError> {
    let labels = Labels::from_checkpoint(checkpoint)?;
    let encoder = EncoderSpec::from_checkpoint(checkpoint)?;
    let head = HeadSpec::from_checkpoint(checkpoint, &encoder, &labels)?;
    if head.task.has_labels() {
        inspection.labels = labels.names().to_vec();
    }
    if head.task == Task::SequenceClassification {
        let own = CrossEncoder::from_checkpoint(checkpoint, &labels)?;
        let scores = own.map_or_else(|| ScoreFunction::of_pipeline(&labels), |own| own.scores);
        inspection.scores = Some(scores);
    }
    for module in head.modules() {
        let has_weight = !checkpoint.weight_tensor_names(&module.name).is_empty();
        if !has_weight && !checkpoint.contains(&format!("{}.gamma", module.name)) {
            checkpoint.require(&format!("{}.weight", module.name))?;
        }
    }
    Ok(())
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
            StoredWeight::Groups { codes, bits: 8, .. } => codes,
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
