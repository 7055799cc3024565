//! Every architecture against transformers.

use crate::golden_files::{Expected, cases, golden, largest_difference};
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::{Isa, Kernels};
use fewbit_model::spec::NormPlacement;
use fewbit_model::{EncoderSpec, Network, RaggedBatch, Tap, tap};
use std::collections::HashMap;

/// The agreement that the project promises. The reference itself, torch in float32, is up to 3e-6 from the same model in
/// float64 (golden/README.md); the rest is for our other order of operations.
const TOLERANCE: f32 = 2e-5;

/// Keeps what it sees, block after block.
#[derive(Default)]
struct Record(HashMap<String, Vec<f32>>);

impl Tap for Record {
    fn wants(&self, _site: &str) -> bool {
        true
    }

    fn see(&mut self, site: &str, rows: usize, columns: usize, values: &[f32]) {
        assert_eq!(values.len(), rows * columns, "{site}");
        self.0
            .entry(site.to_owned())
            .or_default()
            .extend_from_slice(values);
    }
}

struct Case {
    expected: Expected,
    sequences: Vec<RaggedBatch>,
}

fn read_case(name: &str) -> Case {
    let expected = Expected::read(
        &golden("architectures")
            .join(name)
            .join("expected.safetensors"),
    );
    let mut sequences = Vec::new();
    while let Some(ids) = expected.ids(&format!("sequence.{}.input_ids", sequences.len())) {
        let types = expected
            .ids(&format!("sequence.{}.token_type_ids", sequences.len()))
            .unwrap_or_default();
        let mut batch = RaggedBatch::new();
        batch.push(&ids, &types);
        sequences.push(batch);
    }
    assert!(!sequences.is_empty(), "{name}");
    Case {
        expected,
        sequences,
    }
}

fn together(sequences: &[RaggedBatch]) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    for sequence in sequences {
        batch.push(&sequence.token_ids, &sequence.token_type_ids);
    }
    batch
}

#[test]
fn hidden_states_agree_with_transformers() {
    let mut failures = Vec::new();
    for name in cases("architectures") {
        let case = read_case(&name);
        let checkpoint =
            Checkpoint::open(golden("architectures").join(&name)).expect("a checkpoint");
        for &isa in Isa::ALL.iter().filter(|isa| isa.keeps_same_bits()) {
            let Some(kernels) = Kernels::for_isa(isa) else {
                continue;
            };
            let (network, _) = Network::load_with_kernels(&checkpoint, kernels).expect("loads");
            let states = network
                .hidden_states(&together(&case.sequences), 2)
                .expect("runs");
            let mut rows = states.as_slice();
            for (index, sequence) in case.sequences.iter().enumerate() {
                let expected = case
                    .expected
                    .f32(&format!("sequence.{index}.last_hidden_state"))
                    .expect("golden");
                let (found, rest) = rows.split_at(sequence.tokens() * network.spec().hidden_size);
                rows = rest;
                let difference = largest_difference(found, &expected);
                if difference > TOLERANCE {
                    failures.push(format!("{name}, {isa:?}, sequence {index}: {difference}"));
                }
            }
        }
    }
    assert!(
        failures.is_empty(),
        "differences above {TOLERANCE}:\n{}",
        failures.join("\n")
    );
}

#[test]
fn embeddings_and_layers_agree_with_transformers() {
    let (mut failures, mut compared) = (Vec::new(), 0);
    for name in cases("architectures") {
        let case = read_case(&name);
        let checkpoint =
            Checkpoint::open(golden("architectures").join(&name)).expect("a checkpoint");
        let (network, _) = Network::load(&checkpoint).expect("loads");
        for (index, sequence) in case.sequences.iter().enumerate() {
            let mut record = Record::default();
            let tapped = network
                .hidden_states_tapped(sequence, &mut record)
                .expect("runs");
            assert_eq!(
                tapped,
                network.hidden_states(sequence, 1).expect("runs"),
                "{name}: a tap changed the result"
            );
            let mut compare = |site: &str, golden: &str| {
                let Some(expected) = case.expected.f32(&format!("sequence.{index}.{golden}"))
                else {
                    return;
                };
                compared += 1;
                let difference = largest_difference(&record.0[site], &expected);
                if difference > TOLERANCE {
                    failures.push(format!("{name}, sequence {index}, {golden}: {difference}"));
                }
            };
            compare("embeddings.LayerNorm.output", "embeddings");
            let norm = match network.spec().norms {
                NormPlacement::After => "output",
                _ => "intermediate",
            };
            for layer in 0..network.spec().layers {
                compare(
                    &format!("encoder.layer.{layer}.{norm}.LayerNorm.output"),
                    &format!("layer.{layer}"),
                );
            }
        }
    }
    assert!(compared > 50, "only {compared} values to compare");
    assert!(
        failures.is_empty(),
        "differences above {TOLERANCE}:\n{}",
        failures.join("\n")
    );
}

#[test]
fn a_tap_sees_exactly_the_sites_that_are_listed() {
    for name in cases("architectures") {
        let case = read_case(&name);
        let checkpoint =
            Checkpoint::open(golden("architectures").join(&name)).expect("a checkpoint");
        let (network, _) = Network::load(&checkpoint).expect("loads");
        let mut record = Record::default();
        network
            .hidden_states_tapped(&together(&case.sequences), &mut record)
            .expect("runs");
        let mut seen: Vec<String> = record.0.into_keys().collect();
        let mut listed = tap::sites(&network.spec().catalogue());
        seen.sort();
        listed.sort();
        assert_eq!(seen, listed, "{name}");
    }
}

