//! A model to measure.

use std::fs;
use std::path::Path;

/// The tiny BERT of fewbit-model's golden files (80 words, 36 positions) with a vocab.txt.
pub(crate) fn tiny_model() -> tempfile::TempDir {
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/architectures/bert");
    let directory = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::write(
            directory.path().join(name),
            fs::read(golden.join(name)).unwrap(),
        )
        .unwrap();
    }
    let mut words: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .map(str::to_owned)
        .to_vec();
    words.extend((0..75).map(|i| format!("word{i}")));
    fs::write(directory.path().join("vocab.txt"), words.join("\n")).unwrap();
    directory
}
