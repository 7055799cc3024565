//! Downloading a repository's files into the cache.
use super::cache;
use super::files::{first_files, inside, is_inside, module_files, shards, weights};
use super::id::HubId;
use super::settings::HubSettings;
use crate::adapter::ADAPTER_CONFIG_FILE;
use crate::checkpoint::CONFIG_FILE;
use crate::location::{MODULES_FILE, transformer_folder};
use crate::shards::read_json;
use crate::{CheckpointError, CheckpointErrorKind};
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Why there is no download.
pub(super) enum Failure {
    /// The Hub did not answer.
    Unreachable(CheckpointError),
    /// It answered that there is no such thing, or what it sent is of no use.
    Refused(CheckpointError),
}

/// Downloads what the cache lacks of the current commit of `id` and returns the snapshot directory.
pub(super) fn fetch(
    settings: &HubSettings,
    cache_directory: &Path,
    id: &HubId,
) -> Result<PathBuf, Failure> {
    // Not `new`, which panics where there is no home directory.
    let builder = ApiBuilder::from_cache(Cache::new(cache_directory.to_owned()))
        .with_endpoint(settings.endpoint.clone())
        .with_token(settings.token.clone())
        .with_progress(settings.progress)
        .with_retries(2)
        .with_user_agent("fewbit", env!("CARGO_PKG_VERSION"));
    let api = builder
        .build()
        .map_err(|error| failure(settings, cache_directory, id, None, error))?;
    let at = |revision: &str| {
        Repo::with_revision(id.repository.clone(), RepoType::Model, revision.to_owned())
    };
    let info = api
        .repo(at(&id.revision))
        .info()
        .map_err(|error| failure(settings, cache_directory, id, None, error))?;
    if info.sha.is_empty() || !info.sha.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Failure::Refused(hub_error(
            id,
            format!("commit: expected letters and digits, found `{}`", info.sha),
        )));
    }
    let available: BTreeSet<String> = info
        .siblings
        .into_iter()
        .map(|file| file.rfilename)
        .filter(|name| is_inside(name))
        .collect();
    // Pinned: the files of one commit, even if the branch moves on meanwhile.
    let snapshot = Snapshot {
        settings,
        cache_directory,
        id,
        repository: api.repo(at(&info.sha)),
        directory: cache::entry(cache_directory, id, &info.sha).pointer_path(&info.sha),
    };
    let modules = if available.contains(MODULES_FILE) {
        snapshot.get(MODULES_FILE)?;
        Some(read_json(&snapshot.directory.join(MODULES_FILE)).map_err(Failure::Refused)?)
    } else {
        None
    };
    // The folder of the encoder, where it has one of its own.
    let folder = modules.as_ref().and_then(transformer_folder);
    let model_files = inside(&available, folder);
    check_contents(id, &model_files).map_err(Failure::Refused)?;
    let in_folder =
        |name: &str| folder.map_or(name.to_owned(), |folder| format!("{folder}/{name}"));
    for name in first_files(&model_files) {
        snapshot.get(&in_folder(name))?;
    }
    if folder.is_some() {
        const SETTINGS: &str = "config_sentence_transformers.json";
        if available.contains(SETTINGS) {
            snapshot.get(SETTINGS)?;
        }
    }
    if let Some(index_file) = weights(&model_files).filter(|name| name.ends_with(".json")) {
        let index =
            read_json(&snapshot.directory.join(in_folder(index_file))).map_err(Failure::Refused)?;
        for shard in shards(&index) {
            if !model_files.contains(&shard) {
                return Err(Failure::Refused(hub_error(
                    id,
                    format!("{index_file} names the shard `{shard}`, which the repository lacks"),
                )));
            }
            snapshot.get(&in_folder(&shard))?;
        }
    }
    if let Some(modules) = &modules {
        for name in module_files(modules, &available) {
            snapshot.get(&name)?;
        }
    }
    cache::entry(cache_directory, id, &id.revision)
        .create_ref(&info.sha)
        .map_err(|error| {
            Failure::Refused(CheckpointError::io(
                "cannot write the cache",
                cache_directory,
                error,
            ))
        })?;
    Ok(snapshot.directory)
}

/// One commit of a repository in the cache.
struct Snapshot<'a> {
    settings: &'a HubSettings,
    cache_directory: &'a Path,
    id: &'a HubId,
    repository: ApiRepo,
    directory: PathBuf,
}

