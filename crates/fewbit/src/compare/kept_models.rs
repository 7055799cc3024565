//! Where the models of a comparison are written.

use crate::Error;
use fewbit_checkpoint::temporary_directory::{Purpose, TemporaryDirectory};
use fewbit_checkpoint::unfinished::CreatedDirectories;
use fewbit_quantize::Recipe;
use std::path::{Path, PathBuf};

/// The directory that the models' directories lie in.
pub(super) enum OutputRoot {
    Kept {
        path: PathBuf,
        /// Goes where no model was finished in it.
        _created: CreatedDirectories,
    },
    Temporary(TemporaryDirectory),
}

impl OutputRoot {
    pub(super) fn new(keep: Option<&Path>) -> Result<Self, Error> {
        match keep {
            Some(keep) => Ok(OutputRoot::Kept {
                path: keep.to_owned(),
                _created: CreatedDirectories::create(keep).map_err(|(path, error)| {
                    Error::Compare(format!(
                        "{}: cannot create the directory: {error}\n  hint: name a --keep directory that you may write to",
                        path.display()
                    ))
                })?,
            }),
            None => TemporaryDirectory::new(Purpose::Compare)
                .map(OutputRoot::Temporary)
                .map_err(|source| Error::Io {
                    path: std::env::temp_dir(),
                    source,
                }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            OutputRoot::Kept { path, .. } => path,
            OutputRoot::Temporary(directory) => directory.path(),
        }
    }
}

/// Errors if a model could not be written into `keep` because something is there.
pub(super) fn check(keep: Option<&Path>, recipes: &[Recipe]) -> Result<(), Error> {
    let Some(keep) = keep else {
        return Ok(());
    };
    if keep.exists() && !keep.is_dir() {
        return Err(Error::Compare(format!(
            "{}: expected a directory to keep models in, found a file\n  hint: name another --keep directory",
            keep.display()
        )));
    }
    for recipe in recipes {
        let target = keep.join(directory_name(&recipe.label()));
        let is_empty_directory =
            || std::fs::read_dir(&target).is_ok_and(|mut entries| entries.next().is_none());
        if target.exists() && !is_empty_directory() {
            return Err(Error::Compare(format!(
                "{}: exists and is not empty\n  hint: name another --keep directory, or remove it",
                target.display()
            )));
        }
    }
    Ok(())
}

/// `nf4 + double quantization` as a directory: `nf4-double-quantization`.
pub(super) fn directory_name(label: &str) -> String {
    let words: Vec<&str> = label
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    words.join("-")
}
