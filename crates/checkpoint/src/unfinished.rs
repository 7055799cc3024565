//! What this process has not finished, for a program that is told to stop.
//!
//! A temporary path is removed by its owner when done or when an error drops it. A signal drops nothing: the thread that takes it
//! calls [`end_process`], which removes every registered path and ends the process.
//!
//! Both must not happen at once, or a directory gets its name while it is being removed. So whoever makes, names or removes a
//! temporary path does it in the [`CriticalSection`], and [`end_process`] enters it and never leaves: what was committed before is
//! whole, and nothing is committed after.

use crate::leftovers;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};

static REGISTRY: Registry = Registry::new();

/// Entries in the order in which they were made; a directory comes after those that it lies in.
struct Registry(Mutex<Entries>);

struct Entries {
    next: u64,
    paths: Vec<(u64, UnfinishedPath)>,
}

/// A path that goes if the process is stopped.
#[derive(Debug)]
pub(crate) enum UnfinishedPath {
    File(PathBuf),
    /// With what is in it, except for an old model that was set aside in it.
    Directory(PathBuf),
    /// As far as they are empty; the outermost first.
    EmptyDirectories(Vec<PathBuf>),
    /// Stays, so that a later run can go on.
    Kept(PathBuf),
}

/// The right to make, name or remove temporary paths: one thread has it at a time, and after [`end_process`] none gets it.
pub struct CriticalSection<'a>(MutexGuard<'a, Entries>);

/// A registered path; dropped, it stays registered: only its owner knows whether it is gone.
#[derive(Debug)]
pub(crate) struct Unfinished(u64);

/// Waits for the critical section, for ever if the process is ending. It must not be entered twice by one thread.
///
/// A program ends like this, so that no signal can be taken between its last word and its exit code:
///
/// ```no_run
/// use fewbit_checkpoint::unfinished;
///
/// std::mem::forget(unfinished::critical_section());
/// std::process::exit(0);
/// ```
pub fn critical_section() -> CriticalSection<'static> {
    REGISTRY.enter()
}

/// Waits for a commit that is under way, removes every unfinished path and ends the process with `code`. `tell` is given the directories that stay,
/// as a later run can go on from what is finished in them.
pub fn end_process(code: i32, tell: impl FnOnce(&[PathBuf])) -> ! {
    let mut section = critical_section();
    let kept = section.remove_all();
    tell(&kept);
    // The section is held until the process is gone: `exit` does not return.
    process::exit(code)
}

impl Registry {
    const fn new() -> Self {
        Registry(Mutex::new(Entries {
            next: 0,
            paths: Vec::new(),
        }))
    }

