//! Bytes on disk.

use std::fs;
use std::path::Path;

use crate::EvaluateError;

/// Bytes of all files in a directory and its folders. Symbolic links to files count as what they point
/// to; those to folders are not followed, as they may lead out of the directory or in circles.
///
/// # Errors
/// A file or folder that cannot be read.
pub fn directory_bytes(directory: &Path) -> Result<u64, EvaluateError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| EvaluateError::Io { path, source }
    };
    let mut bytes = 0;
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let metadata = fs::metadata(&path).map_err(failed(&path))?;
        if !metadata.is_dir() {
            bytes += metadata.len();
        } else if !path.is_symlink() {
            bytes += directory_bytes(&path)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn links_to_files_count_and_links_to_folders_are_not_followed() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let blob = directory.path().join("blob");
        fs::write(&blob, [0; 50]).unwrap();
        let model = directory.path().join("model");
        fs::create_dir_all(model.join("2_Dense")).unwrap();
        fs::write(model.join("2_Dense/model.safetensors"), [0; 4000]).unwrap();
        symlink(&blob, model.join("model.safetensors")).unwrap();
        for (target, link) in [(".", "a"), (".", "b"), ("..", "outside")] {
            symlink(target, model.join(link)).unwrap();
        }
        assert_eq!(directory_bytes(&model).unwrap(), 4050);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none");
        assert_eq!(
            directory_bytes(&path).unwrap_err().to_string(),
            format!(
                "{}: No such file or directory (os error 2)\n  hint: check the path, and that you may read it",
                path.display()
            )
        );
    }
}
