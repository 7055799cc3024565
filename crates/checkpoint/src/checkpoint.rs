//! A checkpoint directory, opened.
use crate::adapter::{self, Adapter};
use crate::computed_tensor::OverlaidTensor;
use crate::gguf::{gguf_source, is_gguf};
use crate::location::{refuse_router, transformer_directory};
use crate::memory_map::MappedTensor;
use crate::quantization_config::{QUANTIZATION_FIELDS, QuantizationConfig};
use crate::renaming::RenamedTensor;
use crate::shards::{INDEX_FILE, Shards, read_json, weights_in};
use crate::{CheckpointError, CheckpointErrorKind, TensorInfo, TensorView};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Name of the file that describes the model.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// `config.json` and its files of weights, mapped and validated, no tensor read yet.
///
/// The files are mapped into memory: they must not be changed in place while the checkpoint is open (replacing them by
/// renaming is fine).
///
/// ```no_run
/// use fewbit_checkpoint::Checkpoint;
///
/// let checkpoint = Checkpoint::open("models/all-MiniLM-L6-v2")?;
/// for tensor in checkpoint.tensors() {
///     println!("{} {:?} {}", tensor.name, tensor.shape, tensor.dtype.name());
/// }
/// let weight = checkpoint.stored_weight("encoder.layer.0.output.dense", [384, 1536])?;
/// let values = weight.dequantize([384, 1536])?;
/// # Ok::<(), fewbit_checkpoint::CheckpointError>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    /// The encoder's folder in `directory`, where modules.json names one.
    folder: Option<String>,
    /// Where config.json and the weights are: the encoder's folder, or another directory where that holds an adapter alone.
    base_directory: PathBuf,
    config: Value,
    has_config: bool,
    quantization: QuantizationConfig,
    shards: Shards,
    /// Tensors of the files that have other names here.
    renamed: Vec<RenamedTensor>,
    adapter: Option<Adapter>,
    /// Tensors that are shown in the place of those of the files or in addition to them, by name: those that the adapter changes or adds, or
    /// dequantized weights.
    overlaid: BTreeMap<String, OverlaidTensor>,
    /// The GGUF file that takes the place of config.json and of files of weights.
    gguf: Option<PathBuf>,
}

