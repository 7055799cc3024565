//! A GGUF file as the model directory that it could have been made of: tensors under the names of the modules in transformers, config.json, tokenizer and
//! pooling made from the metadata.

mod byte_pairs;
mod config;
mod model_files;
mod rotations;
mod token_list;
mod word_piece;

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use fewbit_checkpoint::gguf::{GgufFile, GgufPart, RowOrder};
use fewbit_checkpoint::temporary_directory::{Purpose, TemporaryDirectory};
use fewbit_checkpoint::{Checkpoint, CheckpointError, CheckpointErrorKind};
use fewbit_model::{EncoderSpec, Module, ModuleKind, Role};
use serde_json::Value;

use crate::QuantizeError;
use crate::gguf_architecture::GgufArchitecture;
use crate::gguf_export::ROTATIONS;
use crate::gguf_import::config::model_config;
use crate::gguf_import::model_files::ModelFiles;

/// A model that was read from a GGUF file.
pub(crate) struct GgufModel {
    /// Its tensors as floats.
    pub(crate) checkpoint: Checkpoint,
    /// A directory with everything but the tensors.
    pub(crate) files: PathBuf,
    /// Removes that.
    pub(crate) temporary: TemporaryDirectory,
    /// The block types of its matrices, the one with the most bytes first; none of floats.
    pub(crate) quantization: Option<String>,
    /// Tensors in blocks that are read.
    pub(crate) dequantized: usize,
    /// Bytes of all tensors in the file.
    pub(crate) source_bytes: usize,
    /// What a user should know.
    pub(crate) notes: Vec<String>,
}

impl GgufModel {
    /// Reads the header of the file `path`, and makes the small files.
    ///
    /// # Errors
    /// A malformed file; an architecture, tokenizer or type that fewbit does not read; a tensor that is missing or has another shape than the metadata say.
    pub(crate) fn open(path: &Path) -> Result<Self, QuantizeError> {
        let file = GgufFile::open(path)?;
        let architecture = architecture(&file)?;
        let config = model_config(architecture, &file)?;
        let spec = spec(&config, path)?;
        let mut parts = parts(architecture, &spec, &file);
        if file.tensor(HEAD).is_some() && config.get("tie_word_embeddings").is_some() {
            parts.push(part("lm_head.weight".to_owned(), HEAD.to_owned()));
        }
        let checkpoint = Checkpoint::of_gguf(&file, config.clone(), &parts)?;
        expect_shapes(&spec, &checkpoint)?;
        let mut notes = Vec::new();
        let mut made = ModelFiles::default();
        made.add_json("config.json", &config);
        made.add_tokenizer(architecture, &spec, &file, &mut notes)?;
        made.add_pooling(architecture, &spec, &file, &mut notes)?;
        if architecture == GgufArchitecture::Bert {
            notes.push("the pooler is not in the file: transformers makes up random weights for one, which hidden states do not need".to_owned());
        }
        notes.extend(left_out(&file, &parts));
        let temporary = TemporaryDirectory::new(Purpose::Gguf);
        let unwritable = |source| QuantizeError::Io {
            path: std::env::temp_dir(),
            source,
        };
        let temporary = temporary.map_err(unwritable)?;
        // Apart from the file that locks the directory.
        let files = temporary.path().join("model");
        made.write(&files).map_err(unwritable)?;
        let stored = parts.iter().map(|part| part.stored.as_str());
        let stored: HashSet<&str> = stored.collect();
        let in_blocks = file
            .tensors()
            .iter()
            .filter(|tensor| tensor.kind.is_quantized() && stored.contains(tensor.name.as_str()));
        Ok(Self {
            checkpoint,
            files,
            temporary,
            quantization: quantization(&file),
            dequantized: in_blocks.count(),
            source_bytes: file.tensors().iter().map(|tensor| tensor.byte_len()).sum(),
            notes,
        })
    }
}

/// The matrix that predicts words.
const HEAD: &str = "output.weight";

/// The error for a file that is no model which fewbit reads.
fn unsupported(file: &GgufFile, message: impl Into<String>) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::UnsupportedGguf, message).in_file(file.path())
}

fn architecture(file: &GgufFile) -> Result<GgufArchitecture, CheckpointError> {
    const KEY: &str = "general.architecture";
    let metadata = file.metadata();
    let name = metadata.text(KEY)?.ok_or_else(|| metadata.missing(KEY))?;
    GgufArchitecture::named(name).ok_or_else(|| {
        let names = GgufArchitecture::names();
        unsupported(
            file,
            format!("metadata `{KEY}`: expected one of {names}, found `{name}`"),
        )
        .hint("use the safetensors checkpoint that the file was made from")
    })
}

