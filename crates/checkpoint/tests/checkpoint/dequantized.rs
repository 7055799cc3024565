//! Quantized checkpoints as the floats that the libraries which wrote them make of them.

use crate::checkpoint_builder::{CheckpointDirectory, f32_tensor, golden, tensor};
use fewbit_checkpoint::{Checkpoint, CheckpointErrorKind};
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use std::fs;

/// Names and shapes of the tensors of a golden checkpoint, dequantized, sorted.
fn tensors(checkpoint: &Checkpoint) -> Vec<(String, Vec<usize>)> {
    let tensors = checkpoint.tensors();
    let mut tensors: Vec<_> = tensors
        .map(|info| (info.name.clone(), info.shape.clone()))
        .collect();
    tensors.sort();
    tensors
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        // With one zero: code 8 of FP4 is +0 in the library's quant_map and -0 in its CPU kernel.
        .flat_map(|value| (value + 0.0).to_le_bytes())
        .collect()
}

#[test]
fn four_bit_weights_are_those_of_bitsandbytes() {
    let checkpoint = Checkpoint::open(golden("bitsandbytes-4bit")).unwrap();
    let floats = checkpoint.dequantized().unwrap();
    assert!(!floats.quantization().is_quantized());
    assert!(floats.config().get("quantization_config").is_none());
    let bytes = fs::read(golden("bitsandbytes-4bit").join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<_> = expected
        .tensors()
        .into_iter()
        .map(|(module, view)| (format!("{module}.weight"), view.shape().to_vec()))
        .collect();
    names.push(("skipped.weight".to_owned(), vec![2, 4]));
    names.sort();
    assert_eq!(tensors(&floats), names);
    for (module, view) in expected.tensors() {
        let weight = floats.require(&format!("{module}.weight")).unwrap();
        let dtype = match view.dtype() {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            other => panic!("{other}"),
        };
        // What the library dequantizes to, which holds every value exactly.
        assert_eq!(weight.info.dtype.name(), dtype, "{module}");
        assert_eq!(weight.file_bytes(), None);
        let whole = weight.to_f32().unwrap();
        if !module.starts_with("fp4") {
            assert_eq!(*weight.bytes().unwrap(), *view.data(), "{module}");
        } else if dtype == "F32" {
            let signed = view.data().as_chunks().0.iter().copied();
            let values: Vec<f32> = signed.map(f32::from_le_bytes).collect();
            assert_eq!(f32_bytes(&whole), f32_bytes(&values), "{module}");
        }
        // The same values in slices that begin and end within rows and blocks.
        for slice in [1, 7, 64, 100] {
            let mut found = vec![0.0; whole.len()];
            for (index, part) in found.chunks_mut(slice).enumerate() {
                weight.read_f32_range(index * slice, part).unwrap();
            }
            assert_eq!(f32_bytes(&found), f32_bytes(&whole), "{module}: {slice}");
        }
        floats.release(&format!("{module}.weight"));
        assert_eq!(f32_bytes(&weight.to_f32().unwrap()), f32_bytes(&whole));
        let after_the_end = weight.read_f32_range(whole.len(), &mut [0.0]);
        assert_eq!(
            after_the_end.unwrap_err().kind(),
            CheckpointErrorKind::WrongShape
        );
    }
    let skipped = floats.require("skipped.weight").unwrap();
    assert!(skipped.file_bytes().is_some(), "floats stay where they are");
    assert_eq!(floats.dequantized_weights().count(), 6);
}

#[test]
fn eight_bit_weights_are_codes_times_scales() {
    let checkpoint = Checkpoint::open(golden("bitsandbytes-8bit")).unwrap();
    let of_codes = checkpoint.stored_weight("dense", [5, 24]).unwrap();
    let of_codes = of_codes.dequantize([5, 24]).unwrap();
    let floats = checkpoint.dequantized().unwrap();
    assert!(!floats.contains("dense.SCB") && !floats.contains("dense.weight_format"));
    let weight = floats.require("dense.weight").unwrap();
    assert_eq!(weight.info.dtype.name(), "F32");
    assert_eq!(weight.info.shape, [5, 24]);
    assert_eq!(weight.to_f32().unwrap(), of_codes);
}

#[test]
fn integer_weights_are_those_of_compressed_tensors() {
    let bytes = fs::read(golden("compressed-tensors").join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let checkpoint = Checkpoint::open(golden("compressed-tensors")).unwrap();
    let floats = checkpoint.dequantized().unwrap();
    let parts = [
        "weight_packed",
        "weight_scale",
        "weight_zero_point",
        "weight_shape",
        "input_scale",
        "input_zero_point",
    ];
    for (name, _) in tensors(&floats) {
        assert!(!parts.iter().any(|part| name.ends_with(part)), "{name}");
    }
    let mut compared = 0;
    for (module, view) in expected.tensors() {
        let weight = floats.require(&format!("{module}.weight")).unwrap();
        assert_eq!(weight.info.shape, view.shape(), "{module}");
        // With BF16 scales the library rounds the product, which is the whole one here.
        if view.dtype() == Dtype::F32 {
            assert_eq!(*weight.bytes().unwrap(), *view.data(), "{module}");
            compared += 1;
        }
    }
    assert!(compared >= 7);
}

#[test]
fn floats_are_left_alone_and_codes_without_a_config_refused() {
    let config = json!({"model_type": "other"});
    let float = f32_tensor("dense.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let directory = CheckpointDirectory::new(&config, &[float]);
    let floats = Checkpoint::open(directory.path()).unwrap();
    let floats = floats.dequantized().unwrap();
    let weight = floats.require("dense.weight").unwrap();
    assert!(weight.file_bytes().is_some());
    assert_eq!(floats.dequantized_weights().count(), 0);

    let codes = [
        tensor("dense.weight", Dtype::I8, &[2, 2], [[1, 2, 3, 4]]),
        f32_tensor("dense.weight_scale", &[2, 1], &[1.0, 2.0]),
    ];
    let directory = CheckpointDirectory::new(&config, &codes);
    let codes = Checkpoint::open(directory.path()).unwrap();
    let error = codes.dequantized().unwrap_err();
    assert!(error.to_string().contains("quantization_config"), "{error}");
}
