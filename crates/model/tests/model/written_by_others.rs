//! Quantized checkpoints as transformers + bitsandbytes, compressed-tensors and llm-compressor write them.

use crate::golden_files::{Expected, cases, golden, largest_difference};
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::Kernels;
use fewbit_model::{ModelError, Network, RaggedBatch, WeightOnlyArithmetic};
use fewbit_numerics::error_statistics::cosine;
use std::path::Path;

/// Hidden states that agree up to the order of float operations.
const TOLERANCE: f32 = 2e-5;

/// Loads a case; whatever the tool wrote for the encoder's layers must have been applied.
fn load(folder: &Path, arithmetic: WeightOnlyArithmetic) -> Result<Network, ModelError> {
    let checkpoint = Checkpoint::open(folder).expect("opens");
    let kernels = Kernels::from_environment().expect("a set that this CPU has");
    let (network, ledger) = Network::load_with(&checkpoint, kernels, arithmetic)?;
    for (tensor, reason) in &ledger.unused {
        assert!(
            tensor.contains("pooler.") || tensor.starts_with("classifier."),
            "{tensor}: {reason}"
        );
    }
    Ok(network)
}

/// Calls `check` with our states and the golden `kind` of each sequence of the cases that `wanted` takes.
fn compare(wanted: impl Fn(&str) -> bool, kind: &str, check: impl Fn(&str, &[f32], &[f32])) {
    compare_in(WeightOnlyArithmetic::Floats, wanted, kind, check);
}

fn compare_in(
    arithmetic: WeightOnlyArithmetic,
    wanted: impl Fn(&str) -> bool,
    kind: &str,
    check: impl Fn(&str, &[f32], &[f32]),
) {
    let cases: Vec<String> = cases("written_by_others")
        .into_iter()
        .filter(|case| wanted(case))
        .collect();
    assert!(!cases.is_empty(), "no such case");
    for case in cases {
        let folder = golden("written_by_others").join(&case);
        let network = load(&folder, arithmetic).unwrap_or_else(|error| panic!("{case}: {error}"));
        let expected = Expected::read(&folder.join("expected.safetensors"));
        for index in 0..3 {
            let ids = expected
                .ids(&format!("sequence.{index}.input_ids"))
                .expect("golden");
            let found = network
                .hidden_states(&RaggedBatch::from_sequences(&[&ids]), 1)
                .expect("runs");
            let golden = expected
                .f32(&format!("sequence.{index}.{kind}.last_hidden_state"))
                .expect("golden");
            check(&format!("{case}, sequence {index}"), &found, &golden);
        }
    }
}

fn is_weight_only(case: &str) -> bool {
    case.starts_with("bitsandbytes-") || case.contains("-w8a16") || case.contains("-w4a16")
}

/// compressed-tensors computes with bf16 scales in bf16; fewbit does not round their products.
fn has_bf16_scales(case: &str) -> bool {
    case.starts_with("compressed-tensors-") && case.ends_with("-bf16")
}

/// Includes bitsandbytes layers whose quant_state says that dequantized weights are rounded to fp16 or bf16.
#[test]
fn weight_only_forms_are_the_float_model_of_the_dequantized_weights() {
    compare(
        |case| is_weight_only(case) && !has_bf16_scales(case),
        "float32",
        |name, found, expected| {
            let difference = largest_difference(found, expected);
            assert!(difference <= TOLERANCE, "{name}: {difference}");
        },
    );
}

/// Activations of twelve bits have steps of 1 / 4095 of their range: what they change is far below what 8 bits may.
#[test]
fn weight_only_int8_in_integers_is_close_to_floats() {
    let changed = std::cell::Cell::new(false);
    compare_in(
        WeightOnlyArithmetic::Integers,
        |case| is_weight_only(case) && !has_bf16_scales(case),
        "float32",
        |name, found, expected| {
            let cosine = cosine(found, expected);
            assert!(cosine > 0.9999, "{name}: {cosine}");
            changed.set(changed.get() || largest_difference(found, expected) > TOLERANCE);
        },
    );
    assert!(changed.get(), "a case that computes in integers");
}

#[test]
fn int8_with_affine_activations_gives_what_the_library_gives() {
    compare(
        |case| {
            case == "compressed-tensors-w8a8-dynamic-affine"
                || case == "compressed-tensors-w8a8-dynamic-embeddings"
        },
        "library",
        |name, found, expected| {
            let difference = largest_difference(found, expected);
            assert!(difference <= TOLERANCE, "{name}: {difference}");
        },
    );
}

/// With scale absmax / 127.5 the largest element of every row is a tie between two codes, which the last bit of the scale
/// decides: two correct programs differ by single codes and all that follows from them. 0.999 is the agreement that the
/// project promises for int8, and for products that a library rounds to bf16.
#[test]
fn symmetric_activations_and_bf16_libraries_agree_in_direction() {
    compare(
        |case| {
            (case.contains("-w8a8-dynamic") && !case.ends_with("-affine")) || has_bf16_scales(case)
        },
        "library",
        |name, found, expected| {
            let cosine = cosine(found, expected);
            assert!(cosine > 0.999, "{name}: {cosine}");
        },
    );
}

/// A stored scale has no ties that a library's rounding could decide otherwise, unlike the largest element of a row.
#[test]
fn static_activations_give_what_the_library_gives() {
    compare(
        |case| case.contains("-static"),
        "library",
        |name, found, expected| {
            let difference = largest_difference(found, expected);
            assert!(difference <= TOLERANCE, "{name}: {difference}");
        },
    );
}
