//! Writing a checkpoint directory: planned, streamed, renamed when whole.
use crate::checkpoint::CONFIG_FILE;
use crate::disk_space::{available_bytes, disk_full, write_error};
use crate::output_path::cannot_create;
use crate::shards::SINGLE_FILE;
use crate::staging::{Staging, sync_directory};
use crate::tensor_file::{TensorFile, TensorLayout};
use crate::unfinished::critical_section;
use crate::{CheckpointError, CheckpointErrorKind, StoredWeight, WeightLayout};
use fewbit_numerics::dtype::DType;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Component, Path, PathBuf};

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlan {
    /// Name of the tensor.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
}

impl TensorPlan {
    /// A tensor of `name`, `dtype` and `shape`.
    pub fn new(name: impl Into<String>, dtype: DType, shape: impl Into<Vec<usize>>) -> Self {
        TensorPlan {
            name: name.into(),
            dtype,
            shape: shape.into(),
        }
    }

    /// Bytes of its data; `usize::MAX` if that overflows (`CheckpointWriter::plan_tensors` then refuses it).
    pub fn byte_len(&self) -> usize {
        self.checked_byte_len().unwrap_or(usize::MAX)
    }

    pub(crate) fn checked_byte_len(&self) -> Option<usize> {
        self.shape
            .iter()
            .try_fold(self.dtype.bytes(), |product, &dimension| {
                product.checked_mul(dimension)
            })
    }
}

/// Writes into a sibling temporary directory; `finish` renames it. Dropped unfinished, it removes everything.
///
/// The temporary directory is hidden, `.NAME.fewbit-partial-XXXXXX`; if the process is killed, a later one that writes there removes it.
///
/// ```
/// use fewbit_checkpoint::{Checkpoint, CheckpointWriter, TensorPlan};
/// use fewbit_numerics::dtype::DType;
///
/// let directory = tempfile::tempdir()?;
/// let out = directory.path().join("model");
/// let mut writer = CheckpointWriter::create(&out, false)?;
/// writer.write_json("config.json", &serde_json::json!({"model_type": "bert"}))?;
/// writer.plan_tensors(vec![TensorPlan::new("pooler.dense.bias", DType::F32, [2])])?;
/// writer.write_tensor("pooler.dense.bias", &[0, 0, 128, 63, 0, 0, 0, 64])?;
/// assert!(!out.exists());
/// writer.finish()?;
/// let bias = Checkpoint::open(&out)?.require("pooler.dense.bias")?.to_f32()?;
/// assert_eq!(bias, [1.0, 2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CheckpointWriter {
    // Closed before the directory that holds it is removed.
    tensors: Option<TensorFile>,
    staging: Staging,
    /// config.json, held back until everything else is written.
    config: Option<Vec<u8>>,
    available_bytes: fn(&Path) -> Option<u64>,
}

impl CheckpointWriter {
    /// Errors if `out` exists and is not an empty directory, unless `force` (then it is replaced, at `finish`; a file is never replaced).
    ///
    /// Missing parents of `out` are created.
    pub fn create(out: impl AsRef<Path>, force: bool) -> Result<Self, CheckpointError> {
        let staging = Staging::create(out.as_ref(), force)?;
        Ok(CheckpointWriter {
            tensors: None,
            staging,
            config: None,
            available_bytes,
        })
    }

    /// Errors if finishing would replace the directory `source` or one that it lies in.
    ///
    /// Call it with the checkpoint that is being converted.
    pub fn refuse_source(&self, source: &Path) -> Result<(), CheckpointError> {
        let source = source
            .canonicalize()
            .map_err(|error| CheckpointError::io("cannot open the directory", source, error))?;
        if !source.starts_with(self.staging.out()) {
            return Ok(());
        }
        Err(CheckpointError::new(
            CheckpointErrorKind::OutputExists,
            format!(
                "the output would replace its own source {}",
                source.display()
            ),
        )
        .in_file(self.staging.out())
        .hint("name another output directory"))
    }

