//! Directories that last as long as a piece of work.

use crate::leftovers::{self, LOCK_FILE, RANDOM_LETTERS};
use crate::ownership;
use crate::unfinished::{CriticalSection, Unfinished, UnfinishedPath, critical_section};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::path::{Path, PathBuf};

/// What a temporary directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Models that are compared and not kept.
    Compare,
    /// Embeddings on their way from a measuring process.
    Measure,
    /// The small files of a model that is read from a GGUF file.
    Gguf,
}

impl Purpose {
    pub(crate) const ALL: [Purpose; 3] = [Purpose::Compare, Purpose::Measure, Purpose::Gguf];

    /// What the names of such directories begin with.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Purpose::Compare => "fewbit-compare-",
            Purpose::Measure => "fewbit-measure-",
            Purpose::Gguf => "fewbit-gguf-",
        }
    }
}

/// A directory of this process alone, removed when this value is dropped, when [`end_process`](crate::unfinished::end_process) ends
/// the process, or by a later run when the process is killed.
///
/// ```
/// use fewbit_checkpoint::temporary_directory::{Purpose, TemporaryDirectory};
///
/// let directory = TemporaryDirectory::new(Purpose::Measure)?;
/// let path = directory.path().to_owned();
/// std::fs::write(path.join("embeddings"), "1 2 3")?;
/// drop(directory);
/// assert!(!path.exists());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct TemporaryDirectory {
    path: PathBuf,
    /// Locked as long as this process lives; None once the directory is removed.
    lock: Option<File>,
    unfinished: Unfinished,
}

impl TemporaryDirectory {
    /// A new one in the system's directory of temporary files. What killed processes left there is removed.
    ///
    /// # Errors
    /// It cannot be made there.
    pub fn new(purpose: Purpose) -> io::Result<Self> {
        let parent = std::env::temp_dir();
        leftovers::remove_from(&parent);
        Self::create_in(&mut critical_section(), &parent, purpose.prefix().as_ref())
    }

    /// A new one in `parent` whose name begins with `prefix`.
    pub(crate) fn create_in(
        section: &mut CriticalSection<'_>,
        parent: &Path,
        prefix: &OsStr,
    ) -> io::Result<Self> {
        let made = tempfile::Builder::new()
            .prefix(prefix)
            .rand_bytes(RANDOM_LETTERS)
            .make_in(parent, create_locked)?;
        let (lock, path) = made.into_parts();
        let path = path.keep()?;
        Ok(TemporaryDirectory {
            unfinished: section.register(UnfinishedPath::Directory(path.clone())),
            lock: Some(lock),
            path,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it; what cannot be removed is left to a later run.
    pub(crate) fn remove(&mut self, section: &mut CriticalSection<'_>) -> io::Result<()> {
        let Some(lock) = self.lock.take() else {
            return Ok(());
        };
        section.finished(&self.unfinished);
        leftovers::remove_directory(&self.path, Some(lock))
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        let _ = self.remove(&mut critical_section());
    }
}

/// Makes the directory `path`, private to this user, and the locked file in it.
fn create_locked(path: &Path) -> io::Result<File> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    ownership::create_locked(&path.join(LOCK_FILE)).map_err(|error| match error.kind() {
        // Another process took the directory for a leftover before there was a lock.
        io::ErrorKind::NotFound => io::ErrorKind::AlreadyExists.into(),
        _ => {
            let _ = fs::remove_dir(path);
            error
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_directory_is_no_leftover() {
        let scratch = tempfile::tempdir().unwrap();
        let create = || {
            let mut section = critical_section();
            TemporaryDirectory::create_in(&mut section, scratch.path(), "fewbit-measure-".as_ref())
                .unwrap()
        };
        let directory = create();
        fs::write(directory.path().join("file"), "").unwrap();
        assert!(leftovers::find(scratch.path()).is_empty());
        let path = directory.path().to_owned();
        drop(directory);
        assert!(!path.exists());
        // What a killed process leaves: all of it, without a lock.
        let mut killed = create();
        drop(killed.lock.take());
        assert_eq!(leftovers::find(scratch.path())[0].path(), killed.path());
        leftovers::remove_from(scratch.path());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_look_into_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = TemporaryDirectory::new(Purpose::Compare).unwrap();
        let mode = fs::metadata(directory.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