impl Snapshot<'_> {
    /// Downloads `name` unless it is there.
    fn get(&self, name: &str) -> Result<(), Failure> {
        if self.directory.join(name).exists() {
            return Ok(());
        }
        let path = self.repository.download(name).map_err(|error| {
            failure(
                self.settings,
                self.cache_directory,
                self.id,
                Some(name),
                error,
            )
        })?;
        if path == self.directory.join(name) {
            return Ok(());
        }
        Err(Failure::Refused(
            hub_error(
                self.id,
                format!("`{name}` was sent from another commit than the one asked for"),
            )
            .hint("the Hub or the mirror is being updated: try again"),
        ))
    }
}

/// Errors unless there are a config.json and weights, or an adapter, whose base is somewhere else.
fn check_contents(id: &HubId, available: &BTreeSet<String>) -> Result<(), CheckpointError> {
    let lacks = |what: &str, found: String| {
        hub_error(
            id,
            format!(
                "the repository has no weights that fewbit reads: expected {what}, found {found}"
            ),
        )
    };
    if !available.contains(CONFIG_FILE) && available.contains(ADAPTER_CONFIG_FILE) {
        return Ok(());
    }
    if !available.contains(CONFIG_FILE) {
        return Err(hub_error(
            id,
            format!(
                "not a model: expected {CONFIG_FILE} in the repository, found none of that name"
            ),
        ));
    }
    if weights(available).is_some() {
        return Ok(());
    }
    let expected = "model.safetensors or pytorch_model.bin";
    let of_kind = |ending: &str| {
        available.iter().find(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|extension| extension == ending)
        })
    };
    Err(
        match (of_kind("bin"), of_kind("gguf"), of_kind("safetensors")) {
            (_, _, Some(other)) => lacks(expected, format!("`{other}`")),
            (Some(pickle), ..) => lacks(expected, format!("only the pickle file `{pickle}`")),
            (None, Some(gguf), None) => lacks(expected, format!("only the GGUF file `{gguf}`")),
            (None, None, None) => lacks(expected, "none".to_owned()),
        },
    )
}

fn hub_error(id: &HubId, message: impl Into<String>) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::Hub, message).in_file(id.to_string())
}

/// Says in words what a request failed with. `name` is the file that was asked for, none for the repository itself.
fn failure(
    settings: &HubSettings,
    cache_directory: &Path,
    id: &HubId,
    name: Option<&str>,
    error: ApiError,
) -> Failure {
    let what = name.map_or_else(
        || format!("model `{id}`"),
        |name| format!("`{name}` of `{id}`"),
    );
    let endpoint = &settings.endpoint;
    let refused = |message: String| {
        CheckpointError::new(CheckpointErrorKind::Hub, message).in_file(id.to_string())
    };
    let innermost = match &error {
        ApiError::TooManyRetries(inner) => inner,
        other => other,
    };
    match status_of(innermost) {
        // The Hub answers 401 for a repository that does not exist, lest its name be told.
        Some(status @ (401 | 403)) => {
            let message = format!(
                "no such directory, and {endpoint} refuses access to {what} (HTTP {status})"
            );
            let hint = if settings.token.is_some() {
                "check the name; if the model is private or gated, the token must belong to an account with access to it"
            } else {
                "check the name; if the model is private or gated, set HF_TOKEN to an access token"
            };
            Failure::Refused(refused(message).hint(hint).caused_by(error))
        }
        Some(404) => {
            let message = format!("no such directory, and {endpoint} has no {what} (HTTP 404)");
            Failure::Refused(
                refused(message)
                    .hint("check the name and the revision")
                    .caused_by(error),
            )
        }
        Some(status) if status < 500 && status != 429 => Failure::Refused(
            refused(format!("{endpoint} does not give {what}: HTTP {status}")).caused_by(error),
        ),
        _ => match innermost {
            ApiError::IoError(_) | ApiError::LockAcquisition(_) | ApiError::InvalidResume => {
                let message = format!(
                    "cannot store {what} in the cache {}: {innermost}",
                    cache_directory.display()
                );
                Failure::Refused(refused(message).caused_by(error))
            }
            _ => {
                let message = format!(
                    "no such directory, and {endpoint} cannot be asked for {what}: {innermost}"
                );
                let hint = "check the network; HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 uses the cache only";
                Failure::Unreachable(refused(message).hint(hint).caused_by(error))
            }
        },
    }
}

/// The HTTP status of a failed request.
fn status_of(error: &ApiError) -> Option<u16> {
    let ApiError::RequestError(error) = error else {
        return None;
    };
    // hf-hub does not re-export ureq's error, whose text is its only accessible part here.
    let text = error.to_string();
    text.strip_prefix("http status: ")
        .and_then(|status| status.trim().parse().ok())
}
