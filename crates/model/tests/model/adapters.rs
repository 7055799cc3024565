//! PEFT adapters against transformers and peft: the hidden states of base and adapter together.

use crate::golden_files::{Expected, cases, golden, largest_difference};
use fewbit_checkpoint::{Checkpoint, CheckpointErrorKind};
use fewbit_model::{Network, RaggedBatch, open_checkpoint};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// As for models without an adapter (`architectures.rs`): merging rounds each weight of the sum once more, which is less than the
/// reference's own distance from float64.
const TOLERANCE: f32 = 2e-5;

/// Copies the files of a folder, but for what is expected of it.
fn copy(from: &Path, into: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if name != "expected.safetensors" && name != "base.txt" {
            fs::write(into.join(name), fs::read(&path).unwrap()).unwrap();
        }
    }
}

fn base_of(case: &str) -> PathBuf {
    let name = fs::read_to_string(golden("adapters").join(case).join("base.txt")).unwrap();
    golden("architectures").join(name.trim())
}

/// The base model with the adapter of this case beside it.
fn beside(case: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    copy(&base_of(case), directory.path());
    copy(&golden("adapters").join(case), directory.path());
    directory
}

fn edit(directory: &Path, change: impl FnOnce(&mut Value)) {
    let file = directory.join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut config);
    fs::write(&file, config.to_string()).unwrap();
}

/// Largest difference to what is expected of the case.
fn difference(case: &str, directory: &Path) -> f32 {
    let checkpoint = open_checkpoint(directory).expect("base and adapter");
    let (network, _) = Network::load(&checkpoint).expect("loads");
    let expected = Expected::read(&golden("adapters").join(case).join("expected.safetensors"));
    let (mut largest, mut index) = (0.0f32, 0);
    while let Some(ids) = expected.ids(&format!("sequence.{index}.input_ids")) {
        let mut batch = RaggedBatch::new();
        batch.push(&ids, &[]);
        let states = network.hidden_states(&batch, 1).expect("runs");
        let name = format!("sequence.{index}.last_hidden_state");
        largest = largest.max(largest_difference(&states, &expected.f32(&name).unwrap()));
        index += 1;
    }
    assert!(index > 0, "{case}");
    largest
}

#[test]
fn base_and_adapter_run_as_one_model() {
    for case in cases("adapters") {
        let found = difference(&case, beside(&case).path());
        assert!(found <= TOLERANCE, "{case}: {found:e}");
    }
}

#[test]
fn without_its_adapter_the_base_gives_other_states() {
    // The golden files would not show an adapter that is passed over if it did nothing.
    for case in cases("adapters") {
        assert!(difference(&case, &base_of(&case)) > 0.01, "{case}");
    }
}

/// The adapter as PEFT wrote it before safetensors; beside a safetensors file it is passed over, as PEFT does it.
#[test]
fn an_adapter_that_pytorch_wrote_gives_the_same_states() {
    let directory = beside("lora");
    let pickle = directory.path().join("adapter_model.bin");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../checkpoint/tests/golden/pytorch/adapter/adapter_model.bin");
    fs::write(&pickle, "damaged").unwrap();
    let expected = difference("lora", directory.path());
    fs::copy(golden, pickle).unwrap();
    fs::remove_file(directory.path().join("adapter_model.safetensors")).unwrap();
    let found = difference("lora", directory.path());
    assert!(found <= TOLERANCE, "{found:e}");
    assert_eq!(found.to_bits(), expected.to_bits());
}

#[test]
fn an_adapter_alone_names_its_base() {
    let directory = tempfile::tempdir().unwrap();
    copy(&golden("adapters").join("lora"), directory.path());
    let base = base_of("lora");
    edit(directory.path(), |config| {
        config["base_model_name_or_path"] = json!(base.to_str().unwrap());
    });
    assert!(difference("lora", directory.path()) <= TOLERANCE);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(
        checkpoint.adapter().unwrap().base.as_deref(),
        Some(base.as_path())
    );
}

/// The error of a directory that was changed.
fn refusal(case: &str, change: impl FnOnce(&Path)) -> (CheckpointErrorKind, String) {
    let directory = beside(case);
    change(directory.path());
    let error = Checkpoint::open(directory.path()).expect_err("refused");
    let text = error.to_string();
    (
        error.kind(),
        text.replace(directory.path().to_str().unwrap(), "DIR"),
    )
}

#[test]
fn what_would_be_another_update_is_refused_by_its_key() {
    for (key, value) in [
        ("peft_type", json!("IA3")),
        ("bias", json!("all")),
        ("init_lora_weights", json!("pissa")),
        ("use_qalora", json!(true)),
        ("layer_replication", json!([[0, 1], [0, 2]])),
        ("trainable_token_indices", json!([1, 2])),
        ("r", json!(0)),
        ("r", json!("four")),
        ("use_dora", json!("yes")),
    ] {
        let (_, text) = refusal("lora", |directory| {
            edit(directory, |config| config[key] = value.clone());
        });
        assert!(text.contains(&format!("`{key}`")), "{key}: {text}");
        assert!(text.contains("adapter_config.json"), "{key}: {text}");
        assert!(text.contains("hint:"), "{key}: {text}");
    }
}

#[test]
fn missing_and_foreign_weights_are_refused() {
    let (kind, text) = refusal("lora", |directory| {
        fs::remove_file(directory.join("adapter_model.safetensors")).unwrap();
    });
    assert_eq!(kind, CheckpointErrorKind::NotFound, "{text}");
    assert!(text.contains("the base model would run alone"), "{text}");

    // A file of another kind under the name of PyTorch's.
    let (kind, text) = refusal("lora", |directory| {
        fs::rename(
            directory.join("adapter_model.safetensors"),
            directory.join("adapter_model.bin"),
        )
        .unwrap();
    });
    assert_eq!(kind, CheckpointErrorKind::Malformed, "{text}");
    assert!(
        text.starts_with("DIR/adapter_model.bin: not a PyTorch checkpoint"),
        "{text}"
    );

    // The adapter of another family: its modules are not in this model.
    let (_, text) = refusal("lora", |directory| {
        copy(&golden("adapters").join("distilbert"), directory);
    });
    assert!(
        text.contains("q_lin") && text.contains("another model"),
        "{text}"
    );
}