impl Checkpoint {
    /// Opens `directory`: reads config.json (without one, [`has_config`](Self::has_config) says so), maps `model.safetensors` or the shards of `model.safetensors.index.json` (where there is
    /// neither, `pytorch_model.bin` or the shards of its index, of which nothing is executed), and validates every header. Where a
    /// sentence-transformers modules.json gives the encoder a folder of its own (`0_Transformer`), that is where they are. A PEFT adapter beside them is merged, see [`adapter`]; the base of one that lies there alone is a
    /// directory or a model in the Hub cache.
    ///
    /// Errors if a file is missing or damaged, if the quantization is of a kind that fewbit does not read, or the adapter of a
    /// kind that it does not merge.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Self::open_renamed(directory, |_| Ok(Vec::new()))
    }

    /// [`Checkpoint::open`] with tensors under the names that `names` gives those of the files, or as parts of their rows: whoever reads
    /// this checkpoint sees no others. `names` is asked about the checkpoint as it lies there, without its adapter; an adapter is merged
    /// into the tensors under their new names.
    ///
    /// Errors as [`Checkpoint::open`] and as `names`, if two tensors get one name, and if the rows of one are not as many equal parts.
    pub fn open_renamed<E: From<CheckpointError>>(
        directory: impl AsRef<Path>,
        names: impl FnOnce(&Self) -> Result<Vec<RenamedTensor>, E>,
    ) -> Result<Self, E> {
        let (mut checkpoint, inside) = Self::without_adapter(directory.as_ref())?;
        checkpoint.renamed = names(&checkpoint)?;
        if !checkpoint.renamed.is_empty() {
            checkpoint.shards = checkpoint.shards.renamed(&checkpoint.renamed)?;
        }
        let base = (checkpoint.base_directory != inside).then_some(&*checkpoint.base_directory);
        let is_quantized = checkpoint.quantization.is_quantized();
        if let Some((adapter, tensors)) =
            adapter::read(&inside, base, &checkpoint.shards, is_quantized)?
        {
            checkpoint.adapter = Some(adapter);
            checkpoint.overlaid = tensors;
        }
        Ok(checkpoint)
    }

    /// The checkpoint without its adapter, and the directory where that would lie.
    fn without_adapter(directory: &Path) -> Result<(Self, PathBuf), CheckpointError> {
        check_directory(directory)?;
        refuse_router(directory)?;
        let (inside, folder) = transformer_directory(directory);
        let base = adapter::base_directory(&inside, CONFIG_FILE)?;
        let base_directory = base.as_deref().unwrap_or(&inside);
        let config = read_config(base_directory)?;
        let has_config = config.is_some();
        let config = config.unwrap_or_else(|| Value::Object(Map::new()));
        let quantization = QuantizationConfig::from_config(&config)
            .map_err(|error| error.in_file(base_directory.join(CONFIG_FILE)))?;
        let shards = Shards::open(base_directory)?;
        let checkpoint = Checkpoint {
            directory: directory.to_owned(),
            folder,
            base_directory: base_directory.to_owned(),
            config,
            has_config,
            quantization,
            shards,
            renamed: Vec::new(),
            adapter: None,
            overlaid: BTreeMap::new(),
            gguf: None,
        };
        Ok((checkpoint, inside))
    }

    /// Shows `tensor` in the place of the one of its name.
    pub(crate) fn overlay(&mut self, tensor: OverlaidTensor) {
        self.overlaid.insert(tensor.info.name.clone(), tensor);
    }

    /// The same without the tensors `hidden` and without quantization, `overlaid` in the place of its own tensors.
    pub(crate) fn as_floats(
        &self,
        hidden: &BTreeSet<String>,
        overlaid: BTreeMap<String, OverlaidTensor>,
    ) -> Self {
        let mut config = self.config.clone();
        if let Some(fields) = config.as_object_mut() {
            for field in QUANTIZATION_FIELDS {
                fields.shift_remove(field);
            }
        }
        Checkpoint {
            directory: self.directory.clone(),
            folder: self.folder.clone(),
            base_directory: self.base_directory.clone(),
            config,
            has_config: self.has_config,
            quantization: QuantizationConfig::None,
            shards: self.shards.without(hidden),
            renamed: self.renamed.clone(),
            adapter: self.adapter.clone(),
            overlaid,
            gguf: self.gguf.clone(),
        }
    }

    /// A float checkpoint that lies in no directory: `tensors` of the GGUF file `file`, with `config`.
    pub(crate) fn of_tensors(
        file: &Path,
        config: Value,
        tensors: BTreeMap<String, OverlaidTensor>,
    ) -> Self {
        Checkpoint {
            directory: file.to_owned(),
            folder: None,
            base_directory: file.to_owned(),
            config,
            has_config: true,
            quantization: QuantizationConfig::None,
            shards: Shards::none(),
            renamed: Vec::new(),
            adapter: None,
            overlaid: tensors,
            gguf: Some(file.to_owned()),
        }
    }

    /// The directory, as it was given to [`Checkpoint::open`].
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The folder in [`Checkpoint::directory`] that holds the encoder, where it is not the directory itself; without a slash at its
    /// end.
    pub fn folder(&self) -> Option<&str> {
        self.folder.as_deref()
    }

    /// The config.json that was read: in the directory, or in that of an adapter's base; of a GGUF file the file, whose metadata says as much.
    pub fn config_file(&self) -> PathBuf {
        match &self.gguf {
            Some(file) => file.clone(),
            None => self.base_directory.join(CONFIG_FILE),
        }
    }

    /// The tensors of the files that have other names here, in file order.
    pub fn renamed(&self) -> &[RenamedTensor] {
        &self.renamed
    }

    /// The names of the weights that are codes in the files, where this is what [`dequantized`](Self::dequantized) gave.
    pub fn dequantized_weights(&self) -> impl Iterator<Item = &str> {
        let has_adapter = self.adapter.is_some();
        let names = self.overlaid.keys().filter(move |_| !has_adapter);
        names.map(String::as_str)
    }

    /// The adapter that the tensors are merged with, if there is one.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// Whether there is a config.json. Weights can be looked at and quantized without one, by the names of their tensors.
    pub fn has_config(&self) -> bool {
        self.has_config
    }

    /// The error for what needs a config.json, where there is none.
    pub fn missing_config(&self) -> CheckpointError {
        not_a_checkpoint(&self.base_directory).hint(
            "without it nothing says what model the weights are of; `inspect`, and `quantize` with fp16, bf16, weight-only, nf4 and fp4, \
             need only these",
        )
    }

    /// The parsed config.json; an object without fields if there is none.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// How the checkpoint says it is quantized.
    pub fn quantization(&self) -> &QuantizationConfig {
        &self.quantization
    }

    /// All tensors in file order; those that an adapter adds, and dequantized weights of which no tensor has the name, come last.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        let added = self
            .overlaid
            .values()
            .map(|tensor| &tensor.info)
            .filter(|info| !self.shards.places.contains_key(&info.name));
        self.stored_tensors()
            .map(|info| {
                self.overlaid
                    .get(&info.name)
                    .map_or(info, |changed| &changed.info)
            })
            .chain(added)
    }

    /// The tensors of the weight files, as they are there.
    fn stored_tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.shards
            .files
            .iter()
            .enumerate()
            .flat_map(move |(file, shard)| {
                let tensors = shard.tensors().iter().enumerate();
                tensors
                    .filter(move |(at, tensor)| {
                        self.shards.places.get(&tensor.name) == Some(&(file, *at))
                    })
                    .map(|(_, tensor)| tensor)
            })
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.shards.places.contains_key(name) || self.overlaid.contains_key(name)
    }

    /// The tensor of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        if let Some(changed) = self.overlaid.get(name) {
            return Some(changed.view());
        }
        let &(file, at) = self.shards.places.get(name)?;
        Some(self.shards.files[file].view(at))
    }

    /// Says that the tensor of this name has been read, if there is one: its pages need not stay in memory. Reading it again is
    /// right, only slower. This bounds the memory of a pass over a checkpoint by its largest tensor.
    pub fn release(&self, name: &str) {
        if let Some(changed) = self.overlaid.get(name) {
            changed.release();
        } else if let Some(&(file, at)) = self.shards.places.get(name) {
            self.shards.files[file].release(at);
        }
    }

    /// Says that `bytes` of the tensor of this name, if there is one that lies in a file as it is, will be read soon: the system may fetch
    /// them meanwhile, into its cache and not into the memory of the process.
    ///
    /// # Panics
    /// If they are not within the tensor.
    pub fn read_ahead(&self, name: &str, bytes: Range<usize>) {
        if let Some(tensor) = self.mapped(name) {
            tensor.read_ahead(bytes);
        }
    }

    /// The bytes of the tensor of this name, if there is one and it lies in a file as it is, to be kept while the checkpoint need
    /// not be. (The sum of a weight and an adapter's update lies nowhere.)
    pub fn mapped(&self, name: &str) -> Option<MappedTensor> {
        if let Some(changed) = self.overlaid.get(name) {
            return changed.mapped();
        }
        let &(file, at) = self.shards.places.get(name)?;
        Some(self.shards.files[file].mapped(at))
    }

    /// `get`, or an error that names the directory's files and near names.
    pub fn require(&self, name: &str) -> Result<TensorView<'_>, CheckpointError> {
        self.get(name).ok_or_else(|| self.missing(name))
    }

    /// The file that a message about the whole of the weights should name.
    pub(crate) fn weights_file(&self) -> PathBuf {
        if let Some(file) = &self.gguf {
            return file.clone();
        }
        weights_in(&self.base_directory).unwrap_or_else(|| self.base_directory.join(INDEX_FILE))
    }

    /// The error for a tensor that is not there.
    pub(crate) fn missing(&self, name: &str) -> CheckpointError {
        let error = CheckpointError::new(
            CheckpointErrorKind::MissingTensor,
            format!(
                "missing: expected this tensor, found {} others",
                self.tensors().count()
            ),
        )
        .in_file(self.weights_file())
        .at_tensor(name);
        let near = self.near_names(name);
        if near.is_empty() {
            error
        } else {
            error.hint(format!("near names in the checkpoint: {}", near.join(", ")))
        }
    }

    /// At most three names with the longest common ending (at least one whole component, more than the last one if the
    /// name has more).
    fn near_names(&self, name: &str) -> Vec<&str> {
        let common = |other: &str| {
            name.rsplit('.')
                .zip(other.rsplit('.'))
                .take_while(|(a, b)| a == b)
                .count()
        };
        let least = name.split('.').count().min(2);
        let mut near: Vec<(usize, &str)> = self
            .tensors()
            .map(|tensor| (common(&tensor.name), tensor.name.as_str()))
            .filter(|&(common, _)| common >= least)
            .collect();
        near.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        near.into_iter().take(3).map(|(_, name)| name).collect()
    }
}