    /// Copies a file to the relative path `name`.
    pub fn copy_file(&mut self, from: &Path, name: &str) -> Result<(), CheckpointError> {
        let open = |error| CheckpointError::io("cannot copy", from, error);
        if name == CONFIG_FILE {
            self.config = Some(fs::read(from).map_err(open)?);
            return Ok(());
        }
        // Not `fs::copy`: the copy of a read-only file of a cache need not be read-only.
        let mut source = File::open(from).map_err(open)?;
        let bytes = source.metadata().map_err(open)?.len();
        let (mut file, path) = self.create_file(name)?;
        std::io::copy(&mut source, &mut file)
            .and_then(|_| file.sync_all())
            .map_err(|error| write_error(&path, self.staging.path(), bytes, error))
    }

    /// Writes `value`, indented, to the relative path `name`.
    pub fn write_json(
        &mut self,
        name: &str,
        value: &serde_json::Value,
    ) -> Result<(), CheckpointError> {
        self.write_file(name, format!("{value:#}\n").as_bytes())
    }

    /// Writes `bytes` to the relative path `name`.
    pub fn write_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        if name == CONFIG_FILE {
            self.config = Some(bytes.to_vec());
            return Ok(());
        }
        self.write_now(name, bytes)
    }

    /// Bytes of the whole file of weights that [`plan_tensors`](Self::plan_tensors) would reserve for these tensors, header included.
    ///
    /// # Errors
    /// Two tensors of one name, or sizes that overflow.
    ///
    /// ```
    /// use fewbit_checkpoint::{CheckpointWriter, TensorPlan};
    /// use fewbit_numerics::dtype::DType;
    ///
    /// let bias = TensorPlan::new("pooler.dense.bias", DType::F32, [2]);
    /// assert!(CheckpointWriter::file_bytes(vec![bias])? > 8);
    /// # Ok::<(), fewbit_checkpoint::CheckpointError>(())
    /// ```
    pub fn file_bytes(tensors: Vec<TensorPlan>) -> Result<u64, CheckpointError> {
        Ok(TensorLayout::new(tensors)?.total_bytes())
    }

    /// Reserves model.safetensors for these tensors (`__metadata__ {"format":"pt"}`), checks free disk space.
    ///
    /// Tensors are laid out by descending element size, then name. Called once.
    pub fn plan_tensors(&mut self, tensors: Vec<TensorPlan>) -> Result<(), CheckpointError> {
        let path = self.staging.out().join(SINGLE_FILE);
        if self.tensors.is_some() {
            return Err(CheckpointError::new(
                CheckpointErrorKind::Malformed,
                "the tensors are already planned",
            )
            .in_file(path));
        }
        let layout = TensorLayout::new(tensors).map_err(|error| error.in_file(&path))?;
        let needed = layout.total_bytes();
        if let Some(available) = (self.available_bytes)(self.staging.path())
            && available < needed
        {
            return Err(disk_full(self.staging.out(), needed, Some(available)));
        }
        let _section = critical_section();
        self.tensors = Some(TensorFile::create(
            self.staging.path(),
            SINGLE_FILE,
            path,
            layout,
        )?);
        Ok(())
    }

    /// Writes one planned tensor, in any order, exactly once; wrong length or name is an error.
    pub fn write_tensor(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.planned(name)?.write(name, bytes)
    }

    /// A part of a tensor at a byte offset, for tensors that are converted slice by slice. No byte may be written twice.
    pub fn write_tensor_part(
        &mut self,
        name: &str,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), CheckpointError> {
        self.planned(name)?.write_part(name, offset, bytes)
    }

    /// Some rows of the weight of a module, in `layout`, whose tensors were planned; see [`WeightLayout::encode`].
    pub fn write_weight(
        &mut self,
        layout: &dyn WeightLayout,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &StoredWeight<'_>,
    ) -> Result<(), CheckpointError> {
        for part in layout.encode(module, shape, first_row, rows)? {
            self.write_tensor_part(&part.name, part.offset, &part.bytes)?;
        }
        Ok(())
    }

    /// Errors if a planned tensor was not written whole. Syncs and renames; returns the output directory.
    pub fn finish(mut self) -> Result<PathBuf, CheckpointError> {
        if let Some(tensors) = self.tensors.take() {
            tensors.finish()?;
        }
        if let Some(config) = self.config.take() {
            self.write_now(CONFIG_FILE, &config)?;
        }
        sync_directory(self.staging.path());
        self.staging.commit()
    }

    fn planned(&mut self, name: &str) -> Result<&mut TensorFile, CheckpointError> {
        let path = self.staging.out().join(SINGLE_FILE);
        self.tensors.as_mut().ok_or_else(|| {
            CheckpointError::new(
                CheckpointErrorKind::MissingTensor,
                "not planned: expected `plan_tensors` first",
            )
            .in_file(path)
            .at_tensor(name)
        })
    }

    fn write_now(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let (mut file, path) = self.create_file(name)?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|error| write_error(&path, self.staging.path(), bytes.len() as u64, error))
    }

    /// Creates the file `name` and its folders; also returns the path that errors show, where it will be in the end.
    fn create_file(&self, name: &str) -> Result<(File, PathBuf), CheckpointError> {
        let relative = Path::new(name);
        let inside = relative
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
        if name.is_empty() || !inside || name == SINGLE_FILE {
            return Err(CheckpointError::new(
                CheckpointErrorKind::Malformed,
                format!("file name: expected a path inside the output other than {SINGLE_FILE}, found `{name}`"),
            )
            .in_file(self.staging.out()));
        }
        let (path, shown) = (
            self.staging.path().join(relative),
            self.staging.out().join(relative),
        );
        let create = |error| cannot_create(&shown, self.staging.out(), error);
        // Nothing is made in a directory that is being removed.
        let _section = critical_section();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(create)?;
        }
        let file = File::create(&path).map_err(create)?;
        Ok((file, shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_found_before_writing() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("new/out");
        let mut writer = CheckpointWriter::create(&out, false).unwrap();
        writer.available_bytes = |_| Some(1000);
        let error = writer
            .plan_tensors(vec![TensorPlan::new("w", DType::F32, [400])])
            .unwrap_err();
        assert_eq!(error.kind(), CheckpointErrorKind::DiskFull);
        let text = error.to_string().replace(
            &directory
                .path()
                .canonicalize()
                .unwrap()
                .display()
                .to_string(),
            "DIR",
        );
        insta::assert_snapshot!(text, @r"
        DIR/new/out: disk full: expected 1704 bytes of free space, found 1000 bytes available
          hint: free some space, or write to another disk; nothing was left behind
        ");
        drop(writer);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn errors_of_the_system_while_writing() {
        let path = Path::new("out/model.safetensors");
        let missing = Path::new("/no/such/directory");
        let error = |kind| write_error(path, missing, 5, std::io::Error::from(kind));
        let full = error(std::io::ErrorKind::StorageFull);
        assert_eq!(full.kind(), CheckpointErrorKind::DiskFull);
        insta::assert_snapshot!(full, @r"
        out/model.safetensors: disk full: expected 5 bytes of free space, found less
          hint: free some space, or write to another disk; nothing was left behind
        ");
        assert_eq!(
            error(std::io::ErrorKind::QuotaExceeded).kind(),
            CheckpointErrorKind::DiskFull
        );
        let large = error(std::io::ErrorKind::FileTooLarge);
        assert_eq!(large.kind(), CheckpointErrorKind::Io);
        assert_eq!(
            error(std::io::ErrorKind::PermissionDenied).kind(),
            CheckpointErrorKind::Io
        );
    }
}
