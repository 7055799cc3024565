//! Temporary files and directories of this process, for a program that is told to stop.
//!
//! Whoever makes a temporary path removes it when done or when an error drops it. A signal drops nothing: its handler calls
//! [`remove_all`] before it ends the process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

static PATHS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A path that is to go if the process is stopped before this value is dropped.
#[derive(Debug)]
pub struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    /// Registers a temporary file or directory. Removing it in the ordinary course stays with its owner.
    ///
    /// ```standalone_crate
    /// use fewbit_checkpoint::unfinished::{Unfinished, remove_all};
    ///
    /// let directory = tempfile::tempdir()?;
    /// let (kept, gone) = (directory.path().join("kept"), directory.path().join("gone"));
    /// std::fs::write(&kept, "")?;
    /// std::fs::create_dir(&gone)?;
    /// drop(Unfinished::register(&kept));
    /// let _unfinished = Unfinished::register(&gone);
    /// remove_all();
    /// assert!(kept.exists() && !gone.exists());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn register(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        paths().push(path.clone());
        Unfinished { path }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let mut paths = paths();
        if let Some(index) = paths.iter().position(|path| *path == self.path) {
            paths.swap_remove(index);
        }
    }
}

/// Removes every registered path. For the end of a process: what is being written elsewhere in it fails from now on.
pub fn remove_all() {
    for path in paths().drain(..) {
        // Another thread may create one more file while the directory is being removed.
        for _ in 0..3 {
            if remove(&path).is_ok() {
                break;
            }
        }
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

fn paths() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    PATHS.lock().unwrap_or_else(PoisonError::into_inner)
}
