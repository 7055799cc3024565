//! Reading the golden files.

use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};

/// The folder `golden/path`.
pub(crate) fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(path)
}

/// Folders in `golden/path`, by name.
pub(crate) fn cases(path: &str) -> Vec<String> {
    let entries = std::fs::read_dir(golden(path)).expect("golden folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("readable"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no cases in {path}");
    names
}

/// `expected.safetensors` of a case.
pub(crate) struct Expected(Vec<u8>);

impl Expected {
    pub(crate) fn read(file: &Path) -> Self {
        Self(std::fs::read(file).expect("golden file"))
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).expect("safetensors")
    }

    pub(crate) fn f32(&self, name: &str) -> Option<Vec<f32>> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).ok()?;
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        Some(
            tensor
                .data()
                .as_chunks()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
        )
    }

    pub(crate) fn ids(&self, name: &str) -> Option<Vec<u32>> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).ok()?;
        assert_eq!(tensor.dtype(), Dtype::I64, "{name}");
        let values = tensor
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|bytes| i64::from_le_bytes(*bytes));
        Some(
            values
                .map(|id| u32::try_from(id).expect("a token id"))
                .collect(),
        )
    }
}

/// One line of `expected.jsonl`.
#[derive(Debug)]
pub(crate) struct ExpectedText {
    pub(crate) text: String,
    pub(crate) token_ids: Vec<u32>,
    pub(crate) truncated: bool,
}

pub(crate) fn expected_texts(file: &Path) -> Vec<ExpectedText> {
    let lines = std::fs::read_to_string(file).expect("golden file");
    lines
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            let ids = value["token_ids"].as_array().expect("token ids").iter();
            ExpectedText {
                text: value["text"].as_str().expect("a text").to_owned(),
                token_ids: ids
                    .map(|id| {
                        id.as_u64()
                            .and_then(|id| u32::try_from(id).ok())
                            .expect("an id")
                    })
                    .collect(),
                truncated: value["truncated"].as_bool().unwrap_or(false),
            }
        })
        .collect()
}

/// Largest absolute difference; infinite if one is NaN or the lengths differ.
pub(crate) fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    if found.len() != expected.len() {
        return f32::INFINITY;
    }
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |largest, difference| {
        if difference <= largest {
            largest
        } else if difference.is_nan() {
            f32::INFINITY
        } else {
            difference
        }
    })
}
