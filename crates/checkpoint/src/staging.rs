//! A hidden directory beside the output, in which the model is made that then takes the place of the output in one step.
use crate::leftovers::{self, NEW_MODEL, OLD_MODEL, PARTIAL};
use crate::output_path::{OutputKind, cannot_create, folder, is_empty_directory, resolve};
use crate::temporary_directory::TemporaryDirectory;
use crate::unfinished::{CreatedDirectories, CriticalSection, critical_section};
use crate::{CheckpointError, CheckpointErrorKind};
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::path::{Path, PathBuf};

/// How often a commit looks again at an output that others change meanwhile.
const ATTEMPTS: usize = 3;

/// A temporary directory beside `out`, on the same file system. Dropped uncommitted, it is removed with everything in it, and
/// so are the parents of `out` that were created for it.
pub(crate) struct Staging {
    // Dropped before the parents that were made for it, which must be empty to be removed.
    directory: TemporaryDirectory,
    _created_parents: CreatedDirectories,
    /// Where the model is made.
    model: PathBuf,
    out: PathBuf,
    replace: bool,
    exchange: fn(&Path, &Path) -> io::Result<()>,
}

impl Staging {
    /// Prepares to write `out`. Errors if it is a file, or a directory with something in it and `replace` is not set.
    /// What killed processes left beside `out` is removed; an old model that one of them had moved aside comes back first.
    pub(crate) fn create(out: &Path, replace: bool) -> Result<Self, CheckpointError> {
        leftovers::remove_from(folder(out));
        let out = resolve(out)?;
        OutputKind::Directory.check_free(&out, &out, replace)?;
        let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else {
            return Err(CheckpointError::new(
                CheckpointErrorKind::OutputExists,
                "cannot be an output directory: expected a path with a name",
            )
            .in_file(out));
        };
        leftovers::remove_from(parent);
        let created_parents = CreatedDirectories::create(parent).map_err(|(path, error)| {
            // The first directory that is missing cannot be made in the one that it would lie in.
            cannot_create(&out, folder(&path), error)
        })?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(PARTIAL);
        let cannot_create = |error| cannot_create(&out, parent, error);
        let mut section = critical_section();
        let directory =
            TemporaryDirectory::create_in(&mut section, parent, &prefix).map_err(cannot_create)?;
        let model = directory.path().join(NEW_MODEL);
        let made = DirBuilder::new().create(&model);
        drop(section);
        made.map_err(cannot_create)?;
        Ok(Staging {
            directory,
            _created_parents: created_parents,
            model,
            out,
            replace,
            exchange,
        })
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        &self.model
    }

    /// A directory on the same file system that is removed in the end.
    pub(crate) fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The directory that it will become, absolute.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// Gives the directory the name `out`, replacing what is there if that was asked for.
    ///
    /// A signal that arrives meanwhile is dealt with afterwards, and after `after`, which may move what is to be removed to the directory that it is
    /// given.
    pub(crate) fn commit(
        mut self,
        after: impl FnOnce(&mut CriticalSection<'_>, &Path),
    ) -> Result<PathBuf, CheckpointError> {
        let mut section = critical_section();
        self.take_place()?;
        sync_directory(folder(&self.out));
        after(&mut section, self.directory.path());
        // What was replaced is in there now.
        self.directory.remove(&mut section).map_err(|error| {
            CheckpointError::io(
                "written, but the replaced directory cannot be removed",
                self.directory.path(),
                error,
            )
        })?;
        Ok(self.out.clone())
    }

    fn take_place(&self) -> Result<(), CheckpointError> {
        for _ in 0..ATTEMPTS {
            OutputKind::Directory.check_free(&self.out, &self.out, self.replace)?;
            let done = if is_filled_directory(&self.out) {
                self.replace_old()?
            } else {
                self.rename()?
            };
            if done {
                return Ok(());
            }
        }
        Err(OutputKind::Directory
            .exists(&self.out, "something that others change at the same time"))
    }

    /// Where there is nothing, or an empty directory. False if there is more now.
    fn rename(&self) -> Result<bool, CheckpointError> {
        if !cfg!(unix) {
            // rename(2) replaces an empty directory, other systems do not.
            let _ = fs::remove_dir(&self.out);
        }
        match fs::rename(&self.model, &self.out) {
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists if self.replace => {
                    Ok(false)
                }
                io::ErrorKind::DirectoryNotEmpty
                | io::ErrorKind::AlreadyExists
                | io::ErrorKind::NotADirectory => Err(OutputKind::Directory
                    .exists(&self.out, "something that was created in the meantime")
                    .hint("it is left as it is; name another output directory")
                    .caused_by(error)),
                io::ErrorKind::ResourceBusy => Err(self.is_mount_point(error)),
                _ => Err(cannot_create(&self.out, folder(&self.out), error)),
            },
        }
    }

    /// Where there is an old model. False if it is gone.
    fn replace_old(&self) -> Result<bool, CheckpointError> {
        match (self.exchange)(&self.model, &self.out) {
            Ok(()) => {
                // Others may have put something else there since it was looked at.
                let found = OutputKind::Directory.check_free(&self.model, &self.model, true);
                found.map_err(|error| match (self.exchange)(&self.model, &self.out) {
                    Ok(()) => error.in_file(&self.out),
                    Err(_) => error,
                })?;
                Ok(true)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => Ok(false),
                io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput => self.set_old_aside(),
                io::ErrorKind::ResourceBusy => Err(self.is_mount_point(error)),
                _ => Err(self.cannot_replace(error)),
            },
        }
    }

