//! The files of a model directory that come along unchanged.
//!
//! Everything does, except what would be stale or wrong beside quantized weights: the weights
//! themselves in any format, exports to other runtimes, the files that are written anew, and version
//! control. Those of an adapter stay behind, too: it is merged into the weights. Folders that `modules.json` names (pooling, dense layers of sentence-transformers) come
//! along whole, weights included: they are part of the model and are not quantized.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fewbit_checkpoint::{ADAPTER_CONFIG_FILE, Checkpoint, MODULES_FILE};
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

/// The files of `directory` that are carried over, sorted by name. Those of `encoder_folder` go to the root. Symbolic links to files
/// are followed, as the Hub cache is made of them; one to a folder that would be carried over is an error.
pub(crate) fn carried_files(
    directory: &Path,
    encoder_folder: Option<&str>,
) -> Result<Vec<CarriedFile>, QuantizeError> {
    let mut whole_folders = module_folders(directory);
    let mut files = Vec::new();
    if let Some(folder) = encoder_folder {
        whole_folders.remove(folder);
        collect(
            &directory.join(folder),
            "",
            &whole_folders,
            false,
            &mut files,
        )?;
    }
    let mut others = Vec::new();
    collect(directory, "", &whole_folders, false, &mut others)?;
    if let Some(folder) = encoder_folder {
        let inside = directory.join(folder);
        others.retain(|file| {
            !file.path.starts_with(&inside)
                && file.name != MODULES_FILE
                && files.iter().all(|known| known.name != file.name)
        });
    }
    files.append(&mut others);
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// modules.json with the encoder at the root of the output, where it has a folder of its own in the source.
pub(crate) fn modules_at_root(checkpoint: &Checkpoint) -> Result<Option<Value>, QuantizeError> {
    if checkpoint.folder().is_none() {
        return Ok(None);
    }
    let path = checkpoint.directory().join(MODULES_FILE);
    let failed = |source| QuantizeError::Io {
        path: path.clone(),
        source,
    };
    let bytes = fs::read(&path).map_err(failed)?;
    let mut modules: Value =
        serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
    modules[0]["path"] = Value::from("");
    Ok(Some(modules))
}

/// The folders that modules.json names. A modules.json that cannot be parsed names none; it is
/// carried over like any file.
fn module_folders(directory: &Path) -> BTreeSet<String> {
    let modules = fs::read(directory.join(MODULES_FILE))
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
        // The adapter's weights are left as all weights are.
        && file_name != ADAPTER_CONFIG_FILE
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
        let folder = directory.path().join("0_Transformer").is_dir();
        carried_files(directory.path(), folder.then_some("0_Transformer"))
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
            "adapter_config.json",
            "adapter_model.safetensors",
            "adapter_model.bin",
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
            "added_tokens.json",
            "generation_config.json",
            "merges.txt",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json",
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

    #[test]
    fn the_encoder_of_an_older_layout_goes_to_the_root() {
        let modules = r#"[{"idx":0,"path":"0_Transformer"},{"idx":1,"path":"1_Pooling"}]"#;
        assert_eq!(
            names(&[
                ("modules.json", modules),
                ("README.md", "of the model"),
                ("0_Transformer/README.md", "of the encoder"),
                ("0_Transformer/config.json", "{}"),
                ("0_Transformer/model.safetensors", "x"),
                ("0_Transformer/sentence_bert_config.json", "{}"),
                ("0_Transformer/vocab.txt", "x"),
                ("1_Pooling/config.json", "{}"),
            ]),
            [
                "1_Pooling/config.json",
                "README.md",
                "sentence_bert_config.json",
                "vocab.txt",
            ]
        );
    }
}
