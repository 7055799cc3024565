//! Models that are in the cache already.
use super::files::{is_inside, shards};
use super::id::HubId;
use super::settings::HubSettings;
use crate::checkpoint::CONFIG_FILE;
use crate::shards::{INDEX_FILE, SINGLE_FILE, read_json};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::path::{Path, PathBuf};

/// The cache's entry for a repository at `revision`.
pub(super) fn entry(settings: &HubSettings, id: &HubId, revision: &str) -> CacheRepo {
    Cache::new(settings.cache_directory.clone()).repo(Repo::with_revision(
        id.repository.clone(),
        RepoType::Model,
        revision.to_owned(),
    ))
}

/// The snapshot directory of `id`, if config.json and all weights are there.
pub(super) fn find(settings: &HubSettings, id: &HubId) -> Option<PathBuf> {
    let entry = entry(settings, id, &id.revision);
    // A branch or tag is looked up; a commit names its snapshot itself.
    let by_reference = entry
        .get(CONFIG_FILE)
        .and_then(|config| config.parent().map(Path::to_owned));
    let directory = by_reference.unwrap_or_else(|| entry.pointer_path(&id.revision));
    is_complete(&directory).then_some(directory)
}

fn is_complete(directory: &Path) -> bool {
    let has = |name: &str| directory.join(name).is_file();
    if !has(CONFIG_FILE) {
        return false;
    }
    if has(SINGLE_FILE) {
        return true;
    }
    read_json(&directory.join(INDEX_FILE)).is_ok_and(|index| {
        let shards = shards(&index);
        !shards.is_empty() && shards.iter().all(|shard| is_inside(shard) && has(shard))
    })
}
