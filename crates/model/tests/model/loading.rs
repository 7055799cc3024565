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
fn a_pooler_that_is_absent_is_missing() {
    let missing = |case: &str, remove: &[&str]| {
        let mut checkpoint = TinyCheckpoint::of(case);
        checkpoint
            .tensors
            .retain(|name, _| !remove.iter().any(|part| name.contains(part)));
        load(&checkpoint).expect("loads").1.missing
    };
    assert_eq!(missing("bert", &[]), [] as [&str; 0]);
    assert_eq!(
        missing("bert", &["pooler.dense.bias"]),
        ["pooler.dense.bias"]
    );
    for case in ["bert", "roberta", "mpnet"] {
        assert_eq!(
            missing(case, &["pooler"]),
            ["pooler.dense.weight", "pooler.dense.bias"],
            "{case}"
        );
    }
    assert_eq!(
        missing("xlm-roberta-masked-lm", &[]),
        ["roberta.pooler.dense.weight", "roberta.pooler.dense.bias"]
    );
    for case in ["distilbert", "electra-no-prefix"] {
        assert_eq!(missing(case, &[]), [] as [&str; 0], "{case}");
    }
}

/// A float weight is one tensor; what else has a name like a part of it was not applied.
#[test]
fn a_stray_scale_is_unused() {
    let mut checkpoint = TinyCheckpoint::of("bert");
    let name = "encoder.layer.0.output.dense.weight_scale";
    checkpoint
        .tensors
        .insert(name.to_owned(), Tensor::f32(&[1], &[1.0]));
    let (_, ledger) = load(&checkpoint).expect("loads");
    assert!(!ledger.applied.iter().any(|applied| applied == name));
    let reason = "not part of the form in which its module's weight is stored";
    assert!(
        ledger
            .unused
            .contains(&(name.to_owned(), reason.to_owned()))
    );
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

/// NaN and infinity in every kind of tensor that is loaded: vectors, linear weights, tables, in f32 and in halves.
#[test]
fn values_that_are_not_finite_are_refused() {
    let with = |name: &str, element: usize, value: f32| {
        let mut checkpoint = TinyCheckpoint::of("bert");
        let mut values = checkpoint.tensors[name].values();
        values[element] = value;
        let tensor = Tensor::f32(&checkpoint.tensors[name].shape, &values);
        checkpoint.tensors.insert(name.to_owned(), tensor);
        error(&checkpoint)
    };
    let half = |case: &str, infinity: [u8; 2]| {
        let mut checkpoint = TinyCheckpoint::of(case);
        let name = "encoder.layer.1.output.dense.weight";
        let tensor = checkpoint.tensors.get_mut(name).expect("there");
        let end = tensor.bytes.len();
        tensor.bytes[end - 2..].copy_from_slice(&infinity);
        error(&checkpoint)
    };
    let mut mpnet = TinyCheckpoint::of("mpnet");
    let (name, table) = mpnet
        .tensors
        .iter_mut()
        .find(|(name, _)| name.ends_with("relative_attention_bias.weight"))
        .expect("there");
    assert_eq!(name, "encoder.relative_attention_bias.weight");
    table.bytes[..4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    let texts = [
        with("encoder.layer.1.output.LayerNorm.weight", 0, f32::NAN),
        with("encoder.layer.0.output.dense.bias", 31, f32::INFINITY),
        with("embeddings.word_embeddings.weight", 32 * 79 + 1, f32::NAN),
        with(
            "encoder.layer.0.attention.self.query.weight",
            33,
            f32::NEG_INFINITY,
        ),
        half("bert-fp16", 0x7c00u16.to_le_bytes()),
        half("bert-bf16", 0xff80u16.to_le_bytes()),
        error(&mpnet),
    ];
    insta::assert_snapshot!(texts.join("\n\n"), @r"
    DIR/model.safetensors: tensor `encoder.layer.1.output.LayerNorm.weight`: expected finite values, found NaN at [0]
      hint: the checkpoint is damaged or its training diverged

    DIR/model.safetensors: tensor `encoder.layer.0.output.dense.bias`: expected finite values, found inf at [31]
      hint: the checkpoint is damaged or its training diverged

    DIR/model.safetensors: tensor `embeddings.word_embeddings.weight`: expected finite values, found NaN at [79, 1]
      hint: the checkpoint is damaged or its training diverged

    DIR/model.safetensors: tensor `encoder.layer.0.attention.self.query.weight`: expected finite values, found -inf at [1, 1]
      hint: the checkpoint is damaged or its training diverged

    DIR/model.safetensors: tensor `encoder.layer.1.output.dense.weight`: expected finite values, found inf at [31, 43]
      hint: the checkpoint is damaged or its training diverged

    DIR/model.safetensors: tensor `encoder.layer.1.output.dense.weight`: expected finite values, found -inf at [31, 43]
      hint: the checkpoint is damaged or its training diverged

    DIR/model.safetensors: tensor `encoder.relative_attention_bias.weight`: expected finite values, found -inf at [0, 0]
      hint: the checkpoint is damaged or its training diverged
    ");
}

/// A product of int8 codes over more inputs could leave i32.
#[test]
fn int8_with_too_many_input_features_is_refused() {
    let mut checkpoint = TinyCheckpoint::of("bert");
    let (width, hidden) = (65_794, 32);
    checkpoint.config["intermediate_size"] = width.into();
    for layer in 0..2 {
        let shapes: [(&str, &[usize]); 3] = [
            ("intermediate.dense.weight", &[width, hidden]),
            ("intermediate.dense.bias", &[width]),
            ("output.dense.weight", &[hidden, width]),
        ];
        for (name, shape) in shapes {
            let zeros = vec![0.0; shape.iter().product()];
            checkpoint.tensors.insert(
                format!("encoder.layer.{layer}.{name}"),
                Tensor::f32(shape, &zeros),
            );
        }
    }
    insta::assert_snapshot!(error(&checkpoint.with_dynamic_int8(false)), @r"
    DIR/model.safetensors: tensor `encoder.layer.0.output.dense.weight`: expected at most 65793 input features, whose sums of int8 products fit in 32 bits, found 65794
      hint: keep this layer in floats, or quantize its weight only
    ");
}
