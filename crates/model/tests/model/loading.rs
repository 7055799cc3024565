//! The ledger, names that vary, and what goes wrong while loading.

use crate::tiny_checkpoint::{Tensor, TinyCheckpoint};
use fewbit_checkpoint::Checkpoint;
use fewbit_model::{LoadLedger, ModelError, Network, RaggedBatch};

fn load(checkpoint: &TinyCheckpoint) -> Result<(Network, LoadLedger), ModelError> {
    let directory = checkpoint.write();
    Network::load(&Checkpoint::open(directory.path()).expect("opens"))
}

fn states(network: &Network) -> Vec<f32> {
    network
        .hidden_states(&RaggedBatch::from_sequences(&[&[2, 7, 9, 3]]), 1)
        .expect("runs")
}

/// Error text without the temporary directory.
fn error(checkpoint: &TinyCheckpoint) -> String {
    let directory = checkpoint.write();
    let error =
        Network::load(&Checkpoint::open(directory.path()).expect("opens")).expect_err("fails");
    error
        .to_string()
        .replace(&directory.path().display().to_string(), "DIR")
}

#[test]
fn any_prefix_gives_the_same_model() {
    let plain = TinyCheckpoint::of("bert");
    let (network, ledger) = load(&plain).expect("loads");
    let (expected, applied) = (states(&network), ledger.applied.len());
    for prefix in ["bert.", "model.", "model.bert.", "encoder_model."] {
        let mut renamed = TinyCheckpoint::of("bert");
        renamed.tensors = plain
            .tensors
            .iter()
            .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone()))
            .collect();
        let (network, ledger) = load(&renamed).expect("loads");
        assert_eq!(network.spec().prefix, prefix);
        assert_eq!(ledger.applied.len(), applied);
        assert_eq!(states(&network), expected, "{prefix}");
    }
}

