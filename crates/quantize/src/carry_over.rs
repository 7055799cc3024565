//! The files of a model directory that come along unchanged.
//!
//! Everything does, except what would be stale or wrong beside quantized weights: the weights
//! themselves in any format, exports to other runtimes, the files that are written anew, and version
//! control. Folders that `modules.json` names (pooling, dense layers of sentence-transformers) come
//! along whole, weights included: they are part of the model and are not quantized.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::QuantizeError;

/// Written anew, never copied.
const WRITTEN_ANEW: [&str; 2] = ["config.json", "recipe.toml"];

/// Folders with exports to other runtimes, version control and download records.
const FOLDERS_LEFT: [&str; 6] = [".cache", ".git", "coreml", "onnx", "openvino", "tflite"];

/// Endings of weight files and their indexes.
const WEIGHTS_LEFT: [&str; 14] = [
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".ot",
    ".onnx",
    ".onnx_data",
    ".gguf",
    ".tflite",
];

/// A file to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CarriedFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Where it goes, relative to the output directory, with `/`.
    pub(crate) name: String,
}

/// The files of `directory` that are carried over, sorted by name. Symbolic links to files are
/// followed, as the Hub cache is made of them; one to a folder that would be carried over is an error.
pub(crate) fn carried_files(directory: &Path) -> Result<Vec<CarriedFile>, QuantizeError> {
    let whole_folders = module_folders(directory);
    let mut files = Vec::new();
    collect(directory, "", &whole_folders, false, &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// The folders that modules.json names. A modules.json that cannot be parsed names none; it is
/// carried over like any file.
fn module_folders(directory: &Path) -> BTreeSet<String> {
    let modules = fs::read(directory.join("modules.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let Some(Value::Array(modules)) = modules else {
        return BTreeSet::new();
    };
    modules
        .iter()
        .filter_map(|module| module.get("path")?.as_str())
        .filter(|path| !path.is_empty())
        .map(|path| path.trim_end_matches('/').to_owned())
        .collect()
}

fn collect(
    folder: &Path,
    prefix: &str,
    whole_folders: &BTreeSet<String>,
    whole: bool,
    files: &mut Vec<CarriedFile>,
) -> Result<(), QuantizeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| QuantizeError::Io { path, source }
    };
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let file_name = path.file_name().and_then(|name| name.to_str());
        let file_name = file_name.ok_or_else(|| {
            failed(&path)(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "expected a file name in UTF-8",
            ))
        })?;
        let name = format!("{prefix}{file_name}");
        let metadata = fs::metadata(&path).map_err(failed(&path))?;
        if metadata.is_dir() {
            let whole = whole || whole_folders.contains(&name);
            if whole || !FOLDERS_LEFT.contains(&file_name) {
                if path.is_symlink() {
                    return Err(QuantizeError::LinkedFolder { path });
                }
                collect(&path, &format!("{name}/"), whole_folders, whole, files)?;
            }
        } else if metadata.is_file() && (whole || is_carried(&name, file_name)) {
            files.push(CarriedFile { path, name });
        }
    }
    Ok(())
}

fn is_carried(name: &str, file_name: &str) -> bool {
    !WRITTEN_ANEW.contains(&name)
        && !WEIGHTS_LEFT
            .iter()
            .any(|ending| file_name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[(&str, &str)]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        carried_files(directory.path())
            .unwrap()
            .into_iter()
            .map(|file| file.name)
            .collect()
    }

    #[test]
    fn weights_exports_and_version_control_stay_behind() {
        let left = [
            "config.json",
            "recipe.toml",
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "tf_model.h5",
            "flax_model.msgpack",
            "rust_model.ot",
            "model.onnx",
            "onnx/model.onnx",
            "onnx/config.json",
            "openvino/openvino_model.xml",
            ".git/HEAD",
            ".cache/huggingface/download/x.metadata",
        ];
        let carried = [
            ".gitattributes",
            "README.md",
            "generation_config.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
        ];
        let all: Vec<(&str, &str)> = left
            .iter()
            .chain(&carried)
            .map(|name| (*name, "x"))
            .collect();
        assert_eq!(names(&all), carried);
    }

    #[test]
    fn folders_of_modules_json_come_along_whole() {
        let modules =
            r#"[{"idx":0,"path":""},{"idx":1,"path":"1_Pooling"},{"idx":2,"path":"2_Dense"}]"#;
        assert_eq!(
            names(&[
                ("modules.json", modules),
                ("1_Pooling/config.json", "{}"),
                ("2_Dense/config.json", "{}"),
                ("2_Dense/model.safetensors", "x"),
                ("3_Other/model.safetensors", "x"),
                ("3_Other/notes.txt", "x"),
            ]),
            [
                "1_Pooling/config.json",
                "2_Dense/config.json",
                "2_Dense/model.safetensors",
                "3_Other/notes.txt",
                "modules.json",
            ]
        );
    }
}
