//! Where an output goes: links, what is there already, and errors that name the output and never a temporary path.
use crate::checkpoint::CONFIG_FILE;
use crate::disk_space::write_error;
use crate::{CheckpointError, CheckpointErrorKind};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// `out` as an absolute path, with links followed if it exists.
///
/// # Errors
/// It is a link to nothing: whether the link is to be replaced or its target made, only the user knows.
pub(crate) fn resolve(out: &Path) -> Result<PathBuf, CheckpointError> {
    match out.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Ok(target) = fs::read_link(out) {
                return Err(CheckpointError::new(
                    CheckpointErrorKind::OutputExists,
                    format!(
                        "cannot be an output: expected no such path, found a link to {}, which does not exist",
                        target.display()
                    ),
                )
                .in_file(out)
                .hint("remove the link, or name the path that it should lead to"));
            }
            std::path::absolute(out)
                .map_err(|error| CheckpointError::io("not a usable path", out, error))
        }
        Err(error) => Err(CheckpointError::io("cannot write there", out, error)),
    }
}

/// What is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    File,
    /// A model directory.
    Directory,
}

impl OutputKind {
    /// Errors if there is something at `path` that the output must not take the place of; the error calls it `named`. With `replace`
    /// the output may take the place of its like.
    pub(crate) fn check_free(
        self,
        named: &Path,
        path: &Path,
        replace: bool,
    ) -> Result<(), CheckpointError> {
        let Ok(metadata) = fs::metadata(path) else {
            return Ok(());
        };
        let refuse = |message: String, hint: &str| {
            let error = CheckpointError::new(CheckpointErrorKind::OutputExists, message);
            Err(error.in_file(named).hint(hint))
        };
        let exists = |found: &str, hint: &str| Err(self.exists(named, found).hint(hint));
        match self {
            Self::File if metadata.is_dir() => refuse(
                "expected a file to write, found a directory".to_owned(),
                "name a file in it",
            ),
            Self::File if !metadata.is_file() => {
                exists("a device, pipe or socket", "name another output file")
            }
            Self::Directory if !metadata.is_dir() => {
                exists("a file", "name another output directory")
            }
            Self::Directory if is_current_directory(path) => exists(
                "the current directory",
                "name a directory inside it: a finished output takes the place of its path",
            ),
            Self::Directory if is_empty_directory(path) => Ok(()),
            // Whatever else is in it goes too; a directory that was never a model is more likely a slip.
            Self::Directory if replace && !path.join(CONFIG_FILE).is_file() => refuse(
                format!(
                    "cannot be replaced: expected a model directory, found one without {CONFIG_FILE}"
                ),
                "remove it yourself, or name another output directory",
            ),
            _ if replace => Ok(()),
            Self::File => exists(
                "a file",
                "name another output file, or replace this one with --force",
            ),
            Self::Directory => exists(
                "a directory with files in it",
                "name another output directory, or replace this one with --force",
            ),
        }
    }

    /// The error where there is something at `named` already: `found`, in words.
    pub(crate) fn exists(self, named: &Path, found: &str) -> CheckpointError {
        let expected = match self {
            Self::File => "no such path",
            Self::Directory => "no such path or an empty directory",
        };
        CheckpointError::new(
            CheckpointErrorKind::OutputExists,
            format!("output exists: expected {expected}, found {found}"),
        )
        .in_file(named)
    }
}

fn is_current_directory(path: &Path) -> bool {
    std::env::current_dir().is_ok_and(|current| current == path)
}

pub(crate) fn is_empty_directory(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// The directory that `path` lies in.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// The error where nothing can be made in `folder` for the output `out`.
pub(crate) fn cannot_create(out: &Path, folder: &Path, error: io::Error) -> CheckpointError {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("you need the right to make files in {}", folder.display())
        }
        io::ErrorKind::NotFound => format!("create the directory {} first", folder.display()),
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("{} is read-only: write to another place", folder.display())
        }
        _ => return write_error(out, folder, 1, error),
    };
    CheckpointError::io("cannot write", out, error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_a_dangling_one_refused() {
        use std::os::unix::fs::symlink;
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().canonicalize().unwrap();
        let link = directory.join("link");
        symlink("target", &link).unwrap();
        let text = resolve(&link).unwrap_err().to_string();
        insta::assert_snapshot!(text.replace(&directory.display().to_string(), "DIR"), @r"
        DIR/link: cannot be an output: expected no such path, found a link to target, which does not exist
          hint: remove the link, or name the path that it should lead to
        ");
        fs::write(directory.join("target"), "").unwrap();
        assert_eq!(resolve(&link).unwrap(), directory.join("target"));
        assert_eq!(
            resolve(&directory.join("new")).unwrap(),
            directory.join("new")
        );
    }

    #[test]
    fn errors_say_write_and_what_to_do() {
        let text = |kind: io::ErrorKind| {
            cannot_create(Path::new("out/e.npy"), Path::new("out"), kind.into()).to_string()
        };
        insta::assert_snapshot!(text(io::ErrorKind::PermissionDenied), @r"
        out/e.npy: cannot write: permission denied
          hint: you need the right to make files in out
        ");
        insta::assert_snapshot!(text(io::ErrorKind::NotFound), @r"
        out/e.npy: cannot write: entity not found
          hint: create the directory out first
        ");
        insta::assert_snapshot!(text(io::ErrorKind::ReadOnlyFilesystem), @r"
        out/e.npy: cannot write: read-only filesystem or storage medium
          hint: out is read-only: write to another place
        ");
        assert!(text(io::ErrorKind::StorageFull).contains("disk full: "));
    }
}