#[test]
fn of_two_encoders_the_one_named_for_the_family_is_taken() {
    let plain = TinyCheckpoint::of("bert");
    let expected = states(&load(&plain).expect("loads").0);
    let mut both = TinyCheckpoint::of("bert");
    both.tensors.clear();
    for (name, tensor) in &plain.tensors {
        let zeros = Tensor {
            bytes: vec![0; tensor.bytes.len()],
            ..tensor.clone()
        };
        both.tensors.insert(format!("bert.{name}"), tensor.clone());
        both.tensors.insert(format!("teacher.{name}"), zeros);
    }
    let (network, ledger) = load(&both).expect("loads");
    assert_eq!(states(&network), expected);
    let reason = ledger
        .unused
        .iter()
        .find(|(tensor, _)| tensor.starts_with("teacher.encoder"))
        .expect("listed");
    assert_eq!(reason.1, "not part of a bert encoder");
    both.tensors = both
        .tensors
        .into_iter()
        .map(|(name, tensor)| (name.replace("bert.", "student."), tensor))
        .collect();
    insta::assert_snapshot!(error(&both), @r"
    DIR/config.json: `model_type`: expected one encoder in the checkpoint, found 2: prefixes `student.`, `teacher.`
      hint: keep only the tensors of one encoder, or name it `bert.`
    ");
}

#[test]
fn reasons_in_the_ledger() {
    let mut checkpoint = TinyCheckpoint::of("bert-position-ids");
    let extra = Tensor::f32(&[1], &[0.0]);
    for name in [
        "classifier.weight",
        "encoder.layer.9.output.dense.weight",
        "encoder.layer.0.adapter.weight",
        "mystery",
    ] {
        checkpoint.tensors.insert(name.to_owned(), extra.clone());
    }
    let (_, ledger) = load(&checkpoint).expect("loads");
    let lines: Vec<String> = ledger
        .unused
        .iter()
        .map(|(tensor, reason)| format!("{tensor}: {reason}"))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    embeddings.position_ids: position_ids buffer: computed, not stored
    classifier.weight: task head: not needed for hidden states
    encoder.layer.0.adapter.weight: not part of a bert encoder
    encoder.layer.9.output.dense.weight: layer 9: config.json asks for 2 layers
    mystery: not part of a bert encoder
    pooler.dense.bias: pooler: not needed for hidden states
    pooler.dense.weight: pooler: not needed for hidden states
    ");
}

#[test]
fn a_missing_weight_names_tensor_file_and_near_names() {
    let mut checkpoint = TinyCheckpoint::of("bert");
    let weight = checkpoint
        .tensors
        .remove("encoder.layer.1.output.dense.weight")
        .expect("there");
    checkpoint
        .tensors
        .insert("encoder.layer.1.output.dens.weight".to_owned(), weight);
    insta::assert_snapshot!(error(&checkpoint), @r"
    DIR/model.safetensors: tensor `encoder.layer.1.output.dense.weight`: missing: expected this tensor, found 39 others
      hint: near names in the checkpoint: encoder.layer.0.attention.output.dense.weight, encoder.layer.0.output.dense.weight, encoder.layer.1.attention.output.dense.weight
    ");
    let mut checkpoint = TinyCheckpoint::of("bert");
    checkpoint
        .tensors
        .remove("encoder.layer.0.attention.self.key.bias")
        .expect("there");
    insta::assert_snapshot!(error(&checkpoint), @r"
    DIR/model.safetensors: tensor `encoder.layer.0.attention.self.key.bias`: missing: expected this tensor, found 38 others
      hint: near names in the checkpoint: encoder.layer.1.attention.self.key.bias
    ");
    let mut checkpoint = TinyCheckpoint::of("bert");
    checkpoint
        .tensors
        .remove("embeddings.LayerNorm.weight")
        .expect("there");
    insta::assert_snapshot!(error(&checkpoint), @r"
    DIR/model.safetensors: tensor `embeddings.LayerNorm.weight`: missing: expected this tensor, found 38 others
      hint: near names in the checkpoint: encoder.layer.0.attention.output.LayerNorm.weight, encoder.layer.0.output.LayerNorm.weight, encoder.layer.1.attention.output.LayerNorm.weight
    ");
    let mut checkpoint = TinyCheckpoint::of("bert");
    checkpoint
        .tensors
        .retain(|name, _| !name.contains("word_embeddings"));
    insta::assert_snapshot!(error(&checkpoint), @r"
    DIR/model.safetensors: tensor `embeddings.word_embeddings.weight`: missing: expected this tensor, found 38 others
    ");
}

#[test]
fn a_wrong_shape_names_the_tensor() {
    let mut checkpoint = TinyCheckpoint::of("bert");
    checkpoint.config["intermediate_size"] = 99.into();
    insta::assert_snapshot!(error(&checkpoint), @r"
    DIR/model.safetensors: tensor `encoder.layer.0.intermediate.dense.weight`: shape: expected [99, 32], found [44, 32]
      hint: the expected shape follows from the sizes in config.json; the two files may belong to different models
    ");
    let mut checkpoint = TinyCheckpoint::of("bert");
    checkpoint.config["vocab_size"] = 30522.into();
    insta::assert_snapshot!(error(&checkpoint), @r"
    DIR/model.safetensors: tensor `embeddings.word_embeddings.weight`: shape: expected [30522, 32], found [80, 32]
      hint: the expected shape follows from the sizes in config.json; the two files may belong to different models
    ");
}

#[test]
fn memory_is_that_of_the_applied_tensors() {
    let checkpoint = TinyCheckpoint::of("bert-fp16");
    let (network, ledger) = load(&checkpoint).expect("loads");
    let stored: usize = ledger
        .applied
        .iter()
        .map(|name| checkpoint.tensors[name].bytes.len())
        .sum();
    // Vectors are widened to f32, and panels are padded to whole lanes: at most a small multiple of these tiny matrices.
    assert!(
        (stored..3 * stored).contains(&network.memory_bytes()),
        "{} for {stored}",
        network.memory_bytes()
    );
    assert_eq!(network.scratch_bytes(), 0);
    states(&network);
    assert!(network.scratch_bytes() > 0);
}
