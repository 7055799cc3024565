//! Writing a checkpoint directory: planned, streamed, renamed when whole.
use crate::checkpoint::CONFIG_FILE;
use crate::disk_space::{available_bytes, disk_full, write_error};
use crate::kept_shards::{KeptShards, partial_path};
use crate::output_path::cannot_create;
use crate::shard_plan::{self, ShardPlan};
use crate::sharded_tensors::ShardedTensors;
use crate::shards::{INDEX_FILE, SINGLE_FILE};
use crate::staging::{Staging, sync_directory};
use crate::unfinished::critical_section;
use crate::{CheckpointError, CheckpointErrorKind, StoredWeight, WeightLayout};
use fewbit_numerics::dtype::DType;
use serde_json::Value;
use std::borrow::Cow;
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

/// Writes into a sibling temporary directory; `finish` renames it. Dropped unfinished, it removes everything but shards that are to be
/// [kept](Self::keep_shards).
///
/// The temporary directory is hidden, `.NAME.fewbit-partial-XXXXXX`; if the process is killed, a later one that writes there removes it.
///
/// Bytes of tensors are written by a thread of its own: an error that the system has for them may come with a later call, with
/// [`finish`](Self::finish) at the latest.
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
    tensors: Option<ShardedTensors>,
    staging: Staging,
    /// The output as it was named; with links followed where it is one.
    named: PathBuf,
    /// config.json, held back until everything else is written.
    config: Option<Vec<u8>>,
    available_bytes: fn(&Path) -> Option<u64>,
}

