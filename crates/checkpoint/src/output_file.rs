//! An output file: written under another name beside its place, and put there when it is whole.
use crate::disk_space::write_error;
use crate::leftovers::{self, FILE_PREFIX, FILE_SUFFIX, RANDOM_LETTERS};
use crate::output_path::{OutputKind, cannot_create, folder, resolve};
use crate::ownership;
use crate::unfinished::{Unfinished, UnfinishedPath, critical_section};
use crate::{CheckpointError, CheckpointErrorKind};
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// A file that appears at its path as a whole, or not at all: not after an error, not when the process is stopped or killed.
///
/// Without `replace`, what is there already stays, even if it appeared while this was being written. The finished file is as
/// readable as any other new file of the user.
///
/// ```
/// use fewbit_checkpoint::output_file::OutputFile;
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("numbers.txt");
/// let mut file = OutputFile::create(&path, false)?;
/// file.append(b"1 2 3\n")?;
/// assert!(!path.exists());
/// file.commit()?;
/// assert_eq!(std::fs::read(&path)?, b"1 2 3\n");
/// assert!(OutputFile::create(&path, false).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OutputFile {
    /// As the user named it.
    named: PathBuf,
    /// With links followed.
    path: PathBuf,
    replace: bool,
    /// None once it is committed or removed. Apart, so that errors of the file do not say the temporary path.
    file: Option<(BufWriter<File>, TempPath)>,
    unfinished: Unfinished,
}

impl OutputFile {
    /// Errors where [`create`](Self::create) would because of what is at `path`, or because its directory is not there.
    ///
    /// # Errors
    /// See above.
    pub fn check(path: &Path, replace: bool) -> Result<(), CheckpointError> {
        let resolved = resolve(path)?;
        OutputKind::File.check_free(path, &resolved, replace)?;
        let folder = folder(path);
        match fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            found => Err(CheckpointError::new(
                CheckpointErrorKind::NotFound,
                format!(
                    "expected an existing directory {}, found {}",
                    folder.display(),
                    found.map_or_else(|_| "none", |_| "a file")
                ),
            )
            .in_file(path)
            .hint("create the directory first")),
        }
    }

    /// Starts to write the file `path`. What killed processes left in its directory is removed.
    ///
    /// # Errors
    /// There is something at `path` that must not be replaced, or nothing can be made beside it.
    pub fn create(path: &Path, replace: bool) -> Result<Self, CheckpointError> {
        let resolved = resolve(path)?;
        OutputKind::File.check_free(path, &resolved, replace)?;
        let folder = folder(&resolved);
        leftovers::remove_from(folder);
        let mut section = critical_section();
        let file = tempfile::Builder::new()
            .prefix(FILE_PREFIX)
            .suffix(FILE_SUFFIX)
            .rand_bytes(RANDOM_LETTERS)
            .make_in(folder, ownership::create_locked)
            .map_err(|error| cannot_create(path, self::folder(path), error))?;
        let (file, temporary) = file.into_parts();
        Ok(OutputFile {
            named: path.to_owned(),
            unfinished: section.register(UnfinishedPath::File(temporary.to_path_buf())),
            path: resolved,
            replace,
            file: Some((BufWriter::new(file), temporary)),
        })
    }

    /// Writes `bytes` at the end, or where a seek went.
    ///
    /// # Errors
    /// The disk is full, or what else the system says.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.write_all(bytes)
            .map_err(|error| self.write_error(bytes.len(), error))
    }

    /// Waits until the disk has all of it and puts it at its path.
    ///
    /// # Errors
    /// The disk is full; something appeared at the path; what else the system says. The file is removed then.
    pub fn commit(self) -> Result<(), CheckpointError> {
        self.commit_and(|| ())
    }

    /// The same, and then `after`, which no signal parts from it.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit); `after` is not called then.
    pub fn commit_and<T>(mut self, after: impl FnOnce() -> T) -> Result<T, CheckpointError> {
        let Some((mut file, temporary)) = self.file.take() else {
            unreachable!("a file is committed once, as that takes it");
        };
        if let Err(error) = file.flush().and_then(|()| file.get_ref().sync_all()) {
            self.file = Some((file, temporary));
            return Err(self.write_error(1, error));
        }
        let mut section = critical_section();
        match self.put_in_place(temporary) {
            Ok(()) => {
                section.finished(&self.unfinished);
                // It is no temporary file any more: nobody looks for its lock.
                drop(file);
                crate::staging::sync_directory(folder(&self.path));
                Ok(after())
            }
            Err((error, temporary)) => {
                self.file = Some((file, temporary));
                drop(section);
                Err(match error.kind() {
                    io::ErrorKind::AlreadyExists => {
                        OutputKind::File
                            .exists(&self.named, "a file that was created in the meantime")
                            .hint("it is left as it is; name another output file, or replace this one with --force")
                            .caused_by(error)
                    }
                    _ => cannot_create(&self.named, folder(&self.named), error),
                })
            }
        }
    }

    fn put_in_place(&self, temporary: TempPath) -> Result<(), (io::Error, TempPath)> {
        let parts = |error: tempfile::PathPersistError| (error.error, error.path);
        if self.replace {
            return temporary.persist(&self.path).map_err(parts);
        }
        match temporary.persist_noclobber(&self.path) {
            // A file system that can neither rename without replacing nor have two names for a file. An empty file reserves the name.
            Err(failed)
                if matches!(
                    failed.error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
                ) =>
            {
                if let Err(error) = File::create_new(&self.path) {
                    return Err((error, failed.path));
                }
                failed.path.persist(&self.path).map_err(parts)
            }
            result => result.map_err(parts),
        }
    }

    fn write_error(&self, bytes: usize, error: io::Error) -> CheckpointError {
        write_error(&self.named, folder(&self.path), bytes as u64, error)
    }

    fn file(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.file
            .as_mut()
            .map(|(file, _)| file)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file()?.flush()
    }
}