fn check_directory(directory: &Path) -> Result<(), CheckpointError> {
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) if is_gguf(directory) => Err(not_run(
            "expected a checkpoint directory, found a GGUF file",
            directory,
        )
        .in_file(directory)),
        Ok(_) => Err(CheckpointError::new(
            CheckpointErrorKind::NotFound,
            "expected a checkpoint directory, found a file",
        )
        .in_file(directory)
        .hint(
            "name the directory that holds config.json and model.safetensors or pytorch_model.bin",
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(CheckpointError::new(
            CheckpointErrorKind::NotFound,
            "no such directory",
        )
        .in_file(directory)
        .caused_by(error)),
        Err(error) => Err(CheckpointError::io(
            "cannot open the directory",
            directory,
            error,
        )),
    }
}

/// The error for a GGUF file where a directory is needed.
pub(crate) fn not_run(message: impl Into<String>, file: &Path) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::NotFound, message).hint(format!(
        "make one of it first: fewbit convert {} -o OUT --to f32",
        file.display()
    ))
}

fn not_a_checkpoint(directory: &Path) -> CheckpointError {
    CheckpointError::new(
        CheckpointErrorKind::NotFound,
        format!("not a checkpoint: expected {CONFIG_FILE}, found none"),
    )
    .in_file(directory)
}

/// The parsed config.json; none where there are weights without one.
fn read_config(directory: &Path) -> Result<Option<Value>, CheckpointError> {
    let path = directory.join(CONFIG_FILE);
    if !path.exists() {
        if weights_in(directory).is_some() {
            return Ok(None);
        }
        if let Some(file) = gguf_source(directory)? {
            let message = format!("not a checkpoint: expected {CONFIG_FILE}, found a GGUF file");
            return Err(not_run(message, &file).in_file(directory));
        }
        return Err(not_a_checkpoint(directory).hint("a checkpoint directory holds config.json, model.safetensors or pytorch_model.bin, and the tokenizer files"));
    }
    let config = read_json(&path)?;
    if config.is_object() {
        Ok(Some(config))
    } else {
        Err(CheckpointError::new(
            CheckpointErrorKind::Malformed,
            "expected a JSON object, found another value",
        )
        .in_file(path))
    }
}
