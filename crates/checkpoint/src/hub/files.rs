//! Which files of a repository an encoder needs.
use crate::adapter::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHT_NAMES};
use crate::checkpoint::CONFIG_FILE;
use crate::location::MODULES_FILE;
use crate::shards::{PYTORCH_SINGLE_FILE, SINGLE_FILE, WEIGHT_NAMES};
use serde_json::Value;
use std::collections::BTreeSet;

/// Files beside the weights, or at the top of the repository, that are downloaded where they exist.
const OPTIONAL: [&str; 20] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    MODULES_FILE,
    // The transformer module's settings, under all the names that sentence-transformers has given them.
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlnet_config.json",
    "sentence_xlm-roberta_config.json",
    "config_sentence_transformers.json",
    // An adapter is a part of the model.
    ADAPTER_CONFIG_FILE,
];

/// The file of the weights or the index of their shards, among `available` those that are read.
pub(super) fn weights(available: &BTreeSet<String>) -> Option<&'static str> {
    WEIGHT_NAMES
        .into_iter()
        .flat_map(|(single, index)| [single, index])
        .find(|name| available.contains(*name))
}

/// Files to download besides the shards, which the index names: those of `available` that are config.json, tokenizer, adapter and
/// sentence-transformers files, and the weights or their index.
pub(super) fn first_files(available: &BTreeSet<String>) -> Vec<&str> {
    let adapter_weights = ADAPTER_WEIGHT_NAMES
        .into_iter()
        .find(|name| available.contains(*name));
    [Some(CONFIG_FILE), weights(available), adapter_weights]
        .into_iter()
        .flatten()
        .chain(OPTIONAL)
        .filter(|name| available.contains(*name))
        .collect()
}

/// The shards that an index names, in order.
pub(super) fn shards(index: &Value) -> BTreeSet<String> {
    let map = index.get("weight_map").and_then(Value::as_object);
    map.into_iter()
        .flat_map(|map| map.values())
        .filter_map(|shard| shard.as_str().map(str::to_owned))
        .collect()
}

/// Configuration and weights of the folders that modules.json names. (The module without a folder is the encoder.)
pub(super) fn module_files(modules: &Value, available: &BTreeSet<String>) -> Vec<String> {
    let paths = modules
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|module| module.get("path")?.as_str());
    let names = paths.filter(|path| !path.is_empty()).flat_map(|path| {
        let file = |name: &str| {
            let name = format!("{}/{name}", path.trim_end_matches('/'));
            available.contains(&name).then_some(name)
        };
        [
            file(CONFIG_FILE),
            file(SINGLE_FILE).or_else(|| file(PYTORCH_SINGLE_FILE)),
        ]
    });
    names.flatten().collect()
}

/// Whether a file name of the Hub is a relative path that stays inside its directory.
pub(super) fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && !name.contains('\\')
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

/// The files of `available` that lie in `folder`, without its name; all of them if there is no folder.
pub(super) fn inside(available: &BTreeSet<String>, folder: Option<&str>) -> BTreeSet<String> {
    let Some(folder) = folder else {
        return available.clone();
    };
    let names = available
        .iter()
        .filter_map(|name| name.strip_prefix(folder)?.strip_prefix('/'));
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn available(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn only_what_is_needed() {
        let all = available(&[
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "tokenizer.json",
            "vocab.txt",
        ]);
        assert_eq!(
            first_files(&all),
            [
                "config.json",
                "model.safetensors",
                "tokenizer.json",
                "vocab.txt"
            ]
        );
        let sharded = available(&[
            "config.json",
            "model.safetensors.index.json",
            "model-00001-of-00001.safetensors",
        ]);
        assert_eq!(
            first_files(&sharded),
            ["config.json", "model.safetensors.index.json"]
        );
        let pickled = available(&[
            "config.json",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "training_args.bin",
        ]);
        assert_eq!(first_files(&pickled), ["config.json", "pytorch_model.bin"]);
        let adapter = |weights: &[&str]| {
            let names = [&["adapter_config.json", "README.md"], weights].concat();
            first_files(&available(&names)).join(" ")
        };
        assert_eq!(
            adapter(&["adapter_model.bin"]),
            "adapter_model.bin adapter_config.json"
        );
        assert_eq!(
            adapter(&["adapter_model.bin", "adapter_model.safetensors"]),
            "adapter_model.safetensors adapter_config.json"
        );
    }

    #[test]
    fn sentence_settings_under_every_name() {
        let all = available(&[
            "config_sentence_transformers.json",
            "modules.json",
            "sentence_bert_config.json",
            "sentence_camembert_config.json",
            "sentence_distilbert_config.json",
            "sentence_roberta_config.json",
            "sentence_xlm-roberta_config.json",
        ]);
        let first: BTreeSet<String> = first_files(&all).into_iter().map(str::to_owned).collect();
        assert_eq!(first, all);
    }

    #[test]
    fn folders_of_modules() {
        let all = available(&[
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "4_Dense/config.json",
            "4_Dense/pytorch_model.bin",
        ]);
        let modules = json!([{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}, {"path": "3_Normalize"}, {"path": "4_Dense"}]);
        assert_eq!(
            module_files(&modules, &all),
            [
                "1_Pooling/config.json",
                "2_Dense/config.json",
                "2_Dense/model.safetensors",
                "4_Dense/config.json",
                "4_Dense/pytorch_model.bin"
            ]
        );
        assert!(module_files(&json!({"path": 1}), &all).is_empty());
    }

    #[test]
    fn names_that_lead_out() {
        assert!(is_inside("1_Pooling/config.json"));
        for name in ["", "/etc/x", "../x", "a/../x", "a//b", "a\\b"] {
            assert!(!is_inside(name), "{name}");
        }
    }
}
