//! Downloading a repository's files into the cache.
use super::cache;
use super::files::{first_files, is_inside, module_files, shards};
use super::id::HubId;
use super::settings::HubSettings;
use crate::checkpoint::CONFIG_FILE;
use crate::shards::{INDEX_FILE, SINGLE_FILE, read_json};
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
pub(super) fn fetch(settings: &HubSettings, id: &HubId) -> Result<PathBuf, Failure> {
    // Not `new`, which panics where there is no home directory.
    let builder = ApiBuilder::from_cache(Cache::new(settings.cache_directory.clone()))
        .with_endpoint(settings.endpoint.clone())
        .with_token(settings.token.clone())
        .with_progress(settings.progress)
        .with_retries(2)
        .with_user_agent("fewbit", env!("CARGO_PKG_VERSION"));
    let api = builder
        .build()
        .map_err(|error| failure(settings, id, None, error))?;
    let at = |revision: &str| {
        Repo::with_revision(id.repository.clone(), RepoType::Model, revision.to_owned())
    };
    let info = api
        .repo(at(&id.revision))
        .info()
        .map_err(|error| failure(settings, id, None, error))?;
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
    check_contents(id, &available).map_err(Failure::Refused)?;

    // Pinned: the files of one commit, even if the branch moves on meanwhile.
    let snapshot = Snapshot {
        settings,
        id,
        repository: api.repo(at(&info.sha)),
        directory: cache::entry(settings, id, &info.sha).pointer_path(&info.sha),
    };
    for name in first_files(&available) {
        snapshot.get(name)?;
    }
    if !available.contains(SINGLE_FILE) {
        let index = read_json(&snapshot.directory.join(INDEX_FILE)).map_err(Failure::Refused)?;
        for shard in shards(&index) {
            if !available.contains(&shard) {
                return Err(Failure::Refused(hub_error(
                    id,
                    format!("{INDEX_FILE} names the shard `{shard}`, which the repository lacks"),
                )));
            }
            snapshot.get(&shard)?;
        }
    }
    if available.contains("modules.json") {
        let modules =
            read_json(&snapshot.directory.join("modules.json")).map_err(Failure::Refused)?;
        for name in module_files(&modules, &available) {
            snapshot.get(&name)?;
        }
    }
    cache::entry(settings, id, &id.revision)
        .create_ref(&info.sha)
        .map_err(|error| {
            Failure::Refused(CheckpointError::io(
                "cannot write the cache",
                &settings.cache_directory,
                error,
            ))
        })?;
    Ok(snapshot.directory)
}

/// One commit of a repository in the cache.
struct Snapshot<'a> {
    settings: &'a HubSettings,
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
        let path = self
            .repository
            .download(name)
            .map_err(|error| failure(self.settings, self.id, Some(name), error))?;
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

/// Errors unless there are a config.json and safetensors weights.
fn check_contents(id: &HubId, available: &BTreeSet<String>) -> Result<(), CheckpointError> {
    let lacks = |what: &str, found: String| {
        hub_error(
            id,
            format!(
                "the repository has no weights that fewbit reads: expected {what}, found {found}"
            ),
        )
    };
    if !available.contains(CONFIG_FILE) {
        return Err(hub_error(
            id,
            format!(
                "not a model: expected {CONFIG_FILE} in the repository, found none of that name"
            ),
        ));
    }
    if available.contains(SINGLE_FILE) || available.contains(INDEX_FILE) {
        return Ok(());
    }
    let expected = "model.safetensors";
    let of_kind = |ending: &str| {
        available.iter().find(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|extension| extension == ending)
        })
    };
    Err(match (of_kind("bin"), of_kind("gguf"), of_kind("safetensors")) {
        (_, _, Some(other)) => lacks(expected, format!("`{other}`")),
        (Some(pickle), ..) => lacks(expected, format!("only the pickle file `{pickle}`")).hint(
            "convert it with transformers: AutoModel.from_pretrained(ID).save_pretrained(OUT), which writes safetensors; \
             some repositories have it at the revision `refs/pr/1`",
        ),
        (None, Some(gguf), None) => lacks(expected, format!("only the GGUF file `{gguf}`")),
        (None, None, None) => lacks(expected, "none".to_owned()),
    })
}

fn hub_error(id: &HubId, message: impl Into<String>) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::Hub, message).in_file(id.to_string())
}

/// Says in words what a request failed with. `name` is the file that was asked for, none for the repository itself.
fn failure(settings: &HubSettings, id: &HubId, name: Option<&str>, error: ApiError) -> Failure {
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
                    settings.cache_directory.display()
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
