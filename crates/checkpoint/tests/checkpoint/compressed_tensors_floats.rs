//! compressed-tensors checkpoints of FP8, NVFP4 and MXFP4: golden files of the real library, what fewbit writes, and what it refuses.

use crate::checkpoint_builder::{CheckpointDirectory, Tensor, f32_tensor, golden, tensor};
use fewbit_checkpoint::compressed_tensors::{
    CompressedScheme, FloatActivations, FloatScheme, WeightScales, config,
};
use fewbit_checkpoint::small_floats::{SmallFloatScales, SmallFloatType, SmallFloats};
use fewbit_checkpoint::{Checkpoint, CheckpointWriter, StoredWeight, WeightLayout};
use fewbit_numerics::absmax::absmax;
use fewbit_numerics::half_precision::f32_to_bf16_bytes;
use fewbit_numerics::small_floats::{
    MXFP4_GROUP, NVFP4_GROUP, e4m3_to_f32, e8m0_to_f32, fp8_scale, mxfp4_scale, nvfp4_global_scale,
    nvfp4_scale, quantize_e2m1, quantize_e4m3,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::fs;

const GOLDEN: &str = "compressed-tensors-floats";

fn file(name: &str) -> Vec<u8> {
    fs::read(golden(GOLDEN).join(name)).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|word| f32::from_le_bytes(*word)).collect()
}

#[test]
fn weights_of_the_library() {
    let checkpoint = Checkpoint::open(golden(GOLDEN)).unwrap();
    assert_eq!(
        checkpoint.quantization().to_string(),
        "compressed-tensors float-quantized + naive-quantized + nvfp4-pack-quantized + mxfp4-pack-quantized"
    );
    let bytes = file("expected.safetensors");
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(expected.len(), 6);
    for (module, view) in expected.tensors() {
        let shape = [view.shape()[0], view.shape()[1]];
        assert_eq!(checkpoint.weight_shape(&module).unwrap().unwrap(), shape);
        let weight = checkpoint.stored_weight(&module, shape).unwrap();
        let values = weight.dequantize(shape).unwrap();
        let found = match view.dtype() {
            Dtype::F32 => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            // Weights of 4 bits are made in bf16, which is the f32 product rounded.
            Dtype::BF16 => {
                let mut bytes = vec![0; 2 * values.len()];
                f32_to_bf16_bytes(&values, &mut bytes);
                bytes
            }
            other => panic!("{other}"),
        };
        assert_eq!(found, view.data(), "{module}");
    }
    assert!(matches!(
        checkpoint.stored_weight("ignored", [2, 4]).unwrap(),
        StoredWeight::Float(_)
    ));
    assert_eq!(checkpoint.dequantized().unwrap().tensors().count(), 7);
}

/// The codes and scales that the scales of `fewbit_numerics` give of the float weights.
fn quantized(
    kind: SmallFloatType,
    one_scale: bool,
    values: &[f32],
    columns: usize,
) -> SmallFloats<'static> {
    let packed = |size: usize, scale_of: &dyn Fn(f32) -> (u8, f32)| {
        let mut codes = vec![0; values.len() / 2];
        let groups = values.chunks(size).zip(codes.chunks_mut(size / 2));
        let scales = groups.map(|(group, codes)| {
            let (code, scale) = scale_of(absmax(group));
            quantize_e2m1(group, scale, codes);
            code
        });
        let scales: Vec<u8> = scales.collect();
        (codes, scales)
    };
    match kind {
        SmallFloatType::Fp8 => {
            let mut codes = vec![0; values.len()];
            let rows = values.chunks(columns).zip(codes.chunks_mut(columns));
            let scales = rows.map(|(row, codes)| {
                let scale = fp8_scale(absmax(if one_scale { values } else { row }));
                quantize_e4m3(row, scale, codes);
                scale
            });
            let scales = SmallFloatScales::Rows(scales.collect());
            SmallFloats {
                codes: codes.into(),
                scales,
            }
        }
        SmallFloatType::Nvfp4 => {
            let global_scale = nvfp4_global_scale(absmax(values));
            let (codes, scales) = packed(NVFP4_GROUP, &|largest| {
                let code = nvfp4_scale(largest, global_scale);
                (code, e4m3_to_f32(code) / global_scale)
            });
            SmallFloats {
                codes: codes.into(),
                scales: SmallFloatScales::Nvfp4 {
                    codes: scales.into(),
                    global_scale,
                },
            }
        }
        SmallFloatType::Mxfp4 => {
            let (codes, scales) = packed(MXFP4_GROUP, &|largest| {
                let code = mxfp4_scale(largest);
                (code, e8m0_to_f32(code))
            });
            SmallFloats {
                codes: codes.into(),
                scales: SmallFloatScales::Mxfp4(scales.into()),
            }
        }
    }
}

