//! Models that are in the cache already.
use super::files::{is_inside, shards};
use super::id::HubId;
use crate::adapter::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHT_NAMES};
use crate::checkpoint::CONFIG_FILE;
use crate::location::{MODULES_FILE, transformer_directory};
use crate::shards::{WEIGHT_NAMES, read_json};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::path::{Path, PathBuf};

/// The cache's entry for a repository at `revision`.
pub(super) fn entry(cache: &Path, id: &HubId, revision: &str) -> CacheRepo {
    Cache::new(cache.to_owned()).repo(Repo::with_revision(
        id.repository.clone(),
        RepoType::Model,
        revision.to_owned(),
    ))
}

/// The snapshot directory of `id`, if config.json and all weights are there, or an adapter.
pub(super) fn find(cache: &Path, id: &HubId) -> Option<PathBuf> {
    let entry = entry(cache, id, &id.revision);
    // A branch or tag is looked up; a commit names its snapshot itself.
    let by_reference = [CONFIG_FILE, ADAPTER_CONFIG_FILE, MODULES_FILE]
        .into_iter()
        .find_map(|name| entry.get(name)?.parent().map(Path::to_owned));
    let directory = by_reference.unwrap_or_else(|| entry.pointer_path(&id.revision));
    is_complete(&directory).then_some(directory)
}

fn is_complete(directory: &Path) -> bool {
    let (directory, _) = transformer_directory(directory);
    let has = |name: &str| directory.join(name).is_file();
    if has(ADAPTER_CONFIG_FILE) && !ADAPTER_WEIGHT_NAMES.into_iter().any(has) {
        return false;
    }
    if !has(CONFIG_FILE) {
        return has(ADAPTER_CONFIG_FILE);
    }
    let mut names = WEIGHT_NAMES.into_iter();
    let there = names.find(|(single, index)| has(single) || has(index));
    there.is_some_and(|(single, index)| {
        has(single)
            || read_json(&directory.join(index)).is_ok_and(|index| {
                let shards = shards(&index);
                !shards.is_empty() && shards.iter().all(|shard| is_inside(shard) && has(shard))
            })
    })
}
