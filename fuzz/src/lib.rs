//! What several fuzz targets need: a directory for the files of one input, and contents for a checkpoint.

use fewbit_checkpoint::Checkpoint;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::path::{Path, PathBuf};

/// Made once a process, in the directory for temporary files (`run.sh` names one in memory, and removes it). Each input
/// overwrites the files of the one before.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// An empty directory.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("there is a place for temporary files");
        // A fuzzer ends without destructors.
        Self(directory.keep())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file `name` with these contents.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("the directory for temporary files has room");
        path
    }

    /// Removes the file `name`, if there is one.
    pub fn remove(&self, name: &str) {
        match std::fs::remove_file(self.0.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// A tensor to write.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Little-endian elements.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor of 32-bit floats.
    pub fn floats(name: impl Into<String>, shape: &[usize], values: &[f32]) -> Self {
        Self {
            name: name.into(),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            bytes: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }

    /// A tensor of single bytes.
    pub fn bytes(name: impl Into<String>, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
            bytes,
        }
    }
}

/// A safetensors file, written by the `safetensors` crate.
pub fn safetensors_file(tensors: &[Tensor]) -> Vec<u8> {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
        (tensor.name.as_str(), view.expect("bytes of that shape"))
    });
    safetensors::serialize(views, None).expect("tensors of different names")
}

/// The checkpoint of a small BERT among the golden files.
pub fn small_bert() -> Checkpoint {
    let directory = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crates/model/tests/golden/architectures/bert"
    );
    Checkpoint::open(directory).expect("a golden checkpoint")
}
