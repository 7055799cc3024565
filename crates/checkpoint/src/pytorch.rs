//! A PyTorch checkpoint (`pytorch_model.bin`): a pickled state dict, and the bytes of its tensors.
//!
//! A pickle is a program. [`pickle`] reads it without executing anything: it knows what a state dict of tensors needs and refuses all
//! else by its name. Tensors are read in place from the mapped file, in both forms that `torch.save` has written: a zip archive
//! ([`zip_archive`]), and before version 1.6 a stream ([`stream`]).
mod globals;
mod objects;
mod pickle;
mod state_dict;
mod stream;
mod zip_archive;

use crate::memory_map::MappedFile;
use crate::weights_file::WeightsFile;
use crate::{CheckpointError, CheckpointErrorKind};
use objects::Storage;
use std::path::Path;
use std::sync::Arc;
use zip_archive::ZipArchive;

const DOWNLOAD_AGAIN: &str = "the file is incomplete or damaged: download or write it again";
const SAVE_AGAIN: &str = "fewbit executes nothing that a file says; if you trust the file, load it with torch.load(FILE, weights_only=True) \
     and save its tensors with safetensors.torch.save_file as model.safetensors";

/// Maps the file at `path` and finds its tensors.
pub(crate) fn open(path: &Path) -> Result<WeightsFile, CheckpointError> {
    let map = MappedFile::open(path)
        .map(Arc::new)
        .map_err(|error| CheckpointError::io("cannot open", path, error))?;
    read(path, &map).map_err(|error| error.in_file(path))
}

fn read(path: &Path, map: &Arc<MappedFile>) -> Result<WeightsFile, CheckpointError> {
    let file = map.bytes();
    if file.starts_with(zip_archive::LOCAL_HEADER) {
        read_archive(path, map)
    } else if file.starts_with(stream::MAGIC) {
        stream::read(path, map)
    } else if file.starts_with(b"version https://git-lfs") {
        Err(
            malformed("a Git LFS pointer instead of a PyTorch checkpoint")
                .hint("fetch the data with `git lfs pull`"),
        )
    } else {
        Err(malformed(format!(
            "not a PyTorch checkpoint: expected what torch.save writes, found other bytes at the start of the {} that it has",
            file.len()
        ))
        .hint(SAVE_AGAIN))
    }
}

fn read_archive(path: &Path, map: &Arc<MappedFile>) -> Result<WeightsFile, CheckpointError> {
    let file = map.bytes();
    let archive = ZipArchive::read(file)?;
    let folder = archive.folder().ok_or_else(|| {
        malformed("zip archive: expected a folder as torch.save writes it, found none")
    })?;
    let entry = |name: &str| archive.entry(&format!("{folder}/{name}"));
    if entry("constants.pkl").is_some() {
        return Err(
            unsupported("expected a state dict, found a TorchScript program")
                .hint("save the state dict of the model instead: model.save_pretrained(OUT)"),
        );
    }
    if let Some(order) = entry("byteorder").map(|range| &file[range])
        && order != b"little"
    {
        return Err(unsupported(format!(
            "byteorder: expected little, found {}",
            String::from_utf8_lossy(&order[..order.len().min(20)])
        )));
    }
    let Some(program) = entry("data.pkl") else {
        return Err(malformed(format!(
            "zip archive: expected the entry {folder}/data.pkl, found none"
        ))
        .hint(DOWNLOAD_AGAIN));
    };
    let in_pickle = |error: CheckpointError| error.within("data.pkl");
    let (objects, root, _) = pickle::read(&file[program]).map_err(in_pickle)?;
    state_dict::read(path, map, &objects, root, |storage| {
        let key = storage.key;
        if storage.part.is_some() {
            return Err(malformed(format!(
                "storage `{key}`: expected a whole one, as zip archives have them, found a part"
            )));
        }
        let range = entry(&format!("data/{key}")).ok_or_else(|| {
            malformed(format!(
                "storage `{key}`: expected the entry {folder}/data/{key}, found none"
            ))
        })?;
        expect_bytes(storage, range.len())?;
        Ok(range)
    })
}

/// Errors unless a storage has as many bytes as the pickle says.
fn expect_bytes(storage: &Storage<'_>, found: usize) -> Result<(), CheckpointError> {
    let Storage {
        key,
        elements,
        dtype,
        ..
    } = storage;
    let expected = usize::try_from(*elements)
        .ok()
        .and_then(|elements| elements.checked_mul(dtype.bytes()));
    if expected == Some(found) {
        return Ok(());
    }
    Err(malformed(format!(
        "storage `{key}`: expected {elements} elements of {} bytes, found {found} bytes",
        dtype.bytes()
    ))
    .hint(DOWNLOAD_AGAIN))
}

fn malformed(message: impl Into<String>) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::Malformed, message)
}

/// The error for what a pickle may say, and fewbit does not take.
fn unsupported(message: impl Into<String>) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::UnsupportedPickle, message).hint(SAVE_AGAIN)
}
