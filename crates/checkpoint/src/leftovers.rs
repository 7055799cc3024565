//! What killed processes left behind: found by name, proved by a lock, removed by a later run.
//!
//! | name | what | made by |
//! |---|---|---|
//! | `.NAME.fewbit-partial-XXXXXX` | directory beside an output directory NAME, with the model in it | [`CheckpointWriter`](crate::CheckpointWriter) |
//! | `.fewbit-XXXXXX.partial` | file beside an output file | [`OutputFile`](crate::output_file::OutputFile) |
//! | `fewbit-PURPOSE-XXXXXX` | directory in the system's directory of temporary files | [`TemporaryDirectory`](crate::temporary_directory::TemporaryDirectory) |
//!
//! A directory of ours holds a lock file; a file is its own. It is a leftover if nobody has it locked.

use crate::ownership;
use crate::temporary_directory::Purpose;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The file in a temporary directory that is locked as long as its process lives.
pub(crate) const LOCK_FILE: &str = ".fewbit-lock";
/// The model in the temporary directory of an output.
pub(crate) const NEW_MODEL: &str = "model";
/// The model that is replaced, where it had to be moved aside.
pub(crate) const OLD_MODEL: &str = "old";
/// Between the name of an output directory and the letters that make the name of its temporary directory unique.
pub(crate) const PARTIAL: &str = ".fewbit-partial-";
/// Around the letters that make the name of a temporary file unique.
pub(crate) const FILE_PREFIX: &str = ".fewbit-";
pub(crate) const FILE_SUFFIX: &str = ".partial";
/// Letters and digits that make a name unique.
pub(crate) const RANDOM_LETTERS: usize = 6;

/// How often a removal begins anew because a measuring process put one more file into the directory.
const ATTEMPTS: usize = 20;

/// A temporary path that belongs to no living process. Nobody else takes it as long as this value exists.
#[derive(Debug)]
pub struct Leftover {
    path: PathBuf,
    /// None for an empty directory: its process ended before it had locked it.
    lock: Option<File>,
    is_directory: bool,
}

impl Leftover {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the files in it.
    pub fn bytes(&self) -> u64 {
        bytes(&self.path)
    }

    /// Where the old model goes back to that the killed process had moved aside and not yet replaced.
    pub fn restores(&self) -> Option<PathBuf> {
        let out = output_of(&self.path)?;
        (self.is_directory && is_there(&self.path.join(OLD_MODEL)) && !is_there(&out))
            .then_some(out)
    }

    /// Removes it; an old model that is nowhere else goes back to its place first.
    ///
    /// # Errors
    /// What the system says; what could not be removed is still a leftover.
    pub fn remove(self) -> io::Result<()> {
        if self.is_directory {
            remove_directory(&self.path, self.lock)
        } else {
            present(fs::remove_file(&self.path)).map(drop)
        }
    }
}

/// The leftovers of this user in `directory`, by name.
pub fn find(directory: &Path) -> Vec<Leftover> {
    let mut found: Vec<Leftover> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| leftover(entry.path()))
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Removes the leftovers in `directory`; what cannot be removed stays.
pub fn remove_from(directory: &Path) {
    for leftover in find(directory) {
        let path = leftover.path().to_owned();
        let restored = leftover.restores();
        match leftover.remove() {
            Ok(()) => {
                tracing::info!(path = %path.display(), "removed: the process that made it was killed");
            }
            Err(error) => {
                tracing::info!(path = %path.display(), %error, "left behind by a process that was killed, and cannot be removed");
            }
        }
        if let Some(out) = restored.filter(|out| is_there(out)) {
            tracing::warn!(
                "{}: the old model is back: the process that was to replace it was killed",
                out.display()
            );
        }
    }
}

fn leftover(path: PathBuf) -> Option<Leftover> {
    let name = path.file_name()?;
    let is_directory = if is_file_name(name) {
        false
    } else if is_directory_name(name) {
        true
    } else {
        return None;
    };
    let metadata = fs::symlink_metadata(&path).ok()?;
    if is_directory != metadata.is_dir() || !ownership::is_ours(&metadata) {
        return None;
    }
    let lock = if is_directory {
        ownership::take(&path.join(LOCK_FILE))
    } else {
        ownership::take(&path)
    };
    // Without a lock only an empty directory goes: nothing is lost, and a process that is about to lock it makes another.
    if lock.is_none() && !(is_directory && is_empty(&path)) {
        return None;
    }
    Some(Leftover {
        path,
        lock,
        is_directory,
    })
}