fn scheme(kind: SmallFloatType, weights: WeightScales) -> FloatScheme {
    FloatScheme {
        kind,
        weights,
        activations: None,
    }
}

/// The same weight with the global scale of the file. torch divides a number by a tensor by multiplying with its reciprocal, one rounding more.
fn under_the_scale_of_the_library(
    weight: SmallFloats<'static>,
    checkpoint: &Checkpoint,
) -> SmallFloats<'static> {
    let stored = checkpoint.require("nvfp4.weight_global_scale").unwrap();
    let stored = stored.to_f32().unwrap()[0];
    let SmallFloatScales::Nvfp4 {
        codes,
        global_scale,
    } = weight.scales
    else {
        panic!("NVFP4");
    };
    assert!([stored.next_down(), stored, stored.next_up()].contains(&global_scale));
    SmallFloats {
        codes: weight.codes,
        scales: SmallFloatScales::Nvfp4 {
            codes,
            global_scale: stored,
        },
    }
}

/// What the library's config says of a module, the one that fewbit writes says, too.
fn expect_group_of_the_library(module: &str, written: &Value) {
    let library: Value = serde_json::from_slice(&file("config.json")).unwrap();
    let groups = library["quantization_config"]["config_groups"].as_object();
    let mut groups = groups.unwrap().values();
    let group = groups.find(|group| group["targets"] == json!([module]));
    let group = group.unwrap();
    assert_eq!(written["format"], group["format"], "{module}");
    for part in ["weights", "input_activations"] {
        let Some(arguments) = group[part].as_object() else {
            assert_eq!(written[part], Value::Null, "{module}: {part}");
            continue;
        };
        for (key, value) in arguments {
            assert_eq!(&written[part][key], value, "{module}: {part}.{key}");
        }
    }
}

/// Codes, scales and the tensors that hold them are those of the library for the same weights.
#[test]
fn the_bytes_of_the_library() {
    let checkpoint = Checkpoint::open(golden(GOLDEN)).unwrap();
    let bytes = file("originals.safetensors");
    let originals = SafeTensors::deserialize(&bytes).unwrap();
    let per_token = Some(FloatActivations::PerToken);
    let fixed = Some(FloatActivations::Static { scale: 0.02 });
    use SmallFloatType::{Fp8, Mxfp4, Nvfp4};
    use WeightScales::{PerChannel, PerTensor};
    for (module, kind, weights, activations) in [
        ("fp8_channel", Fp8, PerChannel, per_token),
        ("fp8_tensor", Fp8, PerTensor, per_token),
        ("fp8_static", Fp8, PerChannel, fixed),
        ("fp8_alone", Fp8, PerChannel, None),
        ("nvfp4", Nvfp4, PerChannel, None),
        ("mxfp4", Mxfp4, PerChannel, None),
    ] {
        let original = originals.tensor(&format!("{module}.weight")).unwrap();
        let shape = [original.shape()[0], original.shape()[1]];
        let one_scale = weights == PerTensor;
        let weight = quantized(kind, one_scale, &floats(original.data()), shape[1]);
        let weight = match kind {
            Nvfp4 => under_the_scale_of_the_library(weight, &checkpoint),
            _ => weight,
        };
        let weight = StoredWeight::SmallFloats(weight);
        let layout = FloatScheme {
            activations,
            ..scheme(kind, weights)
        };
        let modules = [module.to_owned()];
        let written = config(&[(CompressedScheme::Float(layout), &modules)], &[], &[]);
        expect_group_of_the_library(module, &written["config_groups"]["group_0"]);
        let parts = layout.encode(module, shape, 0, &weight).unwrap();
        assert_eq!(
            parts.len(),
            checkpoint.weight_tensor_names(module).len(),
            "{module}"
        );
        for (part, plan) in parts.iter().zip(layout.plan(module, shape)) {
            let stored = checkpoint.require(&part.name).unwrap();
            assert_eq!(
                (plan.name, plan.dtype, &plan.shape),
                (part.name.clone(), stored.info.dtype, &stored.info.shape)
            );
            assert_eq!(part.bytes, stored.bytes().unwrap(), "{}", part.name);
        }
    }
}

