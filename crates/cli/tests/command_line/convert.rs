//! `fewbit convert`

use crate::tiny_model::Workspace;
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// Name to shape of the tensors of a safetensors file, and its bytes.
fn shapes(bytes: &[u8]) -> Vec<(String, String, Vec<usize>)> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let mut shapes: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.dtype().to_string(), view.shape().to_vec()))
        .collect();
    shapes.sort();
    shapes
}

fn f32_values(file: &[u8], tensor: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(file).unwrap();
    let (values, _) = file.tensor(tensor).unwrap().data().as_chunks();
    values.iter().copied().map(f32::from_le_bytes).collect()
}

fn i8_values(file: &[u8], tensor: &str) -> Vec<i8> {
    let file = SafeTensors::deserialize(file).unwrap();
    let bytes = file.tensor(tensor).unwrap().data().to_vec();
    bytes.into_iter().map(|byte| byte as i8).collect()
}

#[test]
fn every_layout_comes_back_as_a_plain_directory_of_the_same_tensors() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a small dog\nthe sea\nred\n");
    let source = workspace.read("model/model.safetensors");
    for (name, flags) in [
        ("nf4", &["--method", "nf4"][..]),
        ("nf4-double", &["--method", "nf4", "--double-quant"]),
        ("nf4-int8", &["--method", "nf4", "--embeddings", "int8"]),
        ("nf4-nf4", &["--method", "nf4", "--embeddings", "nf4"]),
        ("fp4", &["--method", "fp4"]),
        ("dynamic", &["--method", "dynamic"]),
        ("weight-only", &["--method", "weight-only"]),
        (
            "packed",
            &["--method", "weight-only", "--embeddings", "keep"],
        ),
    ] {
        workspace.succeed(&[&["quantize", "model", "-o", name], flags].concat());
        let out = format!("{name}-f32");
        let report = workspace.succeed(&["convert", name, "-o", &out, "--to", "f32", "--json"]);
        let report = report.json();
        assert_eq!(report["target"], "f32");
        assert!(report["dequantized"].as_u64().unwrap() >= 12, "{report}");
        assert_eq!(
            shapes(&workspace.read(&format!("{out}/model.safetensors"))),
            shapes(&source),
            "{name}"
        );
        let mut config = workspace.json(&format!("{out}/config.json"));
        assert_eq!(config["dtype"], "float32", "{name}");
        let mut original = workspace.json("model/config.json");
        for config in [&mut config, &mut original] {
            for key in ["dtype", "torch_dtype"] {
                config.as_object_mut().unwrap().remove(key);
            }
        }
        assert_eq!(config, original, "{name}");
        assert_eq!(
            workspace.entries(&out),
            [
                "config.json",
                "model.safetensors",
                "tokenizer_config.json",
                "vocab.txt"
            ]
        );
        // 4-bit layers, and weight-only ones in floats, compute with the dequantized weights.
        if !name.starts_with("dynamic") {
            let embed = |model: &str| {
                let arguments = [
                    "embed",
                    model,
                    "-i",
                    "texts.txt",
                    "--weight-only-in",
                    "floats",
                ];
                workspace.succeed(&arguments).stdout
            };
            assert_eq!(embed(name), embed(&out), "{name}");
        }
        let inspection = workspace.succeed(&["inspect", &out, "--json"]).json();
        assert_eq!(inspection["quantization"], Value::Null);
    }
}

#[test]
fn int8_comes_back_as_codes_times_scales() {
    let workspace = Workspace::new();
    workspace.succeed(&["quantize", "model", "-o", "int8", "--method", "dynamic"]);
    workspace.succeed(&["convert", "int8", "-o", "f32", "--to", "f32"]);
    let (codes, floats) = (
        workspace.read("int8/model.safetensors"),
        workspace.read("f32/model.safetensors"),
    );
    let mut compared = 0;
    for (name, dtype, shape) in shapes(&codes) {
        if dtype != "I8" {
            continue;
        }
        let scales = f32_values(&codes, &format!("{name}_scale"));
        let expected: Vec<f32> = i8_values(&codes, &name)
            .chunks(shape[1])
            .zip(scales)
            .flat_map(|(row, scale)| row.iter().map(move |code| f32::from(*code) * scale))
            .collect();
        assert_eq!(f32_values(&floats, &name), expected, "{name}");
        compared += 1;
    }
    // Six layers and the table of each of two blocks.
    assert_eq!(compared, 13);
}