/// Removes a temporary directory, `lock` being the locked file in it; an old model that is nowhere else goes back to its place first.
///
/// The lock file goes last: where this is interrupted, the rest is still a leftover.
pub(crate) fn remove_directory(path: &Path, lock: Option<File>) -> io::Result<()> {
    let old = path.join(OLD_MODEL);
    if let Some(out) = output_of(path)
        && is_there(&old)
        && !is_there(&out)
    {
        fs::rename(&old, &out)?;
    }
    let mut lock = lock;
    let mut attempts = 0;
    loop {
        attempts += 1;
        match remove_now(path, &mut lock) {
            // Another process, one that measures for this one, may put one more file there meanwhile.
            Err(_) if attempts < ATTEMPTS => {}
            result => return result,
        }
    }
}

fn remove_now(path: &Path, lock: &mut Option<File>) -> io::Result<()> {
    remove_all_but_the_lock(path)?;
    // Not every system removes a file that is open.
    drop(lock.take());
    present(fs::remove_file(path.join(LOCK_FILE)))?;
    present(fs::remove_dir(path)).map(drop)
}

fn remove_all_but_the_lock(path: &Path) -> io::Result<()> {
    let Some(entries) = present(fs::read_dir(path))? else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == LOCK_FILE {
            continue;
        }
        let removed = if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        present(removed)?;
    }
    Ok(())
}

/// None if it was not there.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The output directory that the temporary directory `path` is made for, by its name.
fn output_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.as_encoded_bytes();
    let name = name.strip_prefix(b".")?;
    let at = name
        .windows(PARTIAL.len())
        .rposition(|window| window == PARTIAL.as_bytes())?;
    let (output, random) = (&name[..at], &name[at + PARTIAL.len()..]);
    if output.is_empty() || !is_random(random) {
        return None;
    }
    Some(path.with_file_name(os_str(output)?))
}

#[cfg(unix)]
fn os_str(bytes: &[u8]) -> Option<&OsStr> {
    Some(std::os::unix::ffi::OsStrExt::from_bytes(bytes))
}

#[cfg(not(unix))]
fn os_str(bytes: &[u8]) -> Option<&OsStr> {
    std::str::from_utf8(bytes).ok().map(OsStr::new)
}

fn is_directory_name(name: &OsStr) -> bool {
    let purposes = || {
        Purpose::ALL
            .iter()
            .filter_map(|purpose| name.to_str()?.strip_prefix(purpose.prefix()))
    };
    output_of(Path::new(name)).is_some() || purposes().any(|random| is_random(random.as_bytes()))
}

fn is_file_name(name: &OsStr) -> bool {
    name.to_str()
        .and_then(|name| name.strip_prefix(FILE_PREFIX)?.strip_suffix(FILE_SUFFIX))
        .is_some_and(|random| is_random(random.as_bytes()))
}