/// Written in parts, opened again under names with the model's prefix, and equal.
#[test]
fn written_weights_are_read() {
    let values: Vec<f32> = (0..5 * 64)
        .map(|index| ((index * 37 % 101) as f32 - 50.0) / 64.0)
        .collect();
    let fixed = Some(FloatActivations::Static { scale: 0.25 });
    let per_token = Some(FloatActivations::PerToken);
    for (kind, weights, activations) in [
        (SmallFloatType::Fp8, WeightScales::PerChannel, per_token),
        (SmallFloatType::Fp8, WeightScales::PerChannel, fixed),
        (SmallFloatType::Fp8, WeightScales::PerTensor, fixed),
        (SmallFloatType::Fp8, WeightScales::PerTensor, None),
        (SmallFloatType::Nvfp4, WeightScales::PerChannel, None),
        (SmallFloatType::Mxfp4, WeightScales::PerChannel, None),
    ] {
        let weight = quantized(kind, weights == WeightScales::PerTensor, &values, 64);
        let weight = StoredWeight::SmallFloats(weight);
        let layout = FloatScheme {
            kind,
            weights,
            activations,
        };
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("model");
        let mut writer = CheckpointWriter::create(&out, false).unwrap();
        writer
            .plan_tensors(layout.plan("bert.l.0.dense", [5, 64]))
            .unwrap();
        for rows in [0..2, 2..5] {
            let part = weight.rows(rows.clone(), 64).unwrap();
            writer
                .write_weight(&layout, "bert.l.0.dense", [5, 64], rows.start, &part)
                .unwrap();
        }
        let modules = ["l.0.dense".to_owned()];
        let config = config(&[(CompressedScheme::Float(layout), &modules)], &[], &[]);
        writer
            .write_json("config.json", &json!({ "quantization_config": config }))
            .unwrap();
        writer.finish().unwrap();
        let checkpoint = Checkpoint::open(&out).unwrap();
        let read = checkpoint.stored_weight("bert.l.0.dense", [5, 64]).unwrap();
        assert_eq!(
            read.dequantize([5, 64]).unwrap(),
            weight.dequantize([5, 64]).unwrap()
        );
        let names = checkpoint.weight_tensor_names("bert.l.0.dense");
        assert_eq!(names.len(), checkpoint.tensors().count());
    }
}