/// The model as transformers names its modules.
fn spec(config: &Value, path: &Path) -> Result<EncoderSpec, QuantizeError> {
    let mut spec = EncoderSpec::from_config(config, path)?;
    if let Some(otherwise) = spec.names.otherwise {
        spec.names = *otherwise;
    }
    if config.get("tie_word_embeddings").is_some() {
        spec.names.base_prefix.clone_into(&mut spec.prefix);
    }
    Ok(spec)
}

fn part(name: String, stored: String) -> GgufPart {
    GgufPart {
        name,
        stored,
        rows: None,
        order: RowOrder::Same,
    }
}

/// Where the file has each tensor of the model.
fn parts(architecture: GgufArchitecture, spec: &EncoderSpec, file: &GgufFile) -> Vec<GgufPart> {
    let mut parts = Vec::new();
    for module in spec.catalogue().modules() {
        let Some(stored) = architecture.module_name(module.role, module.layer) else {
            continue;
        };
        for tensor in tensors_of(module) {
            let name = format!("{}.{tensor}", module.name);
            let mut part = part(name, format!("{stored}.{tensor}"));
            part.order = architecture.row_order(module.role, spec);
            if file.tensor(&part.stored).is_none()
                && let Some((fused, rows)) = fused(spec, module)
                && file.tensor(&format!("{fused}.{tensor}")).is_some()
            {
                part.stored = format!("{fused}.{tensor}");
                part.rows = Some(rows);
            }
            parts.push(part);
        }
    }
    parts
}

fn tensors_of(module: &Module) -> impl Iterator<Item = &'static str> {
    let count = 1 + usize::from(module.bias);
    ["weight", "bias"].into_iter().take(count)
}

/// The module that has queries, keys and values in one, and the rows that a module has in it.
fn fused(spec: &EncoderSpec, module: &Module) -> Option<(String, Range<usize>)> {
    let (queries, keys) = (spec.query_columns(), spec.key_value_columns());
    let rows = match module.role {
        Role::Query => 0..queries,
        Role::Key => queries..queries + keys,
        Role::Value => queries + keys..queries + 2 * keys,
        _ => return None,
    };
    Some((format!("blk.{}.attn_qkv", module.layer?), rows))
}

/// Errors unless every tensor has the shape that follows from the metadata.
fn expect_shapes(spec: &EncoderSpec, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    for module in spec.catalogue().modules() {
        let is_norm = module.kind() == ModuleKind::Norm;
        for tensor in tensors_of(module) {
            // Those that the file has no place for are not there.
            let Some(view) = checkpoint.get(&format!("{}.{tensor}", module.name)) else {
                continue;
            };
            match (is_norm, tensor) {
                (false, "weight") => view.expect_shape(&module.shape)?,
                _ => view.expect_shape(&[module.shape[usize::from(is_norm)]])?,
            }
        }
    }
    Ok(())
}

/// A note about tensors of the file that are not read.
fn left_out(file: &GgufFile, parts: &[GgufPart]) -> Option<String> {
    let read = parts.iter().map(|part| part.stored.as_str());
    let read: HashSet<&str> = read.collect();
    let names = file.tensors().iter().map(|tensor| tensor.name.as_str());
    // What these say is in config.json.
    let names = names.filter(|name| *name != ROTATIONS);
    let names: Vec<&str> = names.filter(|name| !read.contains(name)).collect();
    let first = names.first()?;
    Some(match names.len() {
        1 => format!("`{first}` of the file has no place in the model and is left out"),
        several => format!(
            "{several} tensors of the file have no place in the model and are left out: `{first}` and others"
        ),
    })
}

/// `GGUF q4_k, q6_k`; none where no tensor is in blocks.
fn quantization(file: &GgufFile) -> Option<String> {
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for tensor in file
        .tensors()
        .iter()
        .filter(|tensor| tensor.kind.is_quantized())
    {
        let name = tensor.kind.name();
        match kinds.iter_mut().find(|(known, _)| *known == name) {
            Some((_, bytes)) => *bytes += tensor.byte_len(),
            None => kinds.push((name, tensor.byte_len())),
        }
    }
    kinds.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let names: Vec<&str> = kinds.into_iter().map(|(name, _)| name).collect();
    (!names.is_empty()).then(|| format!("GGUF {}", names.join(", ")))
}
