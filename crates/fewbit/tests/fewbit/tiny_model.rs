//! A model to run.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The tiny BERT of fewbit-model's golden files, without a tokenizer.
pub(crate) fn tiny_bert() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/architectures/bert")
}

/// A directory with the tiny BERT in `model` and a tokenizer of single letters.
pub(crate) fn workspace() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let model = directory.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::write(
            model.join(name),
            std::fs::read(tiny_bert().join(name)).unwrap(),
        )
        .unwrap();
    }
    let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .map(str::to_owned)
        .into_iter();
    let tokens = tokens
        .chain(('a'..='z').map(String::from))
        .chain(('a'..='z').map(|letter| format!("##{letter}")));
    std::fs::write(
        model.join("vocab.txt"),
        tokens.map(|token| token + "\n").collect::<String>(),
    )
    .unwrap();
    std::fs::write(
        model.join("tokenizer_config.json"),
        r#"{"tokenizer_class": "BertTokenizer"}"#,
    )
    .unwrap();
    (directory, model)
}