    fn enter(&self) -> CriticalSection<'_> {
        // A list of paths is never half changed.
        CriticalSection(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl CriticalSection<'_> {
    pub(crate) fn register(&mut self, path: UnfinishedPath) -> Unfinished {
        let number = self.0.next;
        self.0.next += 1;
        self.0.paths.push((number, path));
        Unfinished(number)
    }

    /// The path is gone or has its name.
    pub(crate) fn finished(&mut self, unfinished: &Unfinished) {
        self.0.paths.retain(|(number, _)| *number != unfinished.0);
    }

    /// The last first, so that a directory is empty when its turn comes. Returns what stays.
    fn remove_all(&mut self) -> Vec<PathBuf> {
        let mut kept = Vec::new();
        for (_, path) in self.0.paths.drain(..).rev() {
            // What cannot be removed is found by a later run.
            match path {
                UnfinishedPath::File(path) => drop(fs::remove_file(path)),
                UnfinishedPath::Directory(path) => drop(leftovers::remove_directory(&path, None)),
                UnfinishedPath::EmptyDirectories(paths) => remove_empty(&paths),
                UnfinishedPath::Kept(path) => kept.push(path),
            }
        }
        kept
    }
}

/// Directories that were made for an output, removed as far as they are empty when this value is dropped or the process stopped.
#[derive(Debug)]
pub struct CreatedDirectories {
    /// The outermost first.
    paths: Vec<PathBuf>,
    unfinished: Unfinished,
}

impl CreatedDirectories {
    /// Makes `directory` and its parents, as far as they are missing.
    ///
    /// # Errors
    /// The path that could not be made and why.
    pub fn create(directory: &Path) -> Result<Self, (PathBuf, std::io::Error)> {
        let mut section = critical_section();
        let missing: Vec<&Path> = directory
            .ancestors()
            .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
            .collect();
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in missing.into_iter().rev() {
            match fs::create_dir(path) {
                Ok(()) => paths.push(path.to_owned()),
                Err(_) if path.is_dir() => {}
                Err(error) => {
                    remove_empty(&paths);
                    return Err((path.to_owned(), error));
                }
            }
        }
        let unfinished = section.register(UnfinishedPath::EmptyDirectories(paths.clone()));
        Ok(CreatedDirectories { paths, unfinished })
    }
}

impl Drop for CreatedDirectories {
    fn drop(&mut self) {
        let mut section = critical_section();
        remove_empty(&self.paths);
        section.finished(&self.unfinished);
    }
}

/// A directory that a later run can go on from: until this value is dropped, [`end_process`] tells of it.
#[derive(Debug)]
pub struct KeptDirectory(Unfinished);

impl KeptDirectory {
    /// The directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(critical_section().register(UnfinishedPath::Kept(path.into())))
    }
}

impl Drop for KeptDirectory {
    fn drop(&mut self) {
        critical_section().finished(&self.0);
    }
}

fn remove_empty(paths: &[PathBuf]) {
    for path in paths.iter().rev() {
        // Fails where something is in it: the output, or what somebody else put there.
        let _ = fs::remove_dir(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A commit and the end of the process exclude one another, whoever comes first.
    #[test]
    fn one_thread_is_in_the_section_at_a_time() {
        let registry = Registry::new();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let (said, heard) = mpsc::channel();
        std::thread::scope(|threads| {
            let mut commit = registry.enter();
            let unfinished = commit.register(UnfinishedPath::File(path.clone()));
            threads.spawn(|| {
                let mut end = registry.enter();
                end.remove_all();
                said.send(()).unwrap();
                // `end_process` never leaves.
                std::mem::forget(end);
            });
            // The other thread waits as long as the commit lasts, and then finds nothing to remove.
            assert!(registry.0.try_lock().is_err());
            assert!(heard.try_recv().is_err());
            commit.finished(&unfinished);
            drop(commit);
            heard.recv().unwrap();
        });
        assert!(path.exists());
        assert!(
            registry.0.try_lock().is_err(),
            "no commit follows the end of the process"
        );
    }

    #[test]
    fn all_that_is_unfinished_goes_and_nothing_else() {
        let registry = Registry::new();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["parents", "parents/deep", "parents/deep/work", "shared"] {
            fs::create_dir(path(name)).unwrap();
        }
        for name in ["parents/deep/work/file", "shared/other", "file", "finished"] {
            fs::write(path(name), "").unwrap();
        }
        let mut section = registry.enter();
        section.register(UnfinishedPath::EmptyDirectories(vec![
            path("parents"),
            path("parents/deep"),
        ]));
        section.register(UnfinishedPath::EmptyDirectories(vec![path("shared")]));
        section.register(UnfinishedPath::Directory(path("parents/deep/work")));
        section.register(UnfinishedPath::File(path("file")));
        let finished = section.register(UnfinishedPath::File(path("finished")));
        section.register(UnfinishedPath::File(path("gone already")));
        section.register(UnfinishedPath::Kept(path("shared/other")));
        section.finished(&finished);
        assert_eq!(section.remove_all(), [path("shared/other")]);
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["finished", "shared"]);
        assert!(path("shared/other").exists());
    }
}