/// Floats to floats and floats to codes are what `quantize` makes of them.
#[test]
fn of_floats_it_makes_what_quantize_makes() {
    let workspace = Workspace::new();
    for method in ["fp16", "bf16", "dynamic", "weight-only", "nf4", "fp4"] {
        let quantized = format!("{method}-quantize");
        let converted = format!("{method}-convert");
        workspace.succeed(&["quantize", "model", "-o", &quantized, "--method", method]);
        workspace.succeed(&["convert", "model", "-o", &converted, "--to", method]);
        for file in workspace.entries(&quantized) {
            assert!(
                workspace.read(&format!("{quantized}/{file}"))
                    == workspace.read(&format!("{converted}/{file}")),
                "{method}: {file}"
            );
        }
    }
    // Half precision and back is what half precision holds.
    workspace.succeed(&["convert", "fp16-convert", "-o", "back", "--to", "f32"]);
    workspace.succeed(&["convert", "back", "-o", "again", "--to", "fp16"]);
    assert_eq!(
        workspace.read("fp16-convert/model.safetensors"),
        workspace.read("again/model.safetensors")
    );
    assert_eq!(
        workspace.json("back/config.json")["dtype"],
        json!("float32")
    );
    // The bytes of a conversion of floats to their own dtype are those that were there.
    workspace.succeed(&["convert", "model", "-o", "same", "--to", "f32"]);
    let (source, same) = (
        workspace.read("model/model.safetensors"),
        workspace.read("same/model.safetensors"),
    );
    for (name, ..) in shapes(&source) {
        assert_eq!(f32_values(&source, &name), f32_values(&same, &name));
    }
}

#[test]
fn codes_to_other_codes_only_where_that_is_asked_for() {
    let workspace = Workspace::new();
    workspace.succeed(&["quantize", "model", "-o", "nf4", "--method", "nf4"]);
    insta::assert_snapshot!(workspace.fail(&["convert", "nf4", "-o", "int8", "--to", "dynamic"]), @r"
    error: nf4/config.json: `quantization_config`: expected floats to make dynamic of, found codes (bitsandbytes nf4)
      hint: what both lose adds up: start from the float checkpoint, or say that it may (--allow-requantize; `allow_requantize` in Rust and Python)
    ");
    assert_eq!(workspace.entries("."), ["model", "nf4"]);
    let arguments = ["convert", "nf4", "-o", "int8", "--to", "dynamic"];
    let report = workspace.succeed(&[&arguments[..], &["--allow-requantize", "--json"]].concat());
    let notes = report.json()["notes"].to_string();
    assert!(notes.contains("bitsandbytes nf4 to dynamic"), "{notes}");
    // The same as by way of floats.
    workspace.succeed(&["convert", "nf4", "-o", "f32", "--to", "f32"]);
    workspace.succeed(&["convert", "f32", "-o", "by-way", "--to", "dynamic"]);
    assert_eq!(
        workspace.read("int8/model.safetensors"),
        workspace.read("by-way/model.safetensors")
    );
}

#[test]
fn what_is_refused() {
    let workspace = Workspace::new();
    let misuse = workspace.misuse(&["convert", "model", "-o", "out", "--to", "int3"]);
    let first = misuse.lines().next().unwrap_or_default();
    insta::assert_snapshot!(first, @"error: invalid value 'int3' for '--to <LAYOUT>': unknown layout `int3`: expected one of f32, fp16, bf16, dynamic, weight-only, int4, gptq, gptq_v2, awq, fp8, nvfp4, mxfp4, nf4, fp4, gguf:f32, gguf:f16, gguf:bf16, gguf:q8_0, gguf:q6_k, gguf:q5_k, gguf:q5_1, gguf:q5_0, gguf:q4_1, gguf:q4_0, gguf:q4_k");
    workspace.misuse(&["convert", "model", "-o", "out", "--to", "static"]);
    workspace.misuse(&["convert", "model", "--to", "f32"]);
    workspace.misuse(&["convert", "model", "-o", "out"]);
    let overlap = workspace.fail(&["convert", "model", "-o", "model/f32", "--to", "f32"]);
    assert!(overlap.contains("model"), "{overlap}");
    workspace.succeed(&["convert", "model", "-o", "out", "--to", "fp16"]);
    let exists = workspace.fail(&["convert", "model", "-o", "out", "--to", "fp16"]);
    assert!(exists.contains("--force"), "{exists}");
    workspace.succeed(&["convert", "model", "-o", "out", "--to", "bf16", "--force"]);

    // A damaged scale is found before anything has a name.
    workspace.succeed(&["quantize", "model", "-o", "int8", "--method", "dynamic"]);
    let mut bytes = workspace.read("int8/model.safetensors");
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let name = "encoder.layer.0.output.dense.weight_scale";
    let offset = header[name]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + length + offset..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    workspace.write("int8/model.safetensors", bytes);
    let before = workspace.entries(".");
    let error = workspace.fail(&["convert", "int8", "-o", "f32", "--to", "f32"]);
    assert!(error.contains(name) && error.contains("finite"), "{error}");
    assert_eq!(workspace.entries("."), before);
}