    /// Where the file system cannot exchange two directories: the old one is moved out of the way first. If the process is killed
    /// before the new one has its name, a later run puts the old one back.
    fn set_old_aside(&self) -> Result<bool, CheckpointError> {
        let old = self.directory.path().join(OLD_MODEL);
        match fs::rename(&self.out, &old) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return Err(self.is_mount_point(error));
            }
            Err(error) => return Err(self.cannot_replace(error)),
        }
        let taken = OutputKind::Directory
            .check_free(&old, &old, true)
            .and_then(|()| self.rename());
        if !matches!(taken, Ok(true)) {
            // It comes back; if even that fails, it stays where it is, and a later run tries again.
            let _ = fs::rename(&old, &self.out);
        }
        taken
    }

    fn is_mount_point(&self, error: io::Error) -> CheckpointError {
        self.cannot_replace(error)
            .hint("if it is a mount point, name a directory inside it")
    }

    fn cannot_replace(&self, error: io::Error) -> CheckpointError {
        CheckpointError::io("cannot be replaced", &self.out, error)
            .hint("remove it yourself, or name another output directory")
    }
}

/// Exchanges the names of two paths in one step, where the system and the file system can.
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).map_err(|error| match error {
            Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP => io::ErrorKind::Unsupported.into(),
            error => error.into(),
        })
    }
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    {
        let _ = (a, b);
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn is_filled_directory(path: &Path) -> bool {
    path.is_dir() && !is_empty_directory(path)
}

/// Makes names in `directory` durable. Not every system can open a directory, and the files themselves are already synced.
pub(crate) fn sync_directory(directory: &Path) {
    if let Ok(directory) = fs::File::open(directory) {
        let _ = directory.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::CONFIG_FILE;
    use crate::directory_listing::entries;

    fn model(path: &Path, name: &str) {
        fs::create_dir(path).unwrap();
        fs::write(path.join(CONFIG_FILE), name).unwrap();
    }

    fn staged(out: &Path) -> Staging {
        let staging = Staging::create(out, true).unwrap();
        fs::write(staging.path().join(CONFIG_FILE), "new").unwrap();
        staging
    }

    fn config(path: &Path) -> String {
        fs::read_to_string(path.join(CONFIG_FILE)).unwrap()
    }

    #[test]
    fn an_old_model_is_replaced_with_and_without_an_exchange() {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        model(&out, "old");
        for exchange in [exchange, |_: &Path, _: &Path| {
            Err(io::ErrorKind::Unsupported.into())
        }] {
            fs::write(out.join(CONFIG_FILE), "old").unwrap();
            let mut staging = staged(&out);
            staging.exchange = exchange;
            staging.commit(|_, _| ()).unwrap();
            assert_eq!(config(&out), "new");
            assert_eq!(entries(scratch.path()), ["out"]);
        }
    }

    /// Another process puts its own things in place of the old model just before it is replaced.
    #[test]
    fn what_is_no_model_comes_back() {
        fn replaced_by_photos(out: &Path) {
            fs::remove_dir_all(out).unwrap();
            fs::create_dir(out).unwrap();
            fs::write(out.join("photo"), "").unwrap();
        }
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        for exchange in [
            |model: &Path, out: &Path| {
                if out.join(CONFIG_FILE).exists() {
                    replaced_by_photos(out);
                }
                exchange(model, out)
            },
            |_: &Path, out: &Path| {
                replaced_by_photos(out);
                Err(io::ErrorKind::Unsupported.into())
            },
        ] {
            model(&out, "old");
            let mut staging = staged(&out);
            staging.exchange = exchange;
            let error = staging.commit(|_, _| ()).unwrap_err();
            assert_eq!(error.kind(), CheckpointErrorKind::OutputExists);
            assert_eq!(entries(&out), ["photo"], "{error}");
            assert_eq!(entries(scratch.path()), ["out"]);
            fs::remove_dir_all(&out).unwrap();
        }
    }

    #[test]
    fn an_old_model_that_goes_away_meanwhile_is_not_missed() {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        model(&out, "old");
        let mut staging = staged(&out);
        staging.exchange = |model, out| {
            fs::remove_dir_all(out).unwrap();
            exchange(model, out)
        };
        staging.commit(|_, _| ()).unwrap();
        assert_eq!(config(&out), "new");
        assert_eq!(entries(scratch.path()), ["out"]);
    }

    /// A process that is killed where the old model is moved aside and the new one has no name yet.
    #[test]
    fn a_later_run_brings_the_old_model_back() {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        model(&out, "old");
        let staging = staged(&out);
        fs::rename(&out, staging.directory.path().join(OLD_MODEL)).unwrap();
        // As long as the process lives, the others leave it alone.
        leftovers::remove_from(scratch.path());
        assert!(!out.exists());
        // Dropped, it brings the old model back itself.
        drop(staging);
        assert_eq!(config(&out), "old");
        assert_eq!(entries(scratch.path()), ["out"]);

        let killed = scratch.path().join(".out.fewbit-partial-killed");
        fs::create_dir(&killed).unwrap();
        fs::write(killed.join(leftovers::LOCK_FILE), "").unwrap();
        model(&killed.join(NEW_MODEL), "new");
        fs::rename(&out, killed.join(OLD_MODEL)).unwrap();
        let error = Staging::create(&out, false).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), CheckpointErrorKind::OutputExists);
        assert_eq!(config(&out), "old");
        assert_eq!(entries(scratch.path()), ["out"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_dangling_link_is_refused_before_anything_is_written() {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        std::os::unix::fs::symlink("nowhere", &out).unwrap();
        for replace in [false, true] {
            let error = Staging::create(&out, replace).map(|_| ()).unwrap_err();
            assert!(
                error.to_string().contains("found a link to nowhere"),
                "{error}"
            );
        }
        assert_eq!(entries(scratch.path()), ["out"]);
    }
}
