//! compressed-tensors checkpoints: golden files of the real library, and what fewbit writes.

use crate::checkpoint_builder::golden;
use fewbit_checkpoint::compressed_tensors::{CompressedScheme, WeightScales, config};
use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_checkpoint::{Checkpoint, CheckpointWriter, StoredWeight, WeightLayout};
use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::affine::CodeRange;
use fewbit_numerics::rows::{quantize_int8_with_scale, quantize_rows_int8};
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use std::fs;

/// The upper half of the bits, rounded to nearest even: finite values only.
fn to_bfloat16(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

#[test]
fn weights_of_the_library() {
    let checkpoint = Checkpoint::open(golden("compressed-tensors")).unwrap();
    assert_eq!(
        checkpoint.quantization().to_string(),
        "compressed-tensors int-quantized + pack-quantized"
    );
    let bytes = fs::read(golden("compressed-tensors").join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let mut modules = 0;
    for (module, view) in expected.tensors() {
        let shape = [view.shape()[0], view.shape()[1]];
        let weight = checkpoint.stored_weight(&module, shape).unwrap();
        let values = weight.dequantize(shape).unwrap();
        match view.dtype() {
            Dtype::F32 => {
                let found: Vec<u8> = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                assert_eq!(found, view.data(), "{module}");
            }
            // With BF16 scales the library multiplies in bf16, which is the f32 product rounded.
            Dtype::BF16 => {
                let found: Vec<u8> = values
                    .iter()
                    .flat_map(|&value| to_bfloat16(value).to_le_bytes()[2..].to_vec())
                    .collect();
                assert_eq!(found, view.data(), "{module}");
            }
            other => panic!("{other}"),
        }
        modules += 1;
    }
    assert_eq!(modules, 13);

    let activations = |module: &str| match checkpoint.stored_weight(module, [6, 20]).unwrap() {
        StoredWeight::Int8 { activations, .. } => activations,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        activations("dynamic"),
        Int8Activations::Dynamic(ActivationScheme::Symmetric)
    );
    assert_eq!(
        activations("dynamic_affine"),
        Int8Activations::Dynamic(ActivationScheme::Affine)
    );
    assert_eq!(
        activations("per_tensor"),
        Int8Activations::Dynamic(ActivationScheme::Symmetric)
    );
    assert_eq!(
        activations("static"),
        Int8Activations::Static {
            scale: 0.03,
            zero_point: 0,
            codes: CodeRange::INT8
        }
    );
    assert_eq!(
        activations("static_affine"),
        Int8Activations::Static {
            scale: 0.04,
            zero_point: -5,
            codes: CodeRange::INT8
        }
    );
    for (module, shape, group, expected_bits) in [
        ("packed8", [6, 21], 21, 8),
        ("packed4", [6, 64], 32, 4),
        ("packed4_bfloat16", [6, 64], 32, 4),
        ("word_embeddings", [11, 12], 12, 8),
    ] {
        let StoredWeight::Groups {
            group_size, bits, ..
        } = checkpoint.stored_weight(module, shape).unwrap()
        else {
            panic!("{module}")
        };
        assert_eq!((group_size, bits), (group, expected_bits), "{module}");
    }
    let dynamic = Some(Int8Activations::Dynamic(ActivationScheme::Symmetric));
    for (module, rows, has_zero_points, expected) in [
        ("asymmetric4", 11, true, None),
        ("asymmetric4_bytes", 11, true, dynamic),
        ("dynamic4", 6, false, dynamic),
        ("dynamic4_packed", 6, false, dynamic),
    ] {
        let StoredWeight::Groups {
            zero_points,
            group_size: 32,
            bits: 4,
            activations,
            ..
        } = checkpoint.stored_weight(module, [rows, 64]).unwrap()
        else {
            panic!("{module}")
        };
        assert_eq!(zero_points.is_some(), has_zero_points, "{module}");
        assert_eq!(activations, expected, "{module}");
    }
    assert!(matches!(
        checkpoint.stored_weight("ignored", [2, 4]).unwrap(),
        StoredWeight::Float(_)
    ));
    let named: usize = expected
        .names()
        .iter()
        .map(|module| checkpoint.weight_tensor_names(module).len())
        .sum();
    assert_eq!(named + 1, checkpoint.tensors().count());
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Written, opened again under names with the model's prefix, and equal.
#[test]
fn written_weights_are_read() {
    let (rows, columns) = (5, 7);
    let values: Vec<f32> = (0..rows * columns)
        .map(|index| ((index * 37 % 101) as f32 - 50.0) / 64.0)
        .collect();
    let per_channel = quantize_rows_int8(&values, rows, columns);
    let per_tensor = quantize_int8_with_scale(&values, rows, columns, 0.0625);
    let (linear, table) = (
        "bert.encoder.layer.0.output.dense",
        "bert.embeddings.word_embeddings",
    );
    for scheme in [
        CompressedScheme::DynamicInt8,
        CompressedScheme::StaticInt8 {
            scale: 0.25,
            zero_point: -7,
            weights: WeightScales::PerChannel,
            reduce_range: false,
        },
        CompressedScheme::StaticInt8 {
            scale: 0.25,
            zero_point: 63,
            weights: WeightScales::PerTensor,
            reduce_range: true,
        },
        CompressedScheme::PerTensorDynamicInt8 {
            weights: WeightScales::PerTensor,
            reduce_range: true,
        },
        CompressedScheme::PerTensorDynamicInt8 {
            weights: WeightScales::PerChannel,
            reduce_range: false,
        },
        CompressedScheme::WeightOnlyInt8,
    ] {
        let quantized = match scheme.weight_scales() {
            WeightScales::PerChannel => &per_channel,
            WeightScales::PerTensor => &per_tensor,
        };
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let mut writer = CheckpointWriter::create(&out, false).unwrap();
        let mut plans = scheme.plan(linear, [rows, columns]);
        plans.extend(CompressedScheme::DynamicInt8.plan(table, [rows, columns]));
        writer.plan_tensors(plans.clone()).unwrap();
        let table_scheme = CompressedScheme::DynamicInt8;
        let (weight, words) = (
            scheme.stored_weight_of(quantized),
            table_scheme.stored_weight_of(&per_channel),
        );
        let shape = [rows, columns];
        let mut parts = scheme.encode(linear, shape, 0, &weight).unwrap();
        parts.extend(table_scheme.encode(table, shape, 0, &words).unwrap());
        for (plan, part) in plans.iter().zip(&parts) {
            assert_eq!(
                (&plan.name, plan.byte_len(), 0),
                (&part.name, part.bytes.len(), part.offset)
            );
            writer.write_tensor(&part.name, &part.bytes).unwrap();
        }
        let modules = names(&["encoder.layer.0.output.dense"]);
        let config = config(
            &[(scheme, &modules)],
            &names(&["embeddings.word_embeddings"]),
            &names(&["pooler.dense"]),
        );
        writer
            .write_json("config.json", &json!({"quantization_config": config}))
            .unwrap();
        writer.finish().unwrap();

        let checkpoint = Checkpoint::open(&out).unwrap();
        let shape = [rows, columns];
        match (scheme, checkpoint.stored_weight(linear, shape).unwrap()) {
            (
                CompressedScheme::DynamicInt8,
                StoredWeight::Int8 {
                    codes,
                    scales,
                    activations,
                },
            ) => {
                assert_eq!(
                    (&codes[..], &scales),
                    (&quantized.codes[..], &quantized.scales)
                );
                assert_eq!(
                    activations,
                    Int8Activations::Dynamic(ActivationScheme::Affine)
                );
            }
            (
                CompressedScheme::StaticInt8 {
                    scale,
                    zero_point,
                    reduce_range,
                    ..
                },
                StoredWeight::Int8 {
                    codes,
                    scales,
                    activations,
                },
            ) => {
                assert_eq!(
                    (&codes[..], &scales),
                    (&quantized.codes[..], &quantized.scales)
                );
                let expected = Int8Activations::Static {
                    scale,
                    zero_point: i32::from(zero_point),
                    codes: match reduce_range {
                        true => CodeRange { min: -64, max: 63 },
                        false => CodeRange::INT8,
                    },
                };
                assert_eq!(activations, expected);
            }
            (
                CompressedScheme::PerTensorDynamicInt8 { reduce_range, .. },
                StoredWeight::Int8 {
                    codes,
                    scales,
                    activations,
                },
            ) => {
                assert_eq!(
                    (&codes[..], &scales),
                    (&quantized.codes[..], &quantized.scales)
                );
                assert_eq!(
                    activations,
                    Int8Activations::DynamicPerTensor { reduce_range }
                );
            }
            (
                CompressedScheme::WeightOnlyInt8,
                StoredWeight::Groups {
                    codes,
                    scales,
                    group_size,
                    bits,
                    ..
                },
            ) => {
                assert_eq!(
                    (&codes[..], &scales),
                    (&quantized.codes[..], &quantized.scales)
                );
                assert_eq!((group_size, bits), (columns, 8));
            }
            (_, other) => panic!("{other:?}"),
        }
        let StoredWeight::Groups { codes, .. } = checkpoint.stored_weight(table, shape).unwrap()
        else {
            panic!()
        };
        assert_eq!(codes, per_channel.codes);
    }
}