#[test]
fn what_a_layout_has_no_place_for_is_refused() {
    let values: Vec<f32> = (0..64).map(|index| index as f32 / 64.0).collect();
    let fp8 = StoredWeight::SmallFloats(quantized(SmallFloatType::Fp8, false, &values, 32));
    for (layout, expected) in [
        (
            scheme(SmallFloatType::Nvfp4, WeightScales::PerChannel),
            "expected nvfp4 codes, found fp8 codes",
        ),
        (
            scheme(SmallFloatType::Fp8, WeightScales::PerTensor),
            "expected one scale for all rows, found fp8 codes",
        ),
    ] {
        let error = layout
            .encode("m", [2, 32], 0, &fp8)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    let layout = scheme(SmallFloatType::Fp8, WeightScales::PerChannel);
    let error = layout
        .encode("m", [2, 32], 1, &fp8)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("expected rows of 0..2, found 1..3"),
        "{error}"
    );
    let codes = StoredWeight::of_values(&values);
    let error = layout
        .encode("m", [2, 32], 0, &codes)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("expected fp8 codes, found floats"),
        "{error}"
    );
}

fn bytes(name: &str, dtype: Dtype, shape: &[usize], byte: u8) -> Tensor {
    tensor(name, dtype, shape, vec![[byte]; shape.iter().product()])
}

