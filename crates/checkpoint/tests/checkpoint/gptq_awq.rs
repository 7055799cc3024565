//! GPTQ and AWQ checkpoints: golden files that GPTQModel packed, and what fewbit writes.

use crate::checkpoint_builder::{CheckpointDirectory, Tensor, golden, tensor};
use fewbit_checkpoint::awq::AwqLayout;
use fewbit_checkpoint::gptq::{GptqLayout, GptqVersion};
use fewbit_checkpoint::{Checkpoint, CheckpointErrorKind, GroupLayout, StoredWeight, WeightLayout};
use fewbit_numerics::int4_groups::{GroupScales, Int4Settings, quantize_int4};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::fs;

const SHAPE: [usize; 2] = [32, 64];

#[test]
fn weights_of_the_library() {
    for (name, description, modules) in [
        ("gptq", "gptq of 4 bits", 4),
        ("gptq-v2", "gptq_v2 of 4 bits", 4),
        ("gptq-8bit", "gptq of 8 bits", 4),
        ("awq", "awq gemm", 3),
    ] {
        let checkpoint = Checkpoint::open(golden(name)).unwrap();
        assert_eq!(checkpoint.quantization().to_string(), description);
        let bytes = fs::read(golden(name).join("expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(expected.len(), modules);
        for (module, view) in expected.tensors() {
            assert_eq!(view.dtype(), Dtype::F32);
            let values = view.data().as_chunks::<4>().0;
            let values: Vec<f32> = values
                .iter()
                .map(|value| f32::from_le_bytes(*value))
                .collect();
            assert_eq!(
                checkpoint.weight_shape(&module).unwrap().unwrap(),
                view.shape()
            );
            let weight = checkpoint.stored_weight(&module, SHAPE).unwrap();
            assert_eq!(
                weight.dequantize(SHAPE).unwrap(),
                values,
                "{name}: {module}"
            );
            // Codes stay codes where a group is of neighbours.
            let is_float = matches!(weight, StoredWeight::FloatBytes { .. });
            assert_eq!(is_float, module == "activation_order", "{name}: {module}");
        }
        let floats = checkpoint.dequantized().unwrap();
        assert_eq!(floats.tensors().count(), modules + 1);
    }
}

/// What is written of weights that were read is what the library packed.
#[test]
fn the_bytes_of_the_library() {
    let gptq = |version, group_size, asymmetric| {
        GroupLayout::from(GptqLayout {
            version,
            group_size,
            asymmetric,
        })
    };
    let awq = |group_size, asymmetric| {
        GroupLayout::from(AwqLayout {
            group_size,
            asymmetric,
        })
    };
    for (name, module, layout) in [
        ("gptq", "groups", gptq(GptqVersion::Gptq, Some(32), false)),
        (
            "gptq",
            "asymmetric",
            gptq(GptqVersion::Gptq, Some(32), true),
        ),
        ("gptq", "rows", gptq(GptqVersion::Gptq, None, false)),
        (
            "gptq-v2",
            "groups",
            gptq(GptqVersion::GptqV2, Some(32), false),
        ),
        (
            "gptq-v2",
            "asymmetric",
            gptq(GptqVersion::GptqV2, Some(32), true),
        ),
        ("gptq-v2", "rows", gptq(GptqVersion::GptqV2, None, false)),
        ("awq", "groups", awq(Some(32), true)),
        ("awq", "symmetric", awq(Some(16), false)),
        ("awq", "rows", awq(None, true)),
    ] {
        let checkpoint = Checkpoint::open(golden(name)).unwrap();
        let weight = checkpoint.stored_weight(module, SHAPE).unwrap();
        let parts = layout.encode(module, SHAPE, 0, &weight).unwrap();
        let planned = layout.plan(module, SHAPE);
        assert_eq!(parts.len(), planned.len());
        for (part, plan) in parts.iter().zip(planned) {
            let stored = checkpoint.require(&part.name).unwrap();
            assert_eq!(plan.name, part.name);
            assert_eq!(
                (plan.dtype, &plan.shape),
                (stored.info.dtype, &stored.info.shape)
            );
            assert_eq!(part.bytes, stored.bytes().unwrap(), "{name}: {}", part.name);
        }
    }
}

/// Weights of one sign need the zero point -8, for which version 1 has no place: the storage of each layout says so, and then they can be written.
#[test]
fn weights_of_one_sign_are_written() {
    let weights: Vec<f32> = (0..8 * 32)
        .map(|index| 1.0 + (index * 37 % 101) as f32 / 100.0)
        .collect();
    let layout = |version| {
        GroupLayout::from(GptqLayout {
            version,
            group_size: None,
            asymmetric: true,
        })
    };
    let quantized = |layout: GroupLayout| {
        let settings = Int4Settings {
            group_size: 32,
            asymmetric: true,
            scales: GroupScales::Range,
            storage: layout.storage(),
        };
        layout.stored_weight(quantize_int4(&weights, 8, 32, settings))
    };
    let [first, second] = [GptqVersion::Gptq, GptqVersion::GptqV2].map(layout);
    assert!(first.encode("m", [8, 32], 0, &quantized(first)).is_ok());
    let weight = quantized(second);
    assert!(second.encode("m", [8, 32], 0, &weight).is_ok());
    let refused = first.encode("m", [8, 32], 0, &weight).unwrap_err();
    assert_eq!(refused.kind(), CheckpointErrorKind::UnsupportedQuantization);
    assert!(
        refused
            .to_string()
            .contains("with zero points of at least -7"),
        "{refused}"
    );
}

#[test]
fn what_a_layout_has_no_place_for_is_refused() {
    let weight = |scale: f32, zero_points| StoredWeight::Groups {
        codes: vec![1; 8 * 16].into(),
        scales: vec![scale; 8],
        zero_points,
        group_size: 16,
        bits: 4,
        activations: None,
    };
    let awq = AwqLayout {
        group_size: Some(16),
        asymmetric: false,
    };
    let text = |shape, first_row, weight: &StoredWeight<'_>| {
        awq.encode("m", shape, first_row, weight)
            .unwrap_err()
            .to_string()
    };
    // 0.1 is no float16.
    let found = text([8, 16], 0, &weight(0.1, None));
    assert!(
        found.contains("expected scales that are float16 (not 0.1)"),
        "{found}"
    );
    let found = text([8, 16], 0, &weight(0.5, Some(vec![0; 8])));
    assert!(
        found.contains("expected awq codes of 4 bits in groups of 16, found"),
        "{found}"
    );
    let found = text([16, 16], 8, &weight(0.5, None));
    assert!(
        found.contains("expected rows of 0..16, found 8..16"),
        "{found}"
    );
    let odd = StoredWeight::Groups {
        codes: vec![1; 4 * 16].into(),
        scales: vec![0.5; 4],
        zero_points: None,
        group_size: 16,
        bits: 4,
        activations: None,
    };
    let found = text([4, 16], 0, &odd);
    assert!(
        found.contains("multiples of 8 outputs and inputs"),
        "{found}"
    );
}

fn words(name: &str, shape: &[usize], word: i32) -> Tensor {
    let count = shape.iter().product();
    tensor(name, Dtype::I32, shape, vec![word.to_le_bytes(); count])
}

fn halves(name: &str, shape: &[usize], bits: u16) -> Tensor {
    let count = shape.iter().product();
    tensor(name, Dtype::F16, shape, vec![bits.to_le_bytes(); count])
}

/// A weight of 8 outputs and 16 inputs in two groups, all of whose parts may be replaced.
fn gptq_tensors() -> Vec<Tensor> {
    let groups = (0..16).map(|column| (column / 8i32).to_le_bytes());
    vec![
        words("m.qweight", &[2, 8], 0x7654_3210),
        words("m.qzeros", &[2, 1], 0x7777_7777),
        halves("m.scales", &[2, 8], 0x3c00),
        tensor("m.g_idx", Dtype::I32, &[16], groups),
    ]
}

#[test]
fn damaged_tensors_are_refused() {
    let config = |extra: Value| {
        let mut config = json!({"quant_method": "gptq", "bits": 4, "group_size": 8});
        for (key, value) in extra.as_object().unwrap() {
            config[key] = value.clone();
        }
        json!({ "quantization_config": config })
    };
    let open = |tensors: &[Tensor]| CheckpointDirectory::new(&config(json!({})), tensors);
    let directory = open(&gptq_tensors());
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let weight = checkpoint.stored_weight("m", [8, 16]).unwrap();
    assert_eq!(weight.dequantize([8, 16]).unwrap()[..3], [-8.0, -7.0, -6.0]);

    let group = |group: i32| tensor("m.g_idx", Dtype::I32, &[16], vec![group.to_le_bytes(); 16]);
    for (replaced, expected) in [
        (
            group(2),
            "tensor `m.g_idx`: group of column 0: expected one of 0..2, found 2",
        ),
        (
            group(-1),
            "tensor `m.g_idx`: group of column 0: expected one of 0..2, found -1",
        ),
        (
            group(i32::MIN),
            "tensor `m.g_idx`: group of column 0: expected one of 0..2",
        ),
        (
            words("m.g_idx", &[15], 0),
            "tensor `m.g_idx`: shape: expected [16], found [15]",
        ),
        (
            halves("m.g_idx", &[16], 0),
            "tensor `m.g_idx`: dtype: expected I32 or I64, found F16",
        ),
        (
            words("m.qweight", &[2, 7], 0),
            "tensor `m.qweight`: shape: expected [2, 8], found [2, 7]",
        ),
        (
            halves("m.qweight", &[2, 8], 0),
            "tensor `m.qweight`: dtype: expected I32, found F16",
        ),
        (
            words("m.qzeros", &[1, 1], 0),
            "tensor `m.qzeros`: shape: expected [2, 1], found [1, 1]",
        ),
        (
            halves("m.scales", &[2, 7], 0x3c00),
            "tensor `m.scales`: shape: expected [2, 8], found [2, 7]",
        ),
        (
            halves("m.scales", &[0, 8], 0),
            "tensor `m.scales`: shape: expected [1, 8], found [0, 8]",
        ),
        (
            words("m.scales", &[2, 8], 1),
            "tensor `m.scales`: dtype: expected F32, F16, BF16 or F64, found I32",
        ),
        (
            halves("m.scales", &[2, 8], 0),
            "tensor `m.scales`: scale at [0, 0]: expected a number other than 0, found 0",
        ),
        (
            halves("m.scales", &[2, 8], 0x7e00),
            "tensor `m.scales`: element 0: expected a finite number, found NaN",
        ),
    ] {
        let mut tensors = gptq_tensors();
        tensors.retain(|(name, ..)| *name != replaced.0);
        tensors.push(replaced);
        let directory = open(&tensors);
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let error = checkpoint.stored_weight("m", [8, 16]).unwrap_err();
        let text = directory.text(&error);
        assert!(
            text.starts_with(&format!("DIR/model.safetensors: {expected}")),
            "{text}"
        );
    }
    for missing in ["m.qzeros", "m.scales"] {
        let mut tensors = gptq_tensors();
        tensors.retain(|(name, ..)| name != missing);
        let directory = open(&tensors);
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let error = checkpoint.stored_weight("m", [8, 16]).unwrap_err();
        assert_eq!(error.kind(), CheckpointErrorKind::MissingTensor);
        assert_eq!(error.tensor(), Some(missing));
    }
    // Without the tensor, groups are of neighbours.
    let mut tensors = gptq_tensors();
    tensors.retain(|(name, ..)| name != "m.g_idx");
    let directory = open(&tensors);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let same = checkpoint.stored_weight("m", [8, 16]).unwrap();
    assert_eq!(
        same.dequantize([8, 16]).unwrap(),
        weight.dequantize([8, 16]).unwrap()
    );

    for (extra, expected) in [
        (json!({"bits": 3}), "unsupported: GPTQ with 3 bits"),
        (
            json!({"bits": "four"}),
            "quantization_config.bits: expected a number, found \"four\"",
        ),
        (
            json!({"checkpoint_format": "marlin"}),
            "unsupported: GPTQ with checkpoint_format `marlin`",
        ),
        (
            json!({"checkpoint_format": 2}),
            "quantization_config.checkpoint_format: expected a name, found 2",
        ),
        (
            json!({"is_marlin_format": true}),
            "unsupported: GPTQ in the layout of Marlin's kernels",
        ),
        (
            json!({"pack_dtype": "int16"}),
            "unsupported: GPTQ with words of the dtype \"int16\"",
        ),
        (
            json!({"dynamic": {"+:.*down": {"bits": 8}}}),
            "unsupported: GPTQ with other bits for some modules",
        ),
        (
            json!({"quant_method": "awq", "version": "gemv"}),
            "unsupported: AWQ of the version `gemv`",
        ),
        (
            json!({"quant_method": "awq", "bits": 8}),
            "unsupported: AWQ with 8 bits",
        ),
        (
            json!({"quant_method": "awq", "version": 1}),
            "quantization_config.version: expected a name, found 1",
        ),
    ] {
        let directory = CheckpointDirectory::new(&config(extra), &gptq_tensors());
        let error = Checkpoint::open(directory.path()).unwrap_err();
        let text = directory.text(&error);
        assert!(text.contains(expected), "{text}");
    }
    // What is skipped by name has no codes, whatever its rule says.
    let skips = json!({"dynamic": {"-:.*down": {}, "+:.*up": {"group_size": 16}}});
    let directory = CheckpointDirectory::new(&config(skips), &gptq_tensors());
    assert!(Checkpoint::open(directory.path()).is_ok());
}

#[test]
fn damaged_awq_tensors_are_refused() {
    let config =
        json!({"quantization_config": {"quant_method": "awq", "bits": 4, "version": "GEMM"}});
    let tensors = || {
        vec![
            words("m.qweight", &[16, 1], 0x7654_3210),
            words("m.qzeros", &[2, 1], -0x7777_7778),
            halves("m.scales", &[2, 8], 0x3c00),
        ]
    };
    let directory = CheckpointDirectory::new(&config, &tensors());
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let weight = checkpoint.stored_weight("m", [8, 16]).unwrap();
    // The first output is the lowest nibble, the second the fifth.
    let values = weight.dequantize([8, 16]).unwrap();
    assert_eq!([values[0], values[16], values[32]], [-8.0, -4.0, -7.0]);
    for (replaced, expected) in [
        (
            words("m.qweight", &[15, 1], 0),
            "tensor `m.qweight`: shape: expected [16, 1], found [15, 1]",
        ),
        (
            words("m.qzeros", &[1, 1], 0),
            "tensor `m.qzeros`: shape: expected [2, 1], found [1, 1]",
        ),
        (
            halves("m.scales", &[3, 8], 0x3c00),
            "tensor `m.scales`: shape: expected [1, 8], found [3, 8]",
        ),
        (
            halves("m.scales", &[2, 8], 0x8000),
            "tensor `m.scales`: scale at [0, 0]: expected a number other than 0",
        ),
        (
            halves("m.scales", &[2, 8], 0xfc00),
            "tensor `m.scales`: element 0: expected a finite number, found -inf",
        ),
    ] {
        let mut tensors = tensors();
        tensors.retain(|(name, ..)| *name != replaced.0);
        tensors.push(replaced);
        let directory = CheckpointDirectory::new(&config, &tensors);
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let error = checkpoint.stored_weight("m", [8, 16]).unwrap_err();
        let text = directory.text(&error);
        assert!(
            text.starts_with(&format!("DIR/model.safetensors: {expected}")),
            "{text}"
        );
    }
    let error = checkpoint.stored_weight("m", [12, 16]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("outputs: expected a multiple of 8, found 12"),
        "{error}"
    );
}

/// Codes that no config speaks of are no float model.
#[test]
fn codes_without_a_config_are_refused() {
    let directory = CheckpointDirectory::new(&json!({}), &gptq_tensors());
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let error = checkpoint.expect_no_codes_without_config().unwrap_err();
    assert_eq!(error.tensor(), Some("m.qweight"));
}
