//! Where an output goes: links, what is there already, and errors that name the output and never a temporary path.
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
