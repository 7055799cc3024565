//! A hidden sibling directory that becomes the output in one rename.
use crate::checkpoint::CONFIG_FILE;
use crate::unfinished::Unfinished;
use crate::{CheckpointError, CheckpointErrorKind};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A temporary directory beside `out`, on the same file system. Dropped uncommitted, it is removed with everything in it, and
/// so are the parents of `out` that were created for it.
#[derive(Debug)]
pub(crate) struct Staging {
    // Dropped before `created_parents`, which must be empty to be removed.
    directory: Option<TempDir>,
    _unfinished: Unfinished,
    out: PathBuf,
    replace: bool,
    created_parents: CreatedParents,
}

/// Directories made on the way to the output, outermost first.
#[derive(Debug)]
struct CreatedParents(Vec<PathBuf>);

impl Drop for CreatedParents {
    fn drop(&mut self) {
        for parent in self.0.iter().rev() {
            // Somebody else may have put something into it.
            let _ = fs::remove_dir(parent);
        }
    }
}

impl Staging {
    /// Prepares to write `out`. Errors if it is a file, or a directory with something in it and `replace` is not set.
    pub(crate) fn create(out: &Path, replace: bool) -> Result<Self, CheckpointError> {
        let out = resolve(out)?;
        check_free(&out, replace)?;
        let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else {
            return Err(CheckpointError::new(
                CheckpointErrorKind::OutputExists,
                "cannot be an output directory: expected a path with a name",
            )
            .in_file(out));
        };
        let created_parents = create_parents(parent)?;
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".{}.fewbit-partial-", name.to_string_lossy());
        builder.prefix(&prefix);
        // An output directory is as readable as any other that the user makes (tempfile's own default is private).
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let directory = builder.tempdir_in(parent).map_err(|error| {
            CheckpointError::io("cannot create a temporary directory", parent, error)
        })?;
        Ok(Staging {
            _unfinished: Unfinished::register(directory.path()),
            directory: Some(directory),
            out,
            replace,
            created_parents,
        })
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        self.directory.as_ref().map_or(&self.out, TempDir::path)
    }

    /// The directory that it will become, absolute.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// Renames the directory to `out`, replacing what is there if that was asked for.
    pub(crate) fn commit(mut self) -> Result<PathBuf, CheckpointError> {
        let Some(directory) = self.directory.take() else {
            return Ok(self.out.clone());
        };
        let old = self.set_old_aside(directory.path())?;
        if let Err(error) = fs::rename(directory.path(), &self.out) {
            if let Some(old) = &old {
                // The old directory comes back; if even that fails, it is still there under its other name.
                let _ = fs::rename(old, &self.out);
            }
            return Err(match error.kind() {
                io::ErrorKind::DirectoryNotEmpty
                | io::ErrorKind::AlreadyExists
                | io::ErrorKind::NotADirectory => {
                    exists(&self.out, "something that was created in the meantime").caused_by(error)
                }
                _ => CheckpointError::io(
                    "cannot rename the finished directory to its name",
                    &self.out,
                    error,
                ),
            });
        }
        // Renamed: nothing is left for the guard to remove.
        let _ = directory.keep();
        self.created_parents.0.clear();
        if let Some(parent) = self.out.parent() {
            sync_directory(parent);
        }
        if let Some(old) = old {
            let _unfinished = Unfinished::register(&old);
            fs::remove_dir_all(&old).map_err(|error| {
                CheckpointError::io(
                    "written, but the replaced directory cannot be removed",
                    &old,
                    error,
                )
            })?;
        }
        Ok(self.out.clone())
    }

    /// Moves an existing output out of the way; returns where it went.
    fn set_old_aside(&self, staged: &Path) -> Result<Option<PathBuf>, CheckpointError> {
        check_free(&self.out, self.replace)?;
        if !self.out.exists() {
            return Ok(None);
        }
        if is_empty_directory(&self.out) {
            // rename(2) replaces an empty directory, other systems do not.
            fs::remove_dir(&self.out).map_err(|error| {
                CheckpointError::io("cannot replace the empty directory", &self.out, error)
                    .hint("if it is a mount point, name a directory inside it")
            })?;
            return Ok(None);
        }
        // The staged name is unique, and so is this one.
        let mut name = staged.file_name().unwrap_or_default().to_owned();
        name.push("-old");
        let old = staged.with_file_name(name);
        fs::rename(&self.out, &old).map_err(|error| {
            CheckpointError::io("cannot move the old directory aside", &self.out, error)
                .hint("if it is a mount point, name a directory inside it")
        })?;
        Ok(Some(old))
    }
}

/// `out` as an absolute path, with links followed if it exists.
fn resolve(out: &Path) -> Result<PathBuf, CheckpointError> {
    match out.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(out)
            .map_err(|error| CheckpointError::io("not a usable path", out, error)),
        Err(error) => Err(CheckpointError::io("cannot write there", out, error)),
    }
}

fn is_current_directory(path: &Path) -> bool {
    std::env::current_dir().is_ok_and(|current| current == path)
}

fn is_empty_directory(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn check_free(out: &Path, replace: bool) -> Result<(), CheckpointError> {
    match fs::metadata(out) {
        Err(_) => Ok(()),
        Ok(metadata) if !metadata.is_dir() => {
            Err(exists(out, "a file").hint("name another output directory"))
        }
        Ok(_) if is_current_directory(out) => Err(exists(out, "the current directory")
            .hint("name a directory inside it: a finished output takes the place of its path")),
        Ok(_) if is_empty_directory(out) => Ok(()),
        // Whatever else is in it goes too; a directory that was never a model is more likely a slip.
        Ok(_) if replace && !out.join(CONFIG_FILE).is_file() => Err(CheckpointError::new(
            CheckpointErrorKind::OutputExists,
            format!(
                "cannot be replaced: expected a model directory, found one without {CONFIG_FILE}"
            ),
        )
        .in_file(out)
        .hint("remove it yourself, or name another output directory")),
        Ok(_) if replace => Ok(()),
        Ok(_) => Err(exists(out, "a directory with files in it")
            .hint("name another output directory, or replace this one with --force")),
    }
}

fn exists(out: &Path, found: &str) -> CheckpointError {
    CheckpointError::new(
        CheckpointErrorKind::OutputExists,
        format!("output exists: expected no such path or an empty directory, found {found}"),
    )
    .in_file(out)
}

fn create_parents(parent: &Path) -> Result<CreatedParents, CheckpointError> {
    let missing: Vec<&Path> = parent
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    let mut created = CreatedParents(Vec::new());
    for directory in missing.into_iter().rev() {
        match fs::create_dir(directory) {
            Ok(()) => created.0.push(directory.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(CheckpointError::io(
                    "cannot create the directory",
                    directory,
                    error,
                ));
            }
        }
    }
    Ok(created)
}

/// Makes names in `directory` durable. Not every system can open a directory, and the files themselves are already synced.
pub(crate) fn sync_directory(directory: &Path) {
    if let Ok(directory) = fs::File::open(directory) {
        let _ = directory.sync_all();
    }
}
