//! A PEFT adapter (`adapter_config.json` and `adapter_model.safetensors` or `adapter_model.bin`) on top of a float checkpoint.
//!
//! transformers and sentence-transformers run a directory with an adapter as base and adapter together. Here the two are
//! merged where tensors are read, so that whoever reads the checkpoint sees one model: a weight W with a LoRA update is read
//! as W + scale * B A, a slice at a time, in F32.
mod config;
mod low_rank;
mod names;

use crate::computed_tensor::{Elements, OverlaidTensor};
use crate::shards::{Shards, open_file, read_json};
use crate::weights_file::WeightsFile;
use crate::{CheckpointError, CheckpointErrorKind, TensorInfo, hub};
use config::AdapterConfig;
use low_rank::{LowRankUpdate, Stored};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file whose presence makes a directory one with an adapter.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// The names that the file of the adapter's tensors may have, the first that is there being the one that is read, as PEFT does it.
pub(crate) const ADAPTER_WEIGHT_NAMES: [&str; 2] =
    ["adapter_model.safetensors", "adapter_model.bin"];

/// What to do with an adapter that is not merged here.
pub(crate) const MERGE_WITH_PEFT: &str = "merge it with PEFT: model = AutoPeftModel.from_pretrained(DIRECTORY).merge_and_unload(); \
     model.save_pretrained(OUT), and copy the tokenizer and sentence-transformers files to OUT";

/// An adapter that has been merged into the tensors of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// Its adapter_config.json.
    pub file: PathBuf,
    /// The file of its tensors.
    pub weights: PathBuf,
    /// The directory of the base model, where that is not the directory of the adapter.
    pub base: Option<PathBuf>,
    /// Weights that are read as base and update together, by name.
    pub updated: Vec<String>,
    /// Tensors that the adapter holds whole and that are read in the place of the base's, by name.
    pub replaced: Vec<String>,
}

/// Where config.json and the weights of the model in `directory` are: `directory` itself, or, if that holds an adapter alone,
/// the base that the adapter names, as transformers finds it. A base on the Hub must be in the cache: opening a checkpoint
/// does not use the network.
pub(crate) fn base_directory(
    directory: &Path,
    config_file: &str,
) -> Result<Option<PathBuf>, CheckpointError> {
    let file = directory.join(ADAPTER_CONFIG_FILE);
    if directory.join(config_file).exists() || !file.exists() {
        return Ok(None);
    }
    let name = base_name(&file)?;
    let mut settings = hub::HubSettings::from_environment();
    settings.offline = true;
    let base = hub::resolve_directory(&name, &settings).map_err(|error| {
        CheckpointError::new(
            CheckpointErrorKind::NotFound,
            format!("`base_model_name_or_path`: expected a directory or a model in the Hugging Face cache, found neither of `{name}`"),
        )
        .in_file(&file)
        .hint(format!("the directory holds an adapter alone: download the base once with `fewbit inspect {name}`, or copy {ADAPTER_CONFIG_FILE} and the adapter's weights into the directory of the base model"))
        .caused_by(error)
    })?;
    if base.join(ADAPTER_CONFIG_FILE).exists() {
        return Err(CheckpointError::new(
            CheckpointErrorKind::UnsupportedAdapter,
            format!(
                "`base_model_name_or_path`: expected a model, found `{}`, which has an adapter itself",
                base.display()
            ),
        )
        .in_file(&file)
        .hint(MERGE_WITH_PEFT));
    }
    Ok(Some(base))
}

/// `base_model_name_or_path`, if `directory` holds an adapter alone.
pub(crate) fn named_base(
    directory: &Path,
    config_file: &str,
) -> Result<Option<String>, CheckpointError> {
    let file = directory.join(ADAPTER_CONFIG_FILE);
    if directory.join(config_file).exists() || !file.exists() {
        return Ok(None);
    }
    base_name(&file).map(Some)
}

