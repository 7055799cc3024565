//! Free space, and the error for a disk that has too little of it.
use crate::{CheckpointError, CheckpointErrorKind};
use std::fs::File;
use std::io;
use std::path::Path;

/// Bytes that an ordinary user can still write to the file system of `path`; none where that cannot be told.
pub(crate) fn available_bytes(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let statistics = rustix::fs::statvfs(path).ok()?;
        // Quotas and some network file systems report 0 blocks of everything: that says nothing.
        (statistics.f_blocks > 0).then(|| statistics.f_bavail.saturating_mul(statistics.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Sets the length of an empty file and, where the file system can, reserves its blocks, so that a full disk shows now.
pub(crate) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if bytes > 0 {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(()),
            // The file system cannot reserve: writing finds out.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    file.set_len(bytes)
}

/// The error for too little space: `needed` bytes for `path`, `available` if known.
pub(crate) fn disk_full(path: &Path, needed: u64, available: Option<u64>) -> CheckpointError {
    let found = available.map_or_else(
        || "less".to_owned(),
        |bytes| format!("{bytes} bytes available"),
    );
    CheckpointError::new(
        CheckpointErrorKind::DiskFull,
        format!("disk full: expected {needed} bytes of free space, found {found}"),
    )
    .in_file(path)
    .hint("free some space, or write to another disk; nothing was left behind")
}

/// The error for a failed write of `needed` bytes to `path`, which lies in `directory`.
pub(crate) fn write_error(
    path: &Path,
    directory: &Path,
    needed: u64,
    error: io::Error,
) -> CheckpointError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            disk_full(path, needed, available_bytes(directory)).caused_by(error)
        }
        io::ErrorKind::FileTooLarge => CheckpointError::new(
            CheckpointErrorKind::Io,
            format!("file too large: cannot write {needed} bytes: {error}"),
        )
        .in_file(path)
        .hint("the file system or a limit of the process (`ulimit -f`) forbids files of this size")
        .caused_by(error),
        _ => CheckpointError::io("cannot write", path, error),
    }
}
