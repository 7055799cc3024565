//! Which tensor of the base a tensor of the adapter belongs to.
use crate::adapter::config::AdapterConfig;
use crate::adapter::low_rank::Stored;
use crate::shards::Shards;
use crate::weights_file::WeightsFile;
use crate::{CheckpointError, CheckpointErrorKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What PEFT puts before the names of the model that it wraps.
const PREFIX: &str = "base_model.model.";

/// The tensors of one module's update.
#[derive(Debug)]
pub(super) struct UpdateParts {
    file: PathBuf,
    module: String,
    /// `lora_A`, (rank, in); or `lora_embedding_A`, (rank, rows).
    pub(super) first: Option<Stored>,
    /// `lora_B`, (out, rank); or `lora_embedding_B`, (columns, rank).
    pub(super) second: Option<Stored>,
    /// `lora_magnitude_vector`, (out).
    pub(super) magnitude: Option<Stored>,
    /// Of an embedding table.
    pub(super) of_table: bool,
}

impl UpdateParts {
    pub(super) fn error(&self, kind: CheckpointErrorKind, message: String) -> CheckpointError {
        CheckpointError::new(kind, message)
            .in_file(&self.file)
            .at_tensor(&self.module)
    }
}

/// The tensors of an adapter, sorted by what they do.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// By module.
    pub(super) updates: BTreeMap<String, UpdateParts>,
    /// Name without PEFT's prefix, and number in the file.
    pub(super) replacements: BTreeMap<String, usize>,
}

/// Sorts the tensors of `weights`; what is neither an update nor a module of `modules_to_save` is an error.
pub(super) fn group(
    weights: &WeightsFile,
    config: &AdapterConfig,
    config_file: &Path,
) -> Result<Parts, CheckpointError> {
    let mut parts = Parts::default();
    for (at, info) in weights.tensors().iter().enumerate() {
        let name = info.name.strip_prefix(PREFIX).unwrap_or(&info.name);
        let update = [
            (".lora_A.weight", false),
            (".lora_B.weight", false),
            (".lora_embedding_A", true),
            (".lora_embedding_B", true),
            (".lora_magnitude_vector", false),
            (".lora_magnitude_vector.weight", false),
        ]
        .into_iter()
        .find_map(|(ending, of_table)| Some((name.strip_suffix(ending)?, ending, of_table)));
        let Some((module, ending, of_table)) = update else {
            let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
            if !name.contains("lora_") && config.saves(module) {
                parts.replacements.insert(name.to_owned(), at);
                continue;
            }
            return Err(config
                .error("expected factors of LoRA updates and tensors of `modules_to_save`, found another tensor".to_owned())
                .in_file(&info.file)
                .at_tensor(&info.name));
        };
        let entry = parts
            .updates
            .entry(module.to_owned())
            .or_insert_with(|| UpdateParts {
                file: info.file.clone(),
                module: module.to_owned(),
                first: None,
                second: None,
                magnitude: None,
                of_table,
            });
        entry.of_table |= of_table;
        let slot = if ending.ends_with("_A.weight") || ending.ends_with("_A") {
            &mut entry.first
        } else if ending.starts_with(".lora_magnitude") {
            &mut entry.magnitude
        } else {
            &mut entry.second
        };
        *slot = Some(Stored::new(info.clone(), weights.mapped(at)));
    }
    if parts.updates.is_empty() && parts.replacements.is_empty() {
        return Err(CheckpointError::new(
            CheckpointErrorKind::Malformed,
            "expected weights of an adapter beside it, found no tensors",
        )
        .in_file(config_file));
    }
    Ok(parts)
}

/// The base's name of the tensor that the adapter calls `name`. The class that was trained and the class that was saved may
/// differ by a prefix (`bert.`), in either direction; the one name that agrees from a dot on is meant.
pub(super) fn in_base<'s>(shards: &'s Shards, name: &str) -> Option<&'s str> {
    if let Some((found, _)) = shards.places.get_key_value(name) {
        return Some(found);
    }
    let after_prefix = name
        .match_indices('.')
        .find_map(|(dot, _)| shards.places.get_key_value(&name[dot + 1..]));
    if let Some((found, _)) = after_prefix {
        return Some(found);
    }
    let mut longer = shards.places.keys().filter(|known| {
        known
            .strip_suffix(name)
            .is_some_and(|prefix| prefix.ends_with('.'))
    });
    let found = longer.next()?;
    longer.next().is_none().then_some(found)
}