fn is_random(letters: &[u8]) -> bool {
    letters.len() == RANDOM_LETTERS && letters.iter().all(u8::is_ascii_alphanumeric)
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

fn bytes(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| bytes(&entry.path()))
            .sum(),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory_listing::entries;

    fn make(directory: &Path, files: &[&str]) {
        for file in files {
            let path = directory.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
    }

    #[test]
    fn only_our_names_with_a_free_lock_are_leftovers() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path();
        let kept = [
            // Names that are nearly ours.
            ".out.fewbit-partial-abcde/.fewbit-lock",
            ".out.fewbit-partial-abcdefg/.fewbit-lock",
            ".out.fewbit-partial-abc-ef/.fewbit-lock",
            "..fewbit-partial-abcdef/.fewbit-lock",
            "out.fewbit-partial-abcdef/.fewbit-lock",
            "fewbit-photos-abcdef/.fewbit-lock",
            "fewbit-compare-abcdefg/.fewbit-lock",
            ".fewbit-abcdefg.partial",
            "fewbit-abcdef.partial",
            "stats.json.partial",
            // Our names without what proves that they are ours.
            ".unlocked.fewbit-partial-abcdef/model/config.json",
            "fewbit-compare-nolock/precious",
            ".a-file.fewbit-partial-abcdef",
            ".fewbit-direct.partial/file",
            // The process lives.
            ".live.fewbit-partial-abcdef/.fewbit-lock",
            ".live.fewbit-partial-abcdef/model/x",
            "fewbit-measure-liveZ9/.fewbit-lock",
            ".fewbit-liveF1.partial",
        ];
        make(directory, &kept);
        let before = entries(directory);
        make(
            directory,
            &[
                ".out.fewbit-partial-abcdef/.fewbit-lock",
                ".out.fewbit-partial-abcdef/model/1_Pooling/config.json",
                "fewbit-compare-Abc123/.fewbit-lock",
                "fewbit-compare-Abc123/dynamic/config.json",
                "fewbit-measure-Abc123/.fewbit-lock",
                "fewbit-measure-Def456/.fewbit-lock",
                ".fewbit-Abc123.partial",
            ],
        );
        fs::create_dir(directory.join(".out.fewbit-partial-empty1")).unwrap();
        let _live: Vec<File> = [
            ".live.fewbit-partial-abcdef/.fewbit-lock",
            "fewbit-measure-liveZ9/.fewbit-lock",
            ".fewbit-liveF1.partial",
        ]
        .map(|file| ownership::take(&directory.join(file)).unwrap())
        .into();
        let found = find(directory);
        let names: Vec<&str> = found
            .iter()
            .map(|leftover| leftover.path().file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                ".fewbit-Abc123.partial",
                ".out.fewbit-partial-abcdef",
                ".out.fewbit-partial-empty1",
                "fewbit-compare-Abc123",
                "fewbit-measure-Abc123",
                "fewbit-measure-Def456",
            ]
        );
        assert_eq!(found[0].bytes(), ".fewbit-Abc123.partial".len() as u64);
        // One that is being dealt with is no leftover for anybody else.
        assert_eq!(find(directory).len(), 1);
        drop(found);
        remove_from(directory);
        assert_eq!(entries(directory), before);
        for file in kept {
            assert_eq!(fs::read_to_string(directory.join(file)).unwrap(), file);
        }
    }

    #[test]
    fn an_old_model_that_was_set_aside_comes_back() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path();
        let files = [
            ".my.model.fewbit-partial-abcdef/.fewbit-lock",
            ".my.model.fewbit-partial-abcdef/model/config.json",
            ".my.model.fewbit-partial-abcdef/old/config.json",
        ];
        make(directory, &files);
        let found = find(directory);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].restores(), Some(directory.join("my.model")));
        // As long as one looks at it, nobody else takes it.
        drop(found);
        remove_from(directory);
        assert_eq!(entries(directory), ["my.model"]);
        assert_eq!(
            fs::read_to_string(directory.join("my.model/config.json")).unwrap(),
            files[2]
        );
        // Where the new model is in place, or somebody made another, the old one goes.
        make(directory, &files);
        assert_eq!(find(directory)[0].restores(), None);
        remove_from(directory);
        assert_eq!(entries(directory), ["my.model"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        use std::os::unix::fs::symlink;
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path();
        make(directory, &["elsewhere/.fewbit-lock", "elsewhere/precious"]);
        symlink(
            directory.join("elsewhere"),
            directory.join("fewbit-compare-abcdef"),
        )
        .unwrap();
        fs::create_dir(directory.join("fewbit-compare-linked")).unwrap();
        symlink(
            directory.join("elsewhere/.fewbit-lock"),
            directory.join("fewbit-compare-linked/.fewbit-lock"),
        )
        .unwrap();
        assert!(find(directory).is_empty());
        make(directory, &["fewbit-compare-ghijkl/.fewbit-lock"]);
        symlink(
            directory.join("elsewhere"),
            directory.join("fewbit-compare-ghijkl/link"),
        )
        .unwrap();
        remove_from(directory);
        assert_eq!(entries(&directory.join("elsewhere")).len(), 2);
        assert!(!directory.join("fewbit-compare-ghijkl").exists());
    }
}
