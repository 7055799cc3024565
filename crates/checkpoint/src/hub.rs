//! Hugging Face Hub ids, through hf-hub: download into the cache that all Hugging Face tools share, or read from it.
//!
//! Only what an encoder needs is downloaded: config.json, the safetensors files, tokenizer files, and the folders that a
//! sentence-transformers `modules.json` names.
mod cache;
mod download;
mod files;
mod id;
mod settings;

use crate::{CheckpointError, CheckpointErrorKind};
use id::HubId;
pub use settings::HubSettings;
use std::path::{Path, PathBuf};

/// `model` as a local directory: an existing path as it is, otherwise a Hub id (`owner/name` or `name`, optional `@revision`)
/// downloaded into the Hugging Face cache. Honours HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE.
///
/// The Hub is asked for the current commit of the revision; files that the cache has of that commit are not downloaded again,
/// and if the Hub cannot be reached, a complete snapshot in the cache will do. In offline mode only the cache is read.
pub fn resolve(model: &str) -> Result<PathBuf, CheckpointError> {
    resolve_with(model, &HubSettings::from_environment())
}

/// [`resolve`] with explicit settings.
pub fn resolve_with(model: &str, settings: &HubSettings) -> Result<PathBuf, CheckpointError> {
    if Path::new(model).exists() {
        return Ok(PathBuf::from(model));
    }
    let id = HubId::parse(model).ok_or_else(|| not_found(model))?;
    let cached = cache::find(settings, &id);
    if settings.offline {
        return cached.ok_or_else(|| {
            CheckpointError::new(CheckpointErrorKind::NotFound, format!("no such directory, and `{id}` is not in the Hugging Face cache {}", settings.cache_directory.display()))
                .hint("offline mode (HF_HUB_OFFLINE) reads the cache only: unset it to download, or name a local directory")
        });
    }
    match download::fetch(settings, &id) {
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
