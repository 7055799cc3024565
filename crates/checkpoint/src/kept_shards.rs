//! Whole shards of an output that is not finished: kept beside it, so that an interrupted run can go on.
//!
//! They lie in a directory with `.partial` after the name of the output: each shard under its own name, and beside it a record that its writer gave
//! with it, which is there before the shard is. `run.json` says what the shards depend on. The directory appears with the first shard in one step,
//! and goes when the output has its place. As long as a process works on it, it has the lock file locked.
use crate::leftovers::LOCK_FILE;
use crate::ownership;
use crate::shards::read_json;
use crate::staging::sync_directory;
use crate::tensor_file::TensorLayout;
use crate::unfinished::{CriticalSection, Unfinished, UnfinishedPath, critical_section};
use crate::{CheckpointError, CheckpointErrorKind};
use serde_json::Value;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// What the shards depend on.
const RUN_FILE: &str = "run.json";
/// Name of the directory where it is made and where it is removed.
const SCRATCH: &str = "kept";

/// Where what an interrupted run has finished lies: beside its output `out`, with `.partial` after its name.
///
/// ```
/// use fewbit_checkpoint::partial_path;
/// use std::path::Path;
///
/// assert_eq!(partial_path(Path::new("folder/model/")), Path::new("folder/model.partial"));
/// ```
pub fn partial_path(out: &Path) -> PathBuf {
    path_beside(out, ".partial")
}

/// The path of an output directory with `end` after its name.
pub fn path_beside(out: &Path, end: &str) -> PathBuf {
    let mut name = out.components().as_path().as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// The directory of whole shards of one output.
#[derive(Debug)]
pub(crate) struct KeptShards {
    directory: PathBuf,
    run: Value,
    /// Locked as long as this process works on the directory; none as long as there is no directory.
    lock: Option<(File, Unfinished)>,
}

impl KeptShards {
    /// Those of the output whose directory this is, in a run that depends on `run`. With `resume` those that are there already are kept.
    ///
    /// # Errors
    /// There are some, and nobody said `resume`; they are of another run; another process works on them.
    pub(crate) fn open(
        directory: PathBuf,
        run: Value,
        resume: bool,
    ) -> Result<Self, CheckpointError> {
        let mut kept = KeptShards {
            directory,
            run,
            lock: None,
        };
        if !kept.directory.exists() {
            return Ok(kept);
        }
        if !resume {
            return Err(CheckpointError::new(
                CheckpointErrorKind::OutputExists,
                "expected nothing, found what was finished of a run that was interrupted",
            )
            .in_file(&kept.directory)
            .hint("go on with --resume, or remove the directory to start again"));
        }
        let run_file = kept.directory.join(RUN_FILE);
        if !run_file.exists() || read_json(&run_file)? != kept.run {
            return Err(CheckpointError::new(
                CheckpointErrorKind::OutputExists,
                "expected shards of the same source, recipe, size of shards and version of fewbit, found those of another run",
            )
            .in_file(&kept.directory)
            .hint("give the flags of the run that was interrupted, or remove the directory to start again"));
        }
        let lock = lock(&kept.directory.join(LOCK_FILE)).map_err(|error| {
            let error = match error {
                TryLockError::WouldBlock => CheckpointError::new(
                    CheckpointErrorKind::OutputExists,
                    "expected the shards of a run that was interrupted, found one that another process works on",
                )
                .hint("wait for it, or write to another directory"),
                TryLockError::Error(error) => {
                    CheckpointError::io("cannot lock", &kept.directory, error)
                }
            };
            error.in_file(&kept.directory)
        })?;
        kept.register(lock);
        Ok(kept)
    }

    fn register(&mut self, lock: File) {
        let path = UnfinishedPath::Kept(self.directory.clone());
        self.lock = Some((lock, critical_section().register(path)));
    }

    /// The directory, if there is a whole shard in it.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.lock.as_ref().map(|_| &*self.directory)
    }

    /// The record of the shard `name`, if that is there and has the bytes that `layout` has.
    pub(crate) fn record(&self, name: &str, layout: &TensorLayout) -> Option<Value> {
        let directory = self.directory()?;
        let path = directory.join(name);
        if !path.exists() {
            return None;
        }
        let record = read_json(&directory.join(record_name(name)));
        match record {
            Ok(record) if has_layout(&path, layout) => Some(record),
            _ => {
                tracing::warn!("{}: damaged: it is written again", path.display());
                None
            }
        }
    }

    /// Takes the whole and synced file `shard` into the directory, as `name`. Until there is a directory, it is made in `scratch`, which is on the
    /// same file system.
    pub(crate) fn keep(
        &mut self,
        shard: &Path,
        name: &str,
        record: &Value,
        scratch: &Path,
    ) -> Result<(), CheckpointError> {
        if self.lock.is_none() {
            return self.keep_first(shard, name, record, scratch);
        }
        let failed = self.failed();
        write_synced(&self.directory.join(record_name(name)), record).map_err(&failed)?;
        let section = critical_section();
        fs::rename(shard, self.directory.join(name)).map_err(&failed)?;
        drop(section);
        sync_directory(&self.directory);
        Ok(())
    }

    fn keep_first(
        &mut self,
        shard: &Path,
        name: &str,
        record: &Value,
        scratch: &Path,
    ) -> Result<(), CheckpointError> {
        let failed = self.failed();
        let section = critical_section();
        let made = scratch.join(SCRATCH);
        fs::create_dir(&made).map_err(&failed)?;
        let lock = ownership::create_locked(&made.join(LOCK_FILE)).map_err(&failed)?;
        write_synced(&made.join(RUN_FILE), &self.run).map_err(&failed)?;
        write_synced(&made.join(record_name(name)), record).map_err(&failed)?;
        fs::rename(shard, made.join(name)).map_err(&failed)?;
        sync_directory(&made);
        // Replaces an empty directory at most.
        fs::rename(&made, &self.directory).map_err(&failed)?;
        drop(section);
        if let Some(parent) = self.directory.parent() {
            sync_directory(parent);
        }
        drop(failed);
        self.register(lock);
        Ok(())
    }

    fn failed(&self) -> impl Fn(std::io::Error) -> CheckpointError + use<> {
        let directory = self.directory.clone();
        move |error| CheckpointError::io("cannot keep a whole shard", &directory, error)
    }

    /// Gives the shard `name` a second name in `model`; where the file system has one name for a file, that is its only one.
    pub(crate) fn put_in_place(&self, name: &str, model: &Path) -> Result<(), CheckpointError> {
        let (from, to) = (self.directory.join(name), model.join(name));
        let _section = critical_section();
        fs::hard_link(&from, &to)
            .or_else(|_| fs::rename(&from, &to))
            .map_err(self.failed())
    }

    /// Moves the directory into `scratch`, which is removed with it. What is not of this program stays where it is.
    pub(crate) fn move_into(&mut self, section: &mut CriticalSection<'_>, scratch: &Path) {
        let Some((lock, unfinished)) = self.lock.take() else {
            return;
        };
        section.finished(&unfinished);
        // Not every system renames a directory with an open file in it.
        drop(lock);
        let only_ours = fs::read_dir(&self.directory).is_ok_and(|entries| {
            let mut names = entries.map(|entry| entry.map(|entry| entry.file_name()));
            names.all(|name| name.is_ok_and(|name| name.to_str().is_some_and(is_ours)))
        });
        if !only_ours || fs::rename(&self.directory, scratch.join(SCRATCH)).is_err() {
            tracing::warn!(
                "{}: not needed any more, and not removed",
                self.directory.display()
            );
        }
    }
}