fn base_name(file: &Path) -> Result<String, CheckpointError> {
    let config = read_json(file)?;
    let found = config
        .get("base_model_name_or_path")
        .unwrap_or(&Value::Null);
    match found.as_str() {
        Some(name) if !name.trim().is_empty() => Ok(name.to_owned()),
        _ => Err(CheckpointError::new(
            CheckpointErrorKind::Malformed,
            format!(
                "`base_model_name_or_path`: expected the name of the base model, as there is no config.json beside this file, found {found}"
            ),
        )
        .in_file(file)
        .hint("copy the adapter's files into the directory of the base model, or name that directory")),
    }
}

/// An adapter, and the tensors that it changes or adds, by name.
pub(crate) type MergedAdapter = (Adapter, BTreeMap<String, OverlaidTensor>);

/// Reads the adapter in `directory`, if there is one: what it is, and the tensors that it changes.
pub(crate) fn read(
    directory: &Path,
    base: Option<&Path>,
    shards: &Shards,
    is_quantized: bool,
) -> Result<Option<MergedAdapter>, CheckpointError> {
    let file = directory.join(ADAPTER_CONFIG_FILE);
    if !file.exists() {
        return Ok(None);
    }
    let config = AdapterConfig::read(&file)?;
    if is_quantized {
        return Err(CheckpointError::new(
            CheckpointErrorKind::UnsupportedAdapter,
            "expected a float base model, found one that is quantized",
        )
        .in_file(&file)
        .hint("put the adapter beside the float model that it was trained on, and quantize the two together"));
    }
    let (weights_file, weights) = open_weights(directory)?;
    let parts = names::group(&weights, &config, &file)?;
    let mut adapter = Adapter {
        file,
        weights: weights_file,
        base: base.map(Path::to_owned),
        updated: Vec::new(),
        replaced: Vec::new(),
    };
    let mut tensors = BTreeMap::new();
    for (module, parts) in &parts.updates {
        let name = names::in_base(shards, &format!("{module}.weight")).ok_or_else(|| {
            parts.error(
                CheckpointErrorKind::MissingTensor,
                format!("expected a weight of the base model for the module `{module}`, found none"),
            )
            .hint("the adapter was trained on another model, or on a model class with a head that the base lacks")
        })?;
        let update = LowRankUpdate::new(
            Stored::of(shards, name),
            parts,
            config.scale(module),
            config.uses_magnitude,
        )?;
        adapter.updated.push(name.to_owned());
        let info = update.info(name);
        let elements = Elements::Computed(Box::new(update));
        tensors.insert(name.to_owned(), OverlaidTensor { info, elements });
    }
    for (tensor, at) in &parts.replacements {
        let stored = weights.view(*at).info;
        let name = names::in_base(shards, tensor);
        if let Some(name) = name {
            let base = Stored::of(shards, name);
            weights.view(*at).expect_shape(&base.info().shape)?;
        }
        let name = name.unwrap_or(tensor).to_owned();
        adapter.replaced.push(name.clone());
        let info = TensorInfo {
            name: name.clone(),
            ..stored.clone()
        };
        let elements = Elements::Stored(weights.mapped(*at));
        if tensors
            .insert(name, OverlaidTensor { info, elements })
            .is_some()
        {
            return Err(CheckpointError::new(
                CheckpointErrorKind::Malformed,
                "expected an update or a whole tensor, found both",
            )
            .in_file(&stored.file)
            .at_tensor(&stored.name));
        }
    }
    Ok(Some((adapter, tensors)))
}

fn open_weights(directory: &Path) -> Result<(PathBuf, WeightsFile), CheckpointError> {
    let file = ADAPTER_WEIGHT_NAMES
        .map(|name| directory.join(name))
        .into_iter()
        .find(|file| file.exists());
    if let Some(file) = file {
        let weights = open_file(&file)?;
        return Ok((file, weights));
    }
    Err(CheckpointError::new(
        CheckpointErrorKind::NotFound,
        format!(
            "{ADAPTER_CONFIG_FILE} without its weights: expected {}, found none: without them the base model would run alone",
            ADAPTER_WEIGHT_NAMES.join(" or ")
        ),
    )
    .in_file(directory)
    .hint("copy the weights beside it, or take adapter_config.json away if the base model alone is meant"))
}