impl CheckpointWriter {
    /// Errors if `out` exists and is not an empty directory, unless `force` (then it is replaced, at `finish`; a file is never replaced).
    ///
    /// Missing parents of `out` are created.
    pub fn create(out: impl AsRef<Path>, force: bool) -> Result<Self, CheckpointError> {
        let out = out.as_ref();
        let staging = Staging::create(out, force)?;
        // What is kept beside it has to be on the same file system.
        let named = match out.is_symlink() {
            true => staging.out().to_owned(),
            false => out.to_owned(),
        };
        Ok(CheckpointWriter {
            tensors: None,
            staging,
            named,
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
    pub fn write_json(&mut self, name: &str, value: &Value) -> Result<(), CheckpointError> {
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

    /// The name of the file of weights number `index`, from 0 on, of `total`.
    pub fn file_name(index: usize, total: usize) -> String {
        shard_plan::file_name(index, total)
    }

    /// Bytes of each file of weights, header included, that [`plan_shards`](Self::plan_shards) would reserve.
    ///
    /// # Errors
    /// Two tensors of one name, or sizes that overflow.
    ///
    /// ```
    /// use fewbit_checkpoint::{CheckpointWriter, TensorPlan};
    /// use fewbit_numerics::dtype::DType;
    ///
    /// let bias = |name| vec![TensorPlan::new(name, DType::F32, [2])];
    /// let files = CheckpointWriter::file_bytes(vec![bias("a.bias"), bias("b.bias")], 8)?;
    /// assert_eq!(files.len(), 2);
    /// assert!(files[0] > 8);
    /// # Ok::<(), fewbit_checkpoint::CheckpointError>(())
    /// ```
    pub fn file_bytes(
        groups: Vec<Vec<TensorPlan>>,
        most_bytes: u64,
    ) -> Result<Vec<u64>, CheckpointError> {
        let plan = ShardPlan::new(groups, most_bytes)?;
        let bytes = plan.files.iter().map(|(_, layout)| layout.total_bytes());
        Ok(bytes.collect())
    }

    /// Reserves model.safetensors for these tensors (`__metadata__ {"format":"pt"}`), checks free disk space.
    ///
    /// Tensors are laid out by descending element size, then name. Called once.
    pub fn plan_tensors(&mut self, tensors: Vec<TensorPlan>) -> Result<(), CheckpointError> {
        self.plan_shards(vec![tensors], u64::MAX)
    }

    /// [`plan_tensors`](Self::plan_tensors) of files with at most `most_bytes` of tensors each, as many as it takes:
    /// `model-00001-of-00003.safetensors` and so on, and an index. Each of the `groups` lies in one file, whose tensors may be more than `most_bytes`
    /// only where it holds one group. Where all of it fits into one file, that is model.safetensors.
    ///
    /// # Errors
    /// As for [`plan_tensors`](Self::plan_tensors).
    pub fn plan_shards(
        &mut self,
        groups: Vec<Vec<TensorPlan>>,
        most_bytes: u64,
    ) -> Result<(), CheckpointError> {
        let out = self.staging.out();
        if self.tensors.is_some() {
            return Err(CheckpointError::new(
                CheckpointErrorKind::Malformed,
                "the tensors are already planned",
            )
            .in_file(out.join(SINGLE_FILE)));
        }
        let plan = ShardPlan::new(groups, most_bytes).map_err(|error| {
            let file = error.file().map(|name| out.join(name));
            error.in_file(file.unwrap_or_else(|| out.to_owned()))
        })?;
        let needed = plan.total_bytes();
        if let Some(available) = (self.available_bytes)(self.staging.path())
            && available < needed
        {
            return Err(disk_full(out, needed, Some(available)));
        }
        self.tensors = Some(ShardedTensors::new(plan, self.staging.path(), out));
        Ok(())
    }

    /// Keeps shards that are whole beside the output, in [`partial_path`], from now on: after a run that was interrupted, however that happened, another
    /// one with `resume` need not write them again. `run` says what they depend on. For each file of weights, the record that it was
    /// [finished](Self::finish_shard) with if it is whole already; no tensor of it is written any more then.
    ///
    /// An output of one file has nothing to keep. What an interrupted run left is refused all the same without `resume`.
    ///
    /// # Errors
    /// There are shards already and nobody said `resume`, they are of another run, or another process works on them; nothing is planned.
    pub fn keep_shards(
        &mut self,
        run: Value,
        resume: bool,
    ) -> Result<Vec<Option<Value>>, CheckpointError> {
        let kept = KeptShards::open(partial_path(&self.named), run, resume)?;
        let Some(tensors) = &mut self.tensors else {
            return Err(self.nothing_planned());
        };
        Ok(match tensors.len() {
            1 => vec![None],
            _ => tensors.keep_in(kept),
        })
    }

    /// The directory of shards that are kept, if there is one that is whole.
    pub fn kept_shards(&self) -> Option<PathBuf> {
        self.tensors.as_ref()?.kept_directory()
    }

    /// Removes the shards that were kept, and everything else.
    pub fn discard(mut self) {
        if let Some(tensors) = &mut self.tensors {
            tensors.stop();
            tensors.discard_kept(&mut critical_section(), self.staging.scratch());
        }
    }

    /// The number of the file that holds a tensor, from 0 on; none if it is not planned.
    pub fn shard_of(&self, tensor: &str) -> Option<usize> {
        self.tensors.as_ref()?.place(tensor)
    }

    /// Number of planned files of weights.
    pub fn shards(&self) -> usize {
        self.tensors.as_ref().map_or(0, ShardedTensors::len)
    }

    /// Bytes of all planned files of weights, headers included.
    pub fn planned_bytes(&self) -> u64 {
        let tensors = self.tensors.as_ref();
        tensors.map_or(0, ShardedTensors::total_bytes)
    }

    /// Says that all tensors of file number `shard` are written: it is synced while others are written, and kept with `record`, if
    /// [shards are kept](Self::keep_shards). Without this, [`finish`](Self::finish) does the same for each in the end, and keeps none.
    ///
    /// # Errors
    /// A tensor was not written whole; what an earlier write met with.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn finish_shard(&mut self, shard: usize, record: Value) -> Result<(), CheckpointError> {
        let staging = (self.staging.path(), self.staging.scratch());
        match &mut self.tensors {
            Some(tensors) => tensors.finish_shard(shard, record, staging),
            None => Err(self.nothing_planned()),
        }
    }

    /// Writes one planned tensor, in any order, exactly once; wrong length or name is an error.
    pub fn write_tensor(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.write(name, None, Cow::Borrowed(bytes))
    }

    /// A part of a tensor at a byte offset, for tensors that are converted slice by slice. No byte may be written twice.
    pub fn write_tensor_part(
        &mut self,
        name: &str,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), CheckpointError> {
        self.write(name, Some(offset), Cow::Borrowed(bytes))
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
            self.write(&part.name, Some(part.offset), part.bytes)?;
        }
        Ok(())
    }

    /// Errors if a planned tensor was not written whole. Syncs and renames; returns the output directory.
    pub fn finish(mut self) -> Result<PathBuf, CheckpointError> {
        if let Some(tensors) = &mut self.tensors {
            tensors.finish(self.staging.path())?;
            let index = tensors.index();
            if let Some(index) = index {
                self.write_json(INDEX_FILE, &index)?;
            }
        }
        if let Some(config) = self.config.take() {
            self.write_now(CONFIG_FILE, &config)?;
        }
        sync_directory(self.staging.path());
        let mut tensors = self.tensors;
        self.staging.commit(|section, scratch| {
            if let Some(tensors) = &mut tensors {
                tensors.discard_kept(section, scratch);
            }
        })
    }

    fn write(
        &mut self,
        name: &str,
        offset: Option<usize>,
        bytes: Cow<'_, [u8]>,
    ) -> Result<(), CheckpointError> {
        match &mut self.tensors {
            Some(tensors) => tensors.write(name, offset, bytes),
            None => Err(self.nothing_planned().at_tensor(name)),
        }
    }

    fn nothing_planned(&self) -> CheckpointError {
        CheckpointError::new(
            CheckpointErrorKind::MissingTensor,
            "not planned: expected `plan_tensors` first",
        )
        .in_file(self.staging.out().join(SINGLE_FILE))
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
