//! Which files of weights a checkpoint directory consists of.
use crate::checkpoint::not_run;
use crate::json_fields::Fields;
use crate::weights_file::WeightsFile;
use crate::{CheckpointError, CheckpointErrorKind, pytorch, safetensors_file};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Name of the file of an unsharded checkpoint.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
/// Name of the index of a sharded checkpoint.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";
/// Name of the file of an unsharded checkpoint that PyTorch wrote.
pub(crate) const PYTORCH_SINGLE_FILE: &str = "pytorch_model.bin";
/// Name of the index of a sharded one.
pub(crate) const PYTORCH_INDEX_FILE: &str = "pytorch_model.bin.index.json";

/// The names that weights may have in a directory, the first that are there being those that are read, as transformers does it.
pub(crate) const WEIGHT_NAMES: [(&str, &str); 2] = [
    (SINGLE_FILE, INDEX_FILE),
    (PYTORCH_SINGLE_FILE, PYTORCH_INDEX_FILE),
];

/// The first of these files that `directory` has: an index, or weights.
pub(crate) fn weights_in(directory: &Path) -> Option<PathBuf> {
    let names = WEIGHT_NAMES
        .iter()
        .flat_map(|&(single, index)| [single, index]);
    names
        .map(|name| directory.join(name))
        .find(|file| file.exists())
}

/// The opened files and where each tensor is.
#[derive(Debug, Clone)]
pub(crate) struct Shards {
    pub(crate) files: Vec<WeightsFile>,
    /// Name of a tensor to (file, tensor in the file).
    pub(crate) places: HashMap<String, (usize, usize)>,
}

/// Opens a file of weights: what it is, its name says.
pub(crate) fn open_file(path: &Path) -> Result<WeightsFile, CheckpointError> {
    if path.extension().is_some_and(|extension| extension == "bin") {
        pytorch::open(path)
    } else {
        safetensors_file::open(path)
    }
}

