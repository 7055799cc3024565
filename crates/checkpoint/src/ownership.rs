//! Whether the process that made a temporary path still lives: as long as it does, it holds an advisory lock on a file.
//!
//! The system gives a lock back when its process ends, however that happens. A number of a process would be reused, and says nothing
//! in another container; a lock is known to all processes, and on network file systems to all machines, unless these are mounted
//! with locks that stay on one machine.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::Path;

/// Creates the file `path` and locks it. [`io::ErrorKind::AlreadyExists`] also where another process took it for a leftover before
/// it was locked: try another name.
///
/// On a file system without locks the file is not locked, and nobody ever finds that it belongs to no process.
pub(crate) fn create_locked(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(()) | Err(fs::TryLockError::Error(_)) if is_at(&file, path) => Ok(file),
        _ => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// Locks the file `path` if it is a regular file of this user that no living process has locked. The lock lasts as long as the value.
pub(crate) fn take(path: &Path) -> Option<File> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() || !is_ours(&metadata) {
        return None;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        // Whatever takes the place of the file meanwhile is not followed and not waited for.
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    }
    let file = options.open(path).ok()?;
    file.try_lock().ok()?;
    // Its owner may have renamed it before it gave the lock back.
    is_at(&file, path).then_some(file)
}

/// Whether `metadata` is of something that this user owns.
pub(crate) fn is_ours(metadata: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        metadata.uid() == rustix::process::geteuid().as_raw()
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        true
    }
}

/// Whether `path` is still the name of `file`.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (open.dev(), open.ino()) == (named.dev(), named.ino())
    }
    #[cfg(not(unix))]
    {
        open.is_file() && named.is_file()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_taken_once_and_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert!(take(&path).is_none());
        let owner = create_locked(&path).unwrap();
        assert_eq!(
            create_locked(&path).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert!(take(&path).is_none());
        drop(owner);
        let taken = take(&path).unwrap();
        assert!(take(&path).is_none());
        drop(taken);
        assert!(take(&path).is_some());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("directory")).unwrap();
        fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        assert!(take(&path("directory")).is_none());
        assert!(take(&path("link")).is_none());
        assert!(take(&path("file")).is_some());
    }

    /// The owner locks the file, renames it and gives the lock back, all between two steps of another process that opened it.
    #[test]
    fn a_renamed_file_is_not_at_its_old_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let file = create_locked(&path).unwrap();
        assert!(is_at(&file, &path));
        fs::rename(&path, directory.path().join("finished")).unwrap();
        assert!(!is_at(&file, &path));
        fs::write(&path, "another").unwrap();
        #[cfg(unix)]
        assert!(!is_at(&file, &path));
    }
}
