//! bitsandbytes checkpoints: golden files of the real library, what fewbit writes, and what it refuses.

use crate::checkpoint_builder::{CheckpointDirectory, Tensor, f32_tensor, golden, tensor};
use fewbit_checkpoint::bitsandbytes::FourBitLayout;
use fewbit_checkpoint::weight_layout::TensorPart;
use fewbit_checkpoint::{
    Checkpoint, CheckpointError, CheckpointErrorKind, CheckpointWriter, QuantizationConfig,
    StoredWeight, WeightLayout,
};
use fewbit_numerics::double_quantization;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::four_bit::{FourBitType, quantize_blocks};
use insta::assert_snapshot;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::fs;

/// What the library dequantized `module` to, widened.
fn expected(golden_name: &str, module: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(golden(golden_name).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(module).unwrap();
    let widen = |bytes: &[u8]| match view.dtype() {
        Dtype::F32 => f32::from_le_bytes(bytes.try_into().unwrap()),
        Dtype::BF16 => {
            f32::from_bits(u32::from(u16::from_le_bytes(bytes.try_into().unwrap())) << 16)
        }
        Dtype::F16 => half_to_f32(u16::from_le_bytes(bytes.try_into().unwrap())),
        other => panic!("{other}"),
    };
    let width = view.data().len() / view.shape().iter().product::<usize>();
    (
        view.shape().to_vec(),
        view.data().chunks(width).map(widen).collect(),
    )
}

/// By the definition of fp16; finite values only.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    assert_ne!(exponent, 0x1f);
    if exponent == 0 {
        sign * mantissa * 2f32.powi(-24)
    } else {
        sign * (1.0 + mantissa / 1024.0) * 2f32.powi(exponent - 15)
    }
}

/// The bits, with one zero: code 8 of FP4 is +0 in the library's quant_map and -0 in its CPU kernel.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| (value + 0.0).to_bits()).collect()
}

#[test]
fn four_bit_weights_of_the_library() {
    let checkpoint = Checkpoint::open(golden("bitsandbytes-4bit")).unwrap();
    assert_eq!(checkpoint.quantization().to_string(), "bitsandbytes 4-bit");
    for (module, expected_kind, expected_dtype) in [
        ("nf4", FourBitType::Nf4, DType::F32),
        ("nf4_short_block", FourBitType::Nf4, DType::F32),
        ("nf4_nested", FourBitType::Nf4, DType::F16),
        ("nf4_nested_bfloat16", FourBitType::Nf4, DType::BF16),
        ("fp4", FourBitType::Fp4, DType::BF16),
        ("fp4_nested", FourBitType::Fp4, DType::F32),
    ] {
        let (shape, values) = expected("bitsandbytes-4bit", module);
        let shape = [shape[0], shape[1]];
        let weight = checkpoint.stored_weight(module, shape).unwrap();
        let StoredWeight::FourBit { kind, dtype, .. } = weight else {
            panic!("{module}")
        };
        assert_eq!((kind, dtype), (expected_kind, expected_dtype), "{module}");
        assert_eq!(
            bits(&weight.dequantize(shape).unwrap()),
            bits(&values),
            "{module}"
        );
        assert_eq!(
            weight
                .dequantize([shape[0], shape[1] + 1])
                .unwrap_err()
                .kind(),
            CheckpointErrorKind::WrongShape
        );
    }
    // Every tensor belongs to one of the modules.
    let modules = [
        "nf4",
        "nf4_short_block",
        "nf4_nested",
        "nf4_nested_bfloat16",
        "fp4",
        "fp4_nested",
        "skipped",
    ];
    let named: usize = modules
        .iter()
        .map(|module| checkpoint.weight_tensor_names(module).len())
        .sum();
    assert_eq!(named, checkpoint.tensors().count());
    let skipped = checkpoint.stored_weight("skipped", [2, 4]).unwrap();
    assert_eq!(
        skipped.dequantize([2, 4]).unwrap(),
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    );
}

