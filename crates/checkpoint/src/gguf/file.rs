//! A file, opened.
use super::metadata::Metadata;
use super::reader;
use super::tensor_type::StoredType;
use crate::memory_map::{MappedFile, MappedTensor};
use crate::shards::weights_in;
use crate::{CheckpointError, CheckpointErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its name, as ggml has it: `blk.0.attn_q.weight`.
    pub name: String,
    /// Dimensions, outermost first; at most 4.
    pub shape: Vec<usize>,
    /// How its elements are stored.
    pub kind: StoredType,
    /// Where its bytes are in the file.
    pub(super) range: Range<usize>,
}

impl GgufTensor {
    /// Bytes of its data.
    pub fn byte_len(&self) -> usize {
        self.range.len()
    }

    /// Number of elements.
    pub fn element_count(&self) -> usize {
        self.byte_len() / self.kind.block_bytes() * self.kind.block_elements()
    }
}

/// A GGUF file, mapped and its header checked, no tensor read yet.
///
/// It must not be changed in place while it is open, see [`Checkpoint`](crate::Checkpoint).
///
/// ```
/// use fewbit_checkpoint::gguf::{GgufFile, GgufWriter, MetadataValue};
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("model.gguf");
/// let metadata = [("general.architecture".to_owned(), MetadataValue::String("bert".to_owned()))];
/// GgufWriter::create(&path, false, &metadata, Vec::new())?.finish()?;
/// let file = GgufFile::open(&path)?;
/// assert_eq!(file.metadata().text("general.architecture")?, Some("bert"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct GgufFile {
    path: PathBuf,
    map: Arc<MappedFile>,
    version: u32,
    alignment: usize,
    metadata: Metadata,
    tensors: Vec<GgufTensor>,
}

impl GgufFile {
    /// Maps the file at `path` and reads what stands before the data: versions 2 and 3, little-endian, tensors of any type of ggml.
    ///
    /// # Errors
    /// The file cannot be read, or is malformed in any way; counts and lengths are checked before memory is taken for what they count.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        let map = MappedFile::open(path)
            .map_err(|error| CheckpointError::io("cannot open", path, error))?;
        let header = reader::header(map.bytes()).map_err(|error| error.in_file(path))?;
        Ok(Self {
            path: path.to_owned(),
            map: Arc::new(map),
            version: header.version,
            alignment: header.alignment,
            metadata: Metadata::new(path, header.metadata),
            tensors: header.tensors,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.map.bytes().len() as u64
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Tensors begin at multiples of so many bytes.
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// Everything that is no tensor.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// In the order of the file.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The tensor of this name, if there is one.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// The bytes of a tensor of this file.
    pub(super) fn data(&self, tensor: &GgufTensor) -> MappedTensor {
        MappedTensor::new(Arc::clone(&self.map), tensor.range.clone())
    }
}

/// Whether a path has the ending of GGUF files.
pub fn is_gguf(path: &Path) -> bool {
    let ending = path.extension();
    ending.is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
}

/// The GGUF file that `path` means: itself, or the only one in a directory that has no other weights. None where it means another model.
///
/// # Errors
/// There are several, and no other weights; the directory cannot be read.
pub fn gguf_source(path: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    if !path.is_dir() {
        return Ok((is_gguf(path) && path.is_file()).then(|| path.to_owned()));
    }
    if weights_in(path).is_some() {
        return Ok(None);
    }
    let unreadable = |error| CheckpointError::io("cannot read the directory", path, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if is_gguf(&file) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    match &files[..] {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        several => {
            let names = several.iter().filter_map(|file| file.file_name());
            let names: Vec<String> = names
                .map(|name| format!("`{}`", name.to_string_lossy()))
                .collect();
            Err(CheckpointError::new(
                CheckpointErrorKind::NotFound,
                format!("expected one GGUF file, found {}", names.join(", ")),
            )
            .in_file(path)
            .hint(format!("name one of them: {}", several[0].display())))
        }
    }
}