#[test]
fn every_tensor_is_applied_or_unused_for_a_known_reason() {
    for name in cases("architectures") {
        let checkpoint =
            Checkpoint::open(golden("architectures").join(&name)).expect("a checkpoint");
        let (_, ledger) = Network::load(&checkpoint).expect("loads");
        for tensor in &ledger.missing {
            assert!(!checkpoint.contains(tensor), "{name}: {tensor}");
            assert!(tensor.contains("pooler."), "{name}: {tensor}");
        }
        let mut listed: Vec<&str> = ledger
            .applied
            .iter()
            .chain(ledger.unused.iter().map(|(tensor, _)| tensor))
            .map(String::as_str)
            .collect();
        let mut tensors: Vec<&str> = checkpoint
            .tensors()
            .map(|tensor| tensor.name.as_str())
            .collect();
        listed.sort_unstable();
        tensors.sort_unstable();
        assert_eq!(listed, tensors, "{name}");
        for (tensor, reason) in &ledger.unused {
            assert!(
                !reason.starts_with("not part of"),
                "{name}: {tensor}: {reason}"
            );
        }
    }
}

#[test]
fn linear_modules_name_what_the_checkpoint_has() {
    for name in cases("architectures") {
        let checkpoint =
            Checkpoint::open(golden("architectures").join(&name)).expect("a checkpoint");
        let spec = EncoderSpec::from_checkpoint(&checkpoint).expect("a spec");
        let catalogue = spec.catalogue();
        // Layers hold no other matrices.
        let layers = format!("{}{}.", spec.prefix, spec.names.layers);
        let in_layers = checkpoint
            .tensors()
            .filter(|info| info.name.starts_with(&layers) && info.shape.len() == 2)
            .count();
        assert_eq!(
            catalogue.linear_modules().count(),
            in_layers + usize::from(spec.has_embeddings_projection()),
            "{name}"
        );
        let word_embeddings = catalogue.word_embeddings();
        for module in catalogue.linear_modules().chain(word_embeddings) {
            let weight = checkpoint
                .require(&format!("{}.weight", module.name))
                .expect("there");
            assert_eq!(weight.info.shape, module.shape, "{name}: {}", module.name);
        }
    }
}

#[test]
fn parts_of_the_model() {
    let part = |case: &str, tensor: &str| {
        let checkpoint =
            Checkpoint::open(golden("architectures").join(case)).expect("a checkpoint");
        EncoderSpec::from_checkpoint(&checkpoint)
            .expect("a spec")
            .catalogue()
            .part_of(tensor)
    };
    for (case, tensor, expected) in [
        ("bert", "embeddings.word_embeddings.weight", "embeddings"),
        ("bert", "embeddings.LayerNorm.weight", "normalization"),
        (
            "bert",
            "encoder.layer.0.attention.self.query.weight_scale",
            "attention",
        ),
        (
            "bert",
            "encoder.layer.1.attention.output.dense.bias",
            "attention",
        ),
        (
            "bert",
            "encoder.layer.1.attention.output.LayerNorm.bias",
            "normalization",
        ),
        (
            "bert",
            "encoder.layer.1.intermediate.dense.weight.absmax",
            "feed-forward",
        ),
        (
            "bert",
            "encoder.layer.1.output.dense.weight",
            "feed-forward",
        ),
        (
            "bert",
            "encoder.layer.1.output.LayerNorm.gamma",
            "normalization",
        ),
        ("bert", "pooler.dense.weight", "pooler"),
        ("bert", "something.else", "other"),
        ("bert-masked-lm", "cls.predictions.bias", "head"),
        ("bert-masked-lm", "bert.pooler.dense.weight", "pooler"),
        ("bert-sequence-classification", "classifier.weight", "head"),
        (
            "distilbert",
            "transformer.layer.0.attention.q_lin.weight",
            "attention",
        ),
        (
            "distilbert",
            "transformer.layer.0.sa_layer_norm.weight",
            "normalization",
        ),
        (
            "distilbert",
            "transformer.layer.0.ffn.lin2.weight",
            "feed-forward",
        ),
        (
            "electra-embedding-size-16",
            "electra.embeddings_project.weight",
            "embeddings",
        ),
        (
            "electra-embedding-size-16",
            "discriminator_predictions.dense.weight",
            "head",
        ),
        (
            "mpnet",
            "encoder.relative_attention_bias.weight",
            "attention",
        ),
        ("deberta", "encoder.rel_embeddings.weight", "attention"),
        (
            "deberta",
            "encoder.layer.0.attention.self.q_bias",
            "attention",
        ),
        ("deberta-v2", "encoder.LayerNorm.bias", "normalization"),
        (
            "deberta-v2-convolution",
            "encoder.conv.conv.weight",
            "feed-forward",
        ),
        (
            "deberta-v2-sequence-classification",
            "pooler.dense.weight",
            "head",
        ),
        (
            "albert",
            "encoder.albert_layer_groups.0.albert_layers.0.ffn.bias",
            "feed-forward",
        ),
        ("albert", "pooler.weight", "pooler"),
        ("albert-groups-masked-lm", "predictions.bias", "head"),
        (
            "mpnet",
            "encoder.layer.0.attention.attn.o.weight",
            "attention",
        ),
        (
            "mpnet",
            "encoder.layer.0.attention.LayerNorm.weight",
            "normalization",
        ),
    ] {
        assert_eq!(part(case, tensor), expected, "{case}: {tensor}");
    }
}