#[test]
fn eight_bit_weight_of_the_library() {
    let checkpoint = Checkpoint::open(golden("bitsandbytes-8bit")).unwrap();
    assert_eq!(checkpoint.quantization().to_string(), "bitsandbytes 8-bit");
    let weight = checkpoint.stored_weight("dense", [5, 24]).unwrap();
    assert!(matches!(
        weight,
        StoredWeight::Groups {
            group_size: 24,
            bits: 8,
            ..
        }
    ));
    let (_, values) = expected("bitsandbytes-8bit", "dense");
    for (found, expected) in weight.dequantize([5, 24]).unwrap().iter().zip(values) {
        // Two orders of two roundings: each result is within a relative 2 * 2^-24 (to first order) of the exact product
        // with f32(1/127), so they are within 4 * 2^-24 of each other.
        assert!(
            (found - expected).abs() <= expected.abs() * 4.0 * f32::EPSILON / 2.0,
            "{found} {expected}"
        );
    }
    assert_eq!(
        checkpoint.weight_tensor_names("dense"),
        ["dense.weight", "dense.SCB", "dense.weight_format"]
    );
}

/// Encoding the library's own codes gives the library's own tensors.
#[test]
fn encoding_is_the_librarys() {
    let checkpoint = Checkpoint::open(golden("bitsandbytes-4bit")).unwrap();
    for (module, kind, dtype, shape) in [
        ("nf4", FourBitType::Nf4, "float32", [6, 64]),
        ("nf4_short_block", FourBitType::Nf4, "float32", [5, 34]),
        ("fp4", FourBitType::Fp4, "bfloat16", [6, 64]),
    ] {
        let layout = FourBitLayout {
            kind,
            block_size: 64,
            double_quantization: false,
            dtype: dtype.to_owned(),
        };
        let weight = checkpoint.stored_weight(module, shape).unwrap();
        let encoded = layout.encode(module, shape, 0, &weight).unwrap();
        let names: Vec<&str> = encoded.iter().map(|part| part.name.as_str()).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, {
            let mut names = checkpoint.weight_tensor_names(module);
            names.sort_unstable();
            names
        });
        for (TensorPart { name, bytes, .. }, plan) in encoded.iter().zip(layout.plan(module, shape))
        {
            let view = checkpoint.require(name).unwrap();
            assert_eq!(
                (&plan.name, plan.dtype, plan.byte_len()),
                (name, view.info.dtype, bytes.len())
            );
            if name.contains("quant_state") {
                let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
                assert_eq!(json(bytes), json(&view.bytes().unwrap()), "{name}");
            } else {
                assert_eq!(plan.shape, view.info.shape, "{name}");
                assert_eq!(*bytes, view.bytes().unwrap(), "{name}");
            }
        }
    }
}

#[test]
fn written_weights_are_read() {
    let shape = [33, 130];
    let values: Vec<f32> = (0..shape[0] * shape[1])
        .map(|index| ((index * 37 % 101) as f32 - 50.0) / 64.0)
        .collect();
    for kind in [FourBitType::Nf4, FourBitType::Fp4] {
        for (double_quantization, block_size, dtype) in [
            (false, 64, "float32"),
            (true, 32, "float16"),
            (true, 64, "bfloat16"),
        ] {
            let layout = FourBitLayout {
                kind,
                block_size,
                double_quantization,
                dtype: dtype.to_owned(),
            };
            let blocks = quantize_blocks(&values, block_size, kind);
            let directory = tempfile::tempdir().unwrap();
            let out = directory.path().join("out");
            let mut writer = CheckpointWriter::create(&out, false).unwrap();
            writer.plan_tensors(layout.plan("m", shape)).unwrap();
            let nested = double_quantization.then(|| double_quantization::quantize(&blocks.absmax));
            let weight = StoredWeight::FourBit {
                packed: blocks.packed.clone().into(),
                absmax: blocks.absmax.clone(),
                nested: nested.clone(),
                block_size,
                kind,
                dtype: DType::F32,
            };
            writer
                .write_weight(&layout, "m", shape, 0, &weight)
                .unwrap();
            writer
                .write_json(
                    "config.json",
                    &json!({"quantization_config": layout.config(&["pooler.dense".to_owned()])}),
                )
                .unwrap();
            writer.finish().unwrap();

            let checkpoint = Checkpoint::open(&out).unwrap();
            let QuantizationConfig::BitsAndBytes(config) = checkpoint.quantization() else {
                panic!()
            };
            assert_eq!(
                (config.bits, config.kind, &config.skip_modules[..]),
                (4, Some(kind), &["pooler.dense".to_owned()][..])
            );
            assert_eq!(
                checkpoint.quantization().to_string(),
                format!("bitsandbytes {}", kind.name())
            );
            let StoredWeight::FourBit {
                packed,
                absmax,
                nested: nested_read,
                ..
            } = checkpoint.stored_weight("m", shape).unwrap()
            else {
                panic!()
            };
            assert_eq!(
                (packed, nested_read),
                (blocks.packed.clone().into(), nested)
            );
            if double_quantization {
                // The dynamic map's widest gap, near 1, is 0.0141: half of it times the largest deviation from the mean (below 1).
                for (read, written) in absmax.iter().zip(&blocks.absmax) {
                    assert!((read - written).abs() < 0.0071, "{read} {written}");
                }
            } else {
                assert_eq!(absmax, blocks.absmax);
            }
        }
    }
}

