//! Small models of every family that fewbit runs.

use candle_core::{Device, Tensor};
use fewbit_checkpoint::Checkpoint;
use std::collections::HashMap;
use std::path::PathBuf;

/// The folders of golden models, in order.
pub(crate) fn names() -> Vec<String> {
    names_in("architectures")
}

/// The folders of golden models with a task head, in order.
pub(crate) fn names_with_heads() -> Vec<String> {
    names_in("task_heads")
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(golden().join(folder)).expect("golden models");
    let names = entries.map(|entry| entry.expect("readable").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names.len() > 50, "only {} golden models", names.len());
    names
}

/// The directory of a golden model with a task head.
pub(crate) fn with_head(name: &str) -> PathBuf {
    golden().join("task_heads").join(name)
}

pub(crate) fn open(name: &str) -> Checkpoint {
    Checkpoint::open(golden().join("architectures").join(name)).expect("a checkpoint")
}

/// What transformers gives, by the names in the golden files' README.
pub(crate) fn expected(name: &str) -> HashMap<String, Tensor> {
    let file = golden()
        .join("architectures")
        .join(name)
        .join("expected.safetensors");
    candle_core::safetensors::load(file, &Device::Cpu).expect("readable")
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden")
}
