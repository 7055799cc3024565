//! Hugging Face Hub ids, through hf-hub: download into the cache that all Hugging Face tools share, or read from it.
//!
//! Only what an encoder needs is downloaded: config.json, the safetensors files (where there are none, those of PyTorch), tokenizer
//! files, and the folders that a sentence-transformers `modules.json` names.
mod cache;
mod download;
mod files;
mod id;
mod settings;

use crate::adapter;
use crate::checkpoint::CONFIG_FILE;
use crate::location::transformer_directory;
use crate::{CheckpointError, CheckpointErrorKind};
use id::HubId;
pub use settings::HubSettings;
use std::path::{Path, PathBuf};

/// `model` as a local directory: an existing path as it is, otherwise a Hub id (`owner/name` or `name`, optional `@revision`)
/// downloaded into the Hugging Face cache. The base of a model that is an adapter alone is found in the same way. Honours HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE.
///
/// Where `owner` is a local directory, `owner/name` is a path that does not exist; `owner/name@main` is the Hub id.
///
/// The Hub is asked for the current commit of the revision; files that the cache has of that commit are not downloaded again,
/// and if the Hub cannot be reached, a complete snapshot in the cache will do. In offline mode only the cache is read.
pub fn resolve(model: &str) -> Result<PathBuf, CheckpointError> {
    resolve_with(model, &HubSettings::from_environment())
}

/// [`resolve`] with explicit settings.
pub fn resolve_with(model: &str, settings: &HubSettings) -> Result<PathBuf, CheckpointError> {
    let directory = resolve_directory(model, settings)?;
    // The base of an adapter that comes without one belongs to the model.
    let (folder, _) = transformer_directory(&directory);
    if let Some(base) = adapter::named_base(&folder, CONFIG_FILE)? {
        resolve_directory(&base, settings)?;
    }
    Ok(directory)
}

pub(crate) fn resolve_directory(
    model: &str,
    settings: &HubSettings,
) -> Result<PathBuf, CheckpointError> {
    if Path::new(model).exists() {
        return Ok(PathBuf::from(model));
    }
    let id = HubId::parse(model).ok_or_else(|| not_found(model))?;
    refuse_path_below_a_directory(model)?;
    let cache = settings.cache_directory.as_deref().ok_or_else(no_cache)?;
    let cached = cache::find(cache, &id);
    if settings.offline {
        return cached.ok_or_else(|| {
            CheckpointError::new(CheckpointErrorKind::NotFound, format!("no such directory, and `{id}` is not in the Hugging Face cache {}", cache.display()))
                .hint("offline mode (HF_HUB_OFFLINE) reads the cache only: unset it to download, or name a local directory")
        });
    }
    match download::fetch(settings, cache, &id) {
        Ok(directory) => Ok(directory),
        Err(download::Failure::Unreachable(error)) => match cached {
            Some(directory) => {
                tracing::warn!("{error}: using the copy in the cache, which may be outdated");
                Ok(directory)
            }
            None => Err(error),
        },
        Err(download::Failure::Refused(error)) => Err(error),
    }
}

fn not_found(model: &str) -> CheckpointError {
    CheckpointError::new(
        CheckpointErrorKind::NotFound,
        "no such directory, and not a Hub id",
    )
    .in_file(model)
    .hint("a Hub id has the form `owner/name` or `owner/name@revision`")
}

/// Errors where `model` has the form of a Hub id and begins with a directory that exists: more likely a slip in a path than an
/// owner on the Hub who is called like a directory here, and a slip must not be sent anywhere.
fn refuse_path_below_a_directory(model: &str) -> Result<(), CheckpointError> {
    let Some((directory, _)) = model.split_once('/') else {
        return Ok(());
    };
    if model.contains('@') || !Path::new(directory).is_dir() {
        return Ok(());
    }
    Err(CheckpointError::new(
        CheckpointErrorKind::NotFound,
        format!(
            "no such directory, though `{directory}` is one, so that this is not taken for a Hub id"
        ),
    )
    .in_file(model)
    .hint(format!(
        "check the name; `{model}@main` names a model on the Hub wherever you are"
    )))
}

fn no_cache() -> CheckpointError {
    CheckpointError::new(
        CheckpointErrorKind::NotFound,
        "no Hugging Face cache: expected HF_HOME (or HF_HUB_CACHE, XDG_CACHE_HOME, HOME) in the environment, found none of them",
    )
    .hint("set HF_HOME to a directory that models may be stored in, or name a local directory")
}