/// The tensors of a 1 x 64 NF4 module `m`, to damage.
fn nf4_tensors() -> Vec<Tensor> {
    let state = br#"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [1, 64]}"#;
    vec![
        tensor("m.weight", Dtype::U8, &[32, 1], [[0x77u8; 32]]),
        f32_tensor("m.weight.absmax", &[1], &[1.0]),
        f32_tensor("m.weight.quant_map", &[16], FourBitType::Nf4.table()),
        tensor(
            "m.weight.quant_state.bitsandbytes__nf4",
            Dtype::U8,
            &[state.len()],
            [state],
        ),
    ]
}

fn read(config: &Value, tensors: &[Tensor]) -> (CheckpointErrorKind, String) {
    let directory = CheckpointDirectory::new(&json!({"quantization_config": config}), tensors);
    let result = Checkpoint::open(directory.path()).and_then(|checkpoint| {
        let weight = checkpoint.stored_weight("m", [1, 64])?;
        weight.dequantize([1, 64])
    });
    let error: CheckpointError = result.unwrap_err();
    (error.kind(), directory.text(&error))
}

fn minimal() -> Value {
    json!({"quant_method": "bitsandbytes", "load_in_4bit": true})
}

/// The tensors with the one named `name` replaced, or dropped.
fn with(mut tensors: Vec<Tensor>, name: &str, replacement: Option<Tensor>) -> Vec<Tensor> {
    let at = tensors.iter().position(|tensor| tensor.0 == name).unwrap();
    tensors.remove(at);
    tensors.extend(replacement);
    tensors
}

#[test]
fn damaged_four_bit_weights() {
    let absmax = |value| {
        with(
            nf4_tensors(),
            "m.weight.absmax",
            Some(f32_tensor("m.weight.absmax", &[1], &[value])),
        )
    };
    let (kind, text) = read(&minimal(), &absmax(f32::NAN));
    assert_eq!(kind, CheckpointErrorKind::NonFinite);
    assert_snapshot!(text, @r"
    DIR/model.safetensors: tensor `m.weight.absmax`: element 0: expected a finite number, found NaN
      hint: the checkpoint is damaged, or was quantized from weights that were not finite
    ");
    assert_eq!(
        read(&minimal(), &absmax(f32::INFINITY)).0,
        CheckpointErrorKind::NonFinite
    );

    let short = tensor("m.weight", Dtype::U8, &[31, 1], [[0u8; 31]]);
    let (kind, text) = read(&minimal(), &with(nf4_tensors(), "m.weight", Some(short)));
    assert_eq!(kind, CheckpointErrorKind::WrongShape);
    assert_snapshot!(text, @"DIR/model.safetensors: tensor `m.weight`: 4-bit data of shape [1, 64]: expected 32 bytes, found 31");

    let blocks = f32_tensor("m.weight.absmax", &[2], &[1.0, 1.0]);
    let (_, text) = read(
        &minimal(),
        &with(nf4_tensors(), "m.weight.absmax", Some(blocks)),
    );
    assert_snapshot!(text, @"DIR/model.safetensors: tensor `m.weight.absmax`: shape: expected [1], found [2]");

    let (kind, text) = read(&minimal(), &with(nf4_tensors(), "m.weight.absmax", None));
    assert_eq!(kind, CheckpointErrorKind::MissingTensor);
    assert!(
        text.starts_with("DIR/model.safetensors: tensor `m.weight.absmax`: missing"),
        "{text}"
    );

    let table = f32_tensor("m.weight.quant_map", &[16], FourBitType::Fp4.table());
    let (kind, text) = read(
        &minimal(),
        &with(nf4_tensors(), "m.weight.quant_map", Some(table)),
    );
    assert_eq!(kind, CheckpointErrorKind::UnsupportedQuantization);
    assert_snapshot!(text, @"DIR/model.safetensors: tensor `m.weight.quant_map`: expected the code table of nf4, found another");

    let (kind, text) = read(
        &minimal(),
        &with(
            nf4_tensors(),
            "m.weight.quant_state.bitsandbytes__nf4",
            None,
        ),
    );
    assert_eq!(kind, CheckpointErrorKind::MissingTensor);
    assert!(
        text.contains("`m.weight.quant_state.bitsandbytes__nf4`: missing"),
        "{text}"
    );
}

#[test]
fn damaged_quant_state() {
    let name = "m.weight.quant_state.bitsandbytes__nf4";
    let state = |json: &str| {
        with(
            nf4_tensors(),
            name,
            Some(tensor(name, Dtype::U8, &[json.len()], [json])),
        )
    };
    for (json, expected_kind, expected) in [
        (
            r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [64, 1]}"#,
            CheckpointErrorKind::WrongShape,
            "shape: expected [1, 64], found [64, 1]",
        ),
        (
            r#"{"quant_type": "fp4", "blocksize": 64, "dtype": "float32", "shape": [1, 64]}"#,
            CheckpointErrorKind::Malformed,
            "quant_type: expected nf4, as in the tensor's name, found fp4",
        ),
        (
            r#"{"quant_type": "nf4", "blocksize": 0, "dtype": "float32", "shape": [1, 64]}"#,
            CheckpointErrorKind::Malformed,
            "quant_state field `blocksize`: expected a positive integer, found 0",
        ),
        (
            "nf4",
            CheckpointErrorKind::Malformed,
            "quant_state is not valid JSON: expected ident at line 1 column 2",
        ),
    ] {
        let (kind, text) = read(&minimal(), &state(json));
        assert_eq!(kind, expected_kind);
        assert_eq!(
            text,
            format!("DIR/model.safetensors: tensor `{name}`: {expected}")
        );
    }
}