fn group(format: &str, weights: &Value) -> Value {
    let group = json!({"targets": ["Linear"], "weights": weights, "format": format});
    json!({"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}})
}

fn fp8() -> (Value, Vec<Tensor>) {
    let weights = json!({"num_bits": 8, "type": "float", "strategy": "channel"});
    let tensors = vec![
        bytes("m.weight", Dtype::F8_E4M3, &[2, 32], 0x38),
        f32_tensor("m.weight_scale", &[2, 1], &[0.5, 2.0]),
    ];
    (group("float-quantized", &weights), tensors)
}

fn nvfp4() -> (Value, Vec<Tensor>) {
    let weights =
        json!({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16});
    let tensors = vec![
        bytes("m.weight_packed", Dtype::U8, &[2, 16], 0x21),
        bytes("m.weight_scale", Dtype::F8_E4M3, &[2, 2], 0x38),
        f32_tensor("m.weight_global_scale", &[1], &[2.0]),
    ];
    (group("nvfp4-pack-quantized", &weights), tensors)
}

fn mxfp4() -> (Value, Vec<Tensor>) {
    let weights = json!({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32});
    let tensors = vec![
        bytes("m.weight_packed", Dtype::U8, &[2, 16], 0xf1),
        bytes("m.weight_scale", Dtype::U8, &[2, 1], 128),
    ];
    (group("mxfp4-pack-quantized", &weights), tensors)
}

#[test]
fn damaged_tensors_are_refused() {
    let read = |config: &Value, tensors: &[Tensor], columns: usize| {
        let directory = CheckpointDirectory::new(config, tensors);
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let weight = checkpoint.stored_weight("m", [2, columns]);
        weight
            .and_then(|weight| weight.dequantize([2, columns]))
            .map_err(|error| directory.text(&error))
    };
    for ((config, tensors), first) in [
        (fp8(), [0.5, 0.5]),
        (nvfp4(), [0.25, 0.5]),
        (mxfp4(), [1.0, -12.0]),
    ] {
        assert_eq!(read(&config, &tensors, 32).unwrap()[..2], first);
        for index in 0..tensors.len() {
            let mut fewer = tensors.clone();
            let (missing, ..) = fewer.remove(index);
            let error = read(&config, &fewer, 32).unwrap_err();
            // Without one of its tensors a weight may look like one of another layout.
            assert!(error.contains("tensor `m.weight"), "{missing}: {error}");
        }
    }
    for ((config, mut tensors), replaced, expected) in [
        (
            fp8(),
            bytes("m.weight", Dtype::F8_E4M3, &[2, 32], 0x7f),
            "element [0, 0]: expected a finite number, found NaN",
        ),
        (
            fp8(),
            bytes("m.weight", Dtype::F8_E4M3, &[2, 31], 0),
            "shape: expected [2, 32], found [2, 31]",
        ),
        (
            fp8(),
            bytes("m.weight", Dtype::I8, &[2, 32], 0),
            "dtype: expected F8_E4M3, found I8",
        ),
        (
            fp8(),
            f32_tensor("m.weight_scale", &[2, 1], &[0.5, 0.0]),
            "scale 1: expected a number other than 0, found 0",
        ),
        (
            fp8(),
            f32_tensor("m.weight_scale", &[2, 1], &[0.5, f32::NAN]),
            "element 1: expected a finite number, found NaN",
        ),
        (
            fp8(),
            f32_tensor("m.weight_scale", &[1, 1], &[0.5]),
            "shape: expected [2, 1], found [1, 1]",
        ),
        (
            nvfp4(),
            bytes("m.weight_packed", Dtype::U8, &[2, 15], 0),
            "shape: expected [2, 16], found [2, 15]",
        ),
        (
            nvfp4(),
            bytes("m.weight_packed", Dtype::I8, &[2, 16], 0),
            "dtype: expected U8, found I8",
        ),
        (
            nvfp4(),
            bytes("m.weight_scale", Dtype::F8_E4M3, &[2, 2], 0xff),
            "element [0, 0]: expected a finite number, found NaN",
        ),
        (
            nvfp4(),
            bytes("m.weight_scale", Dtype::F8_E4M3, &[2, 2], 0x80),
            "scale 0: expected a number other than 0, found 0",
        ),
        (
            nvfp4(),
            bytes("m.weight_scale", Dtype::U8, &[2, 2], 1),
            "dtype: expected F8_E4M3, found U8",
        ),
        (
            nvfp4(),
            f32_tensor("m.weight_global_scale", &[1], &[0.0]),
            "scale 0: expected a number other than 0, found 0",
        ),
        (
            nvfp4(),
            f32_tensor("m.weight_global_scale", &[1], &[f32::INFINITY]),
            "element 0: expected a finite number, found inf",
        ),
        (
            nvfp4(),
            f32_tensor("m.weight_global_scale", &[2], &[1.0, 1.0]),
            "shape: expected [1], found [2]",
        ),
        (
            mxfp4(),
            bytes("m.weight_scale", Dtype::U8, &[2, 1], 255),
            "element [0, 0]: expected a finite number, found NaN",
        ),
        (
            mxfp4(),
            bytes("m.weight_scale", Dtype::U8, &[2, 2], 1),
            "shape: expected [2, 1], found [2, 2]",
        ),
    ] {
        let name = replaced.0.clone();
        tensors.retain(|(known, ..)| *known != name);
        tensors.push(replaced);
        let error = read(&config, &tensors, 32).unwrap_err();
        assert!(
            error.starts_with(&format!(
                "DIR/model.safetensors: tensor `{name}`: {expected}"
            )),
            "{error}"
        );
    }
    let (config, tensors) = mxfp4();
    let error = read(&config, &tensors, 30).unwrap_err();
    assert!(
        error
            .contains("columns: expected a multiple of 32, which share a scale of mxfp4, found 30"),
        "{error}"
    );
}

#[test]
fn schemes_that_are_not_read() {
    for (format, weights) in [
        (
            "float-quantized",
            json!({"num_bits": 8, "type": "int", "strategy": "channel"}),
        ),
        (
            "float-quantized",
            json!({"num_bits": 8, "type": "float", "strategy": "block"}),
        ),
        (
            "float-quantized",
            json!({"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": false}),
        ),
        (
            "nvfp4-pack-quantized",
            json!({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 16}),
        ),
        (
            "nvfp4-pack-quantized",
            json!({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 32}),
        ),
        (
            "mxfp4-pack-quantized",
            json!({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 16}),
        ),
        (
            "mxfp4-pack-quantized",
            json!({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "dynamic": true}),
        ),
    ] {
        let directory =
            CheckpointDirectory::new(&group(format, &weights), &[f32_tensor("w", &[1], &[0.0])]);
        let error = Checkpoint::open(directory.path()).unwrap_err();
        let text = directory.text(&error);
        assert!(
            text.starts_with("DIR/config.json: unsupported: compressed-tensors "),
            "{text}"
        );
        assert!(text.contains("(config_groups.group_0.weights)"), "{text}");
    }
}