impl Drop for KeptShards {
    fn drop(&mut self) {
        // The shards stay.
        if let Some((_, unfinished)) = self.lock.take() {
            critical_section().finished(&unfinished);
        }
    }
}

fn record_name(shard: &str) -> String {
    format!("{shard}.json")
}

/// Whether this program gives a file of the directory such a name.
fn is_ours(name: &str) -> bool {
    let is_of_a_shard = || {
        let shard = name.strip_suffix(".json").unwrap_or(name);
        shard.starts_with("model-") && shard.ends_with(".safetensors")
    };
    [LOCK_FILE, RUN_FILE].contains(&name) || is_of_a_shard()
}

/// Locks the file `path`, as far as the file system has locks.
fn lock(path: &Path) -> Result<File, TryLockError> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false);
    let file = file.open(path).map_err(TryLockError::Error)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Whether the file has the length and the first bytes of the layout. The rest was synced before it got its name.
fn has_layout(path: &Path, layout: &TensorLayout) -> bool {
    let mut begin = vec![0; layout.header().len()];
    let read = File::open(path).and_then(|mut file| {
        file.read_exact(&mut begin)?;
        Ok(file.metadata()?.len())
    });
    read.is_ok_and(|length| length == layout.total_bytes()) && begin == layout.header()
}

fn write_synced(path: &Path, value: &Value) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(format!("{value:#}\n").as_bytes())?;
    file.sync_all()
}