#[test]
fn nested_absmax_that_overflows() {
    let name = "m.weight.quant_state.bitsandbytes__nf4";
    let json = r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [1, 64],
        "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 3e38}"#;
    let mut tensors = with(
        nf4_tensors(),
        name,
        Some(tensor(name, Dtype::U8, &[json.len()], [json])),
    );
    tensors = with(
        tensors,
        "m.weight.absmax",
        Some(tensor("m.weight.absmax", Dtype::U8, &[1], [[255u8]])),
    );
    tensors.push(f32_tensor("m.weight.nested_absmax", &[1], &[3e38]));
    tensors.push(f32_tensor("m.weight.nested_quant_map", &[256], &[1.0; 256]));
    let (kind, text) = read(&minimal(), &tensors);
    assert_eq!(kind, CheckpointErrorKind::NonFinite);
    assert_snapshot!(text, @"DIR/model.safetensors: tensor `m.weight.absmax`: element 0, dequantized: expected a finite number, found inf");
}

#[test]
fn eight_bit_format_that_is_not_read() {
    let tensors = [
        tensor("m.weight", Dtype::I8, &[1, 64], [[1u8; 64]]),
        f32_tensor("m.SCB", &[1], &[1.0]),
        tensor("m.weight_format", Dtype::U8, &[], [[2u8]]),
    ];
    let (kind, text) = read(
        &json!({"quant_method": "bitsandbytes", "load_in_8bit": true}),
        &tensors,
    );
    assert_eq!(kind, CheckpointErrorKind::UnsupportedQuantization);
    assert!(
        text.starts_with(
            "DIR/model.safetensors: tensor `m.weight_format`: unsupported: bitsandbytes weight_format: expected 0 (row-major), found [2]\n  hint: "
        ),
        "{text}"
    );
}

#[test]
fn contradictory_configs() {
    for (config, expected) in [
        (
            json!({"quant_method": "bitsandbytes", "_load_in_4bit": true}),
            "quantization_config: expected one of load_in_4bit and load_in_8bit to be true, found neither",
        ),
        (
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "load_in_8bit": true}),
            "quantization_config: expected one of load_in_4bit and load_in_8bit to be true, found both",
        ),
        (
            json!({"quant_method": "bitsandbytes", "load_in_4bit": 1}),
            "quantization_config.load_in_4bit: expected true or false, found 1",
        ),
        (
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "int4"}),
            "quantization_config.bnb_4bit_quant_type: expected `nf4` or `fp4`, found `int4`",
        ),
        (
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "llm_int8_skip_modules": "lm_head"}),
            "quantization_config.llm_int8_skip_modules: expected a list of names, found \"lm_head\"",
        ),
    ] {
        let (kind, text) = read(&config, &nf4_tensors());
        assert_eq!(kind, CheckpointErrorKind::Malformed);
        assert_eq!(text, format!("DIR/config.json: {expected}"));
    }
}
