//! Checkpoint directories made of given tensors, written with the `safetensors` crate.
#![allow(dead_code, reason = "each test file uses a part")]

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Name, dtype, shape, little-endian data.
pub(crate) type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// A tensor of little-endian bytes.
pub(crate) fn tensor(
    name: &str,
    dtype: Dtype,
    shape: &[usize],
    data: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> Tensor {
    let data = data
        .into_iter()
        .flat_map(|bytes| bytes.as_ref().to_vec())
        .collect();
    (name.to_owned(), dtype, shape.to_vec(), data)
}

/// An F32 tensor.
pub(crate) fn f32_tensor(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    tensor(
        name,
        Dtype::F32,
        shape,
        values.iter().map(|value| value.to_le_bytes()),
    )
}

/// The bytes of a safetensors file.
pub(crate) fn safetensors_bytes(tensors: &[Tensor]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    serialize(views, None).unwrap()
}

/// A temporary directory with config.json and, if there are any tensors, model.safetensors.
pub(crate) struct CheckpointDirectory(TempDir);

impl CheckpointDirectory {
    pub(crate) fn new(config: &Value, tensors: &[Tensor]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        if !tensors.is_empty() {
            fs::write(
                directory.path().join("model.safetensors"),
                safetensors_bytes(tensors),
            )
            .unwrap();
        }
        CheckpointDirectory(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), content).unwrap();
    }

    /// The text of an error with this directory's path shortened to `DIR`.
    pub(crate) fn text(&self, error: &fewbit_checkpoint::CheckpointError) -> String {
        error
            .to_string()
            .replace(&self.path().display().to_string(), "DIR")
    }
}

/// A directory of golden files.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}