impl Seek for OutputFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file()?.seek(position)
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some((file, temporary)) = self.file.take() {
            let mut section = critical_section();
            // What is still in the buffer is of no use. Not every system removes a file that is open.
            drop(file.into_parts());
            drop(temporary);
            section.finished(&self.unfinished);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory_listing::entries;

    #[test]
    fn a_file_that_appears_meanwhile_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("out");
        let mut file = OutputFile::create(&path, false).unwrap();
        file.append(b"new").unwrap();
        fs::write(&path, "precious").unwrap();
        let error = file.commit().unwrap_err();
        assert_eq!(error.kind(), CheckpointErrorKind::OutputExists);
        insta::assert_snapshot!(error.to_string().replace(&path.display().to_string(), "OUT"), @r"
        OUT: output exists: expected no such path, found a file that was created in the meantime
          hint: it is left as it is; name another output file, or replace this one with --force
        ");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(entries(scratch.path()), ["out"]);
        let mut file = OutputFile::create(&path, true).unwrap();
        file.append(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(entries(scratch.path()), ["out"]);
    }

    #[test]
    fn dropped_it_leaves_nothing_and_while_it_lives_it_is_no_leftover() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("out");
        let mut file = OutputFile::create(&path, false).unwrap();
        file.append(b"something").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.append(b"S").unwrap();
        let [partial] = &entries(scratch.path())[..] else {
            panic!()
        };
        assert!(partial.starts_with(".fewbit-") && partial.ends_with(".partial"));
        let partial = scratch.path().join(partial);
        assert!(leftovers::find(scratch.path()).is_empty());
        // A copy has the name and no lock: what a killed process leaves. The next file that is written there removes it.
        let copy = scratch.path().join(".fewbit-killed.partial");
        fs::copy(&partial, &copy).unwrap();
        drop(OutputFile::create(&scratch.path().join("other"), false).unwrap());
        assert!(!copy.exists() && partial.exists());
        drop(file);
        assert!(entries(scratch.path()).is_empty());
    }

    /// A file that cannot be written to, as on a full disk: the error names the output.
    #[test]
    fn errors_while_writing_do_not_say_the_temporary_name() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("out");
        let mut file = OutputFile::create(&path, false).unwrap();
        let (_, temporary) = file.file.take().unwrap();
        let read_only = BufWriter::new(File::open(&temporary).unwrap());
        file.file = Some((read_only, temporary));
        file.append(b"in the buffer").unwrap();
        let text = file.commit().unwrap_err().to_string();
        assert!(
            text.starts_with(&format!("{}: cannot write: ", path.display())),
            "{text}"
        );
        assert!(!text.contains(".partial"), "{text}");
        assert!(entries(scratch.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_as_readable_as_others() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        fs::write(path("other"), "").unwrap();
        OutputFile::create(&path("out"), false)
            .unwrap()
            .commit()
            .unwrap();
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode();
        assert_eq!(mode("out"), mode("other"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        fs::create_dir(path("elsewhere")).unwrap();
        fs::write(path("elsewhere/target"), "old").unwrap();
        std::os::unix::fs::symlink("elsewhere/target", path("link")).unwrap();
        let mut file = OutputFile::create(&path("link"), true).unwrap();
        file.append(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(
            fs::read_link(path("link")).unwrap(),
            Path::new("elsewhere/target")
        );
        assert_eq!(fs::read(path("elsewhere/target")).unwrap(), b"new");
        assert_eq!(entries(&path("elsewhere")), ["target"]);
        std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
        for replace in [false, true] {
            let error = OutputFile::check(&path("dangling"), replace).unwrap_err();
            assert!(error.to_string().contains("found a link to nowhere"));
            assert!(OutputFile::create(&path("dangling"), replace).is_err());
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let text = |name: &str, replace| {
            OutputFile::check(&scratch.path().join(name), replace)
                .unwrap_err()
                .to_string()
                .replace(&scratch.path().display().to_string(), "DIR")
        };
        fs::create_dir(scratch.path().join("folder")).unwrap();
        fs::write(scratch.path().join("file"), "").unwrap();
        insta::assert_snapshot!(text("folder", true), @r"
        DIR/folder: expected a file to write, found a directory
          hint: name a file in it
        ");
        insta::assert_snapshot!(text("file", false), @r"
        DIR/file: output exists: expected no such path, found a file
          hint: name another output file, or replace this one with --force
        ");
        insta::assert_snapshot!(text("absent/file", false), @r"
        DIR/absent/file: expected an existing directory DIR/absent, found none
          hint: create the directory first
        ");
        OutputFile::check(&scratch.path().join("file"), true).unwrap();
        #[cfg(unix)]
        assert!(OutputFile::check(Path::new("/dev/full"), true).is_err());
    }
}