impl Shards {
    /// No file at all.
    pub(crate) fn none() -> Self {
        Shards {
            files: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` lists; where there is neither, `pytorch_model.bin`
    /// or the shards of its index.
    pub(crate) fn open(directory: &Path) -> Result<Self, CheckpointError> {
        for (single, index) in WEIGHT_NAMES {
            let (single, index) = (directory.join(single), directory.join(index));
            if single.exists() {
                let file = open_file(&single)?;
                let places = file
                    .tensors()
                    .iter()
                    .enumerate()
                    .map(|(at, tensor)| (tensor.name.clone(), (0, at)))
                    .collect();
                return Ok(Shards {
                    files: vec![file],
                    places,
                });
            }
            if index.exists() {
                return Self::open_index(directory, &index);
            }
        }
        Err(no_weights(directory))
    }

    /// The same without the tensors of these names.
    pub(crate) fn without(&self, hidden: &BTreeSet<String>) -> Self {
        let mut shards = self.clone();
        shards.places.retain(|name, _| !hidden.contains(name));
        shards
    }

    fn open_index(directory: &Path, index: &Path) -> Result<Self, CheckpointError> {
        let weight_map = read_weight_map(index)?;
        // Sorted, so that the order of tensors does not depend on the index.
        let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, shard) in &weight_map {
            wanted.entry(shard).or_default().push(tensor);
        }
        let present = wanted
            .keys()
            .filter(|shard| directory.join(shard).is_file())
            .count();
        if let Some(missing) = wanted.keys().find(|shard| !directory.join(shard).is_file()) {
            return Err(CheckpointError::new(
                CheckpointErrorKind::NotFound,
                format!(
                    "shard `{missing}` is missing: expected {} shards, found {present}",
                    wanted.len()
                ),
            )
            .in_file(index)
            .hint("download the model again, or copy the missing shard into the directory"));
        }
        let mut files = Vec::with_capacity(wanted.len());
        let mut places = HashMap::with_capacity(weight_map.len());
        for (shard, tensors) in &wanted {
            let file = open_file(&directory.join(shard))?;
            for (at, tensor) in file.tensors().iter().enumerate() {
                match weight_map.get(&tensor.name) {
                    Some(owner) if owner != shard => continue,
                    _ => {}
                }
                if places
                    .insert(tensor.name.clone(), (files.len(), at))
                    .is_some()
                {
                    return Err(CheckpointError::new(
                        CheckpointErrorKind::Malformed,
                        format!("in more than one shard: expected the index to say which one, found it in `{shard}` and before"),
                    )
                    .in_file(index)
                    .at_tensor(&tensor.name));
                }
            }
            if let Some(missing) = tensors.iter().find(|tensor| !places.contains_key(**tensor)) {
                return Err(CheckpointError::new(
                    CheckpointErrorKind::MissingTensor,
                    format!(
                        "expected in shard `{shard}`, found {} other tensors there",
                        file.tensors().len()
                    ),
                )
                .in_file(index)
                .at_tensor(*missing)
                .hint(
                    "the index and the shards belong to different versions: download both again",
                ));
            }
            files.push(file);
        }
        Ok(Shards { files, places })
    }
}

/// Tensor name to shard name, from an index file.
fn read_weight_map(index: &Path) -> Result<HashMap<String, String>, CheckpointError> {
    let malformed = |message: String| {
        CheckpointError::new(CheckpointErrorKind::Malformed, message).in_file(index)
    };
    let Fields(fields) = read_json_as::<Fields<Field>>(index)?;
    let mut weight_maps = fields.into_iter().filter(|(name, _)| name == "weight_map");
    let weight_map = match (weight_maps.next(), weight_maps.next()) {
        (Some((_, Field::Object(Fields(weight_map)))), None) => weight_map,
        (found, _) => {
            let found = found.map_or("none", |(_, field)| match field {
                Field::Object(_) => "two",
                Field::Other(_) => "something else",
            });
            return Err(malformed(format!(
                "field `weight_map`: expected an object, found {found}"
            )));
        }
    };
    if weight_map.is_empty() {
        return Err(malformed(
            "field `weight_map`: expected at least one tensor, found none".to_owned(),
        ));
    }
    let mut owners = HashMap::with_capacity(weight_map.len());
    for (tensor, shard) in &weight_map {
        let shard = shard.as_str().ok_or_else(|| {
            malformed(format!("shard: expected a string, found {shard}")).at_tensor(tensor)
        })?;
        // A name with a separator could lead out of the directory.
        if shard.is_empty() || shard.contains(['/', '\\']) || shard == "." || shard == ".." {
            return Err(malformed(format!(
                "shard: expected a plain file name, found `{shard}`"
            ))
            .at_tensor(tensor));
        }
        if let Some(other) = owners.insert(tensor.clone(), shard.to_owned()) {
            return Err(malformed(format!(
                "named twice: expected one shard that holds it, found `{other}` and `{shard}`"
            ))
            .at_tensor(tensor)
            .hint("the index is damaged: download it again"));
        }
    }
    Ok(owners)
}

/// A field of an index.
#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Object(Fields<Value>),
    Other(IgnoredAny),
}

/// Reads and parses a JSON file.
pub(crate) fn read_json(path: &Path) -> Result<Value, CheckpointError> {
    read_json_as(path)
}

fn read_json_as<T: DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    let text =
        std::fs::read(path).map_err(|error| CheckpointError::io("cannot read", path, error))?;
    serde_json::from_slice(&text).map_err(|error| {
        CheckpointError::new(
            CheckpointErrorKind::Malformed,
            format!("not valid JSON: {error}"),
        )
        .in_file(path)
        .caused_by(error)
    })
}

/// Says what is there instead of weights.
fn no_weights(directory: &Path) -> CheckpointError {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let with = |test: fn(&str) -> bool| names.iter().find(|name| test(name));
    let message = |found: &str| {
        format!(
            "no weights: expected {SINGLE_FILE}, {PYTORCH_SINGLE_FILE} or an index of shards, found {found}"
        )
    };
    let error = |found: &str| {
        CheckpointError::new(CheckpointErrorKind::NotFound, message(found)).in_file(directory)
    };
    if let Some(name) = with(|name| name.ends_with(".safetensors")) {
        error(&format!("`{name}`")).hint(format!(
            "rename it to {SINGLE_FILE} if it holds the whole model"
        ))
    } else if let Some(name) =
        with(|name| name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth"))
    {
        error(&format!("only the pickle file `{name}`")).hint(format!(
            "rename it to {PYTORCH_SINGLE_FILE} if it holds the state dict of the whole model"
        ))
    } else if let Some(name) = with(|name| name.ends_with(".gguf")) {
        let file = directory.join(name);
        not_run(message(&format!("only the GGUF file `{name}`")), &file).in_file(directory)
    } else {
        error("none of them")
    }
}
