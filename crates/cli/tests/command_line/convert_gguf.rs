//! `fewbit convert --to gguf:…`
//!
//! Files are taken apart by the format's own description; the package gguf and llama.cpp read the same (`docs/model-directories.md`).

use crate::tiny_model::{DIMENSION, Workspace};
use fewbit::numerics::ggml_blocks::{BlockType, quantize_blocks};
use safetensors::SafeTensors;
use std::collections::BTreeMap;

/// Reads little-endian numbers and strings.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take(8).try_into().unwrap()) as usize
    }

    fn string(&mut self) -> String {
        let length = self.u64();
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }

    /// A value as text.
    fn value(&mut self, kind: u32) -> String {
        match kind {
            4 => self.u32().to_string(),
            5 => (self.u32() as i32).to_string(),
            6 => format!("{:e}", f32::from_bits(self.u32())),
            7 => (self.take(1)[0] != 0).to_string(),
            8 => self.string(),
            9 => {
                let (kind, count) = (self.u32(), self.u64());
                let values: Vec<_> = (0..count).map(|_| self.value(kind)).collect();
                values.join(" ")
            }
            _ => panic!("type {kind}"),
        }
    }
}

/// ggml's number of the type, dimensions innermost first, and data up to the next tensor.
type Tensor = (u32, Vec<usize>, Vec<u8>);

fn read(file: &[u8]) -> (BTreeMap<String, String>, BTreeMap<String, Tensor>) {
    let mut bytes = Bytes(file);
    assert_eq!(bytes.take(4), b"GGUF");
    assert_eq!(bytes.u32(), 3);
    let (tensors, entries) = (bytes.u64(), bytes.u64());
    let metadata: BTreeMap<_, _> = (0..entries)
        .map(|_| {
            let (key, kind) = (bytes.string(), bytes.u32());
            (key, bytes.value(kind))
        })
        .collect();
    let infos: Vec<_> = (0..tensors)
        .map(|_| {
            let name = bytes.string();
            let dimensions = (0..bytes.u32()).map(|_| bytes.u64()).collect::<Vec<_>>();
            (name, dimensions, bytes.u32(), bytes.u64())
        })
        .collect();
    let start = (file.len() - bytes.0.len()).next_multiple_of(32);
    let data = &file[start..];
    let ends = infos.iter().skip(1).map(|info| info.3).chain([data.len()]);
    let found = infos.iter().zip(ends).map(|(info, end)| {
        let (name, dimensions, kind, offset) = info;
        assert!(offset.is_multiple_of(32));
        let bytes = data[*offset..end].to_vec();
        (name.clone(), (*kind, dimensions.clone(), bytes))
    });
    (metadata, found.collect())
}

#[test]
fn a_bert_with_its_tokenizer_in_one_file() {
    let workspace = Workspace::new();
    let arguments = ["convert", "model", "-o", "bert.gguf", "--to", "gguf:q8_0"];
    let report = workspace.succeed(&[&arguments[..], &["--json"]].concat());
    let file = workspace.read("bert.gguf");
    let report = report.json();
    assert_eq!(report["target"], "gguf:q8_0");
    assert_eq!(report["file_bytes"].as_u64(), Some(file.len() as u64));
    let (metadata, tensors) = read(&file);
    let shown: Vec<String> = metadata
        .iter()
        .map(|(key, value)| format!("{key} = {}", value.chars().take(60).collect::<String>()))
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
    let tokens: Vec<&str> = metadata["tokenizer.ggml.tokens"].split(' ').collect();
    let types: Vec<&str> = metadata["tokenizer.ggml.token_type"].split(' ').collect();
    // [CLS], a, ##a
    assert_eq!(
        [tokens[2], tokens[5], tokens[31]],
        ["[CLS]", "\u{2581}a", "a"]
    );
    assert_eq!([types[2], types[5], types[31]], ["3", "1", "1"]);

    let source = workspace.read("model/model.safetensors");
    let source = SafeTensors::deserialize(&source).unwrap();
    for (name, of_source, kind) in [
        ("token_embd.weight", "embeddings.word_embeddings.weight", 8),
        (
            "position_embd.weight",
            "embeddings.position_embeddings.weight",
            0,
        ),
        (
            "token_types.weight",
            "embeddings.token_type_embeddings.weight",
            0,
        ),
        ("token_embd_norm.bias", "embeddings.LayerNorm.bias", 0),
        (
            "blk.1.attn_q.weight",
            "encoder.layer.1.attention.self.query.weight",
            8,
        ),
        (
            "blk.0.attn_output_norm.weight",
            "encoder.layer.0.attention.output.LayerNorm.weight",
            0,
        ),
        (
            "blk.0.ffn_up.bias",
            "encoder.layer.0.intermediate.dense.bias",
            0,
        ),
        (
            "blk.1.attn_output.weight",
            "encoder.layer.1.attention.output.dense.weight",
            8,
        ),
        (
            "blk.1.layer_output_norm.weight",
            "encoder.layer.1.output.LayerNorm.weight",
            0,
        ),
    ] {
        let (found_kind, dimensions, data) = &tensors[name];
        let view = source.tensor(of_source).unwrap();
        let shape: Vec<usize> = view.shape().iter().rev().copied().collect();
        assert_eq!((*found_kind, dimensions), (kind, &shape), "{name}");
        let expected = if kind == 0 {
            view.data().to_vec()
        } else {
            let values = view.data().as_chunks().0.iter().copied();
            let values: Vec<f32> = values.map(f32::from_le_bytes).collect();
            let mut blocks = vec![0; values.len() / 32 * 34];
            assert_eq!(quantize_blocks(BlockType::Q8_0, &values, &mut blocks), None);
            blocks
        };
        assert_eq!(data[..expected.len()], expected, "{name}");
        assert!(data.len() - expected.len() < 32, "{name}");
    }
    // Word, position and type tables, a norm of two; six layers of two and two norms of two in each block.
    assert_eq!(tensors.len(), 3 + 2 + 2 * 16);
}

#[test]
fn every_type_has_the_bytes_of_its_blocks() {
    let workspace = Workspace::new();
    workspace.succeed(&["quantize", "model", "-o", "nf4", "--method", "nf4"]);
    for (name, number, bytes_of_32) in [
        ("f32", 0, 128),
        ("f16", 1, 64),
        ("bf16", 30, 64),
        ("q4_0", 2, 18),
        ("q4_1", 3, 20),
        ("q5_0", 6, 22),
        ("q5_1", 7, 24),
        ("q8_0", 8, 34),
        // Rows of 32 are no blocks of 256.
        ("q4_k", 6, 22),
        ("q5_k", 7, 24),
        ("q6_k", 8, 34),
    ] {
        let (to, out) = (format!("gguf:{name}"), format!("{name}.gguf"));
        let report = workspace.succeed(&["convert", "model", "-o", &out, "--to", &to, "--json"]);
        let (_, tensors) = read(&workspace.read(&out));
        let (kind, dimensions, data) = &tensors["blk.0.attn_k.weight"];
        let elements: usize = dimensions.iter().product();
        assert_eq!((*kind, elements), (number, DIMENSION * DIMENSION), "{name}");
        assert_eq!(
            data.len(),
            (elements / 32 * bytes_of_32).next_multiple_of(32)
        );
        let notes = report.json()["notes"].to_string();
        // The second matrices of the feed-forward have rows of 44.
        let others = match name {
            "q4_k" => vec!["q5_0", "f16"],
            "q5_k" => vec!["q5_1", "f16"],
            "q6_k" => vec!["q8_0", "f16"],
            "f32" | "f16" | "bf16" => vec![],
            _ => vec!["f16"],
        };
        assert_eq!(notes.matches("stored as").count(), others.len(), "{notes}");
        for other in others {
            assert!(notes.contains(&format!("stored as {other}")), "{notes}");
        }
    }
    // From codes: floats as they are, other codes where that is asked for.
    workspace.succeed(&["convert", "nf4", "-o", "nf4.gguf", "--to", "gguf:f16"]);
    let refused = workspace.fail(&["convert", "nf4", "-o", "no.gguf", "--to", "gguf:q4_0"]);
    assert!(refused.contains("--allow-requantize"), "{refused}");
    workspace.succeed(&[
        "convert",
        "nf4",
        "-o",
        "yes.gguf",
        "--to",
        "gguf:q4_0",
        "--allow-requantize",
    ]);
    let exists = workspace.fail(&["convert", "model", "-o", "yes.gguf", "--to", "gguf:f16"]);
    assert!(exists.contains("--force"), "{exists}");
    workspace.succeed(&[
        "convert", "model", "-o", "yes.gguf", "--to", "gguf:f16", "--force",
    ]);
    assert_eq!(workspace.read("yes.gguf"), workspace.read("f16.gguf"));
}

#[test]
fn what_the_file_has_no_place_for_is_refused() {
    let workspace = Workspace::with("roberta");
    let refused = workspace.fail(&["convert", "model", "-o", "x.gguf", "--to", "gguf:f16"]);
    insta::assert_snapshot!(refused, @r"
    error: model/config.json: expected a BERT, Nomic BERT, Llama, Mistral, Qwen2 or Qwen3 as llama.cpp computes it, of which fewbit writes GGUF files, found `model_type` roberta
      hint: convert other models to a directory (--to f32), and that with llama.cpp's convert_hf_to_gguf.py
    ");
    let workspace = Workspace::new();
    workspace.edit_config(|config| config["hidden_act"] = "relu".into());
    let refused = workspace.fail(&["convert", "model", "-o", "x.gguf", "--to", "gguf:f16"]);
    assert!(refused.contains("Relu"), "{refused}");
    let workspace = Workspace::new();
    workspace.edit_weights(|header, data| {
        let place = &header["encoder.layer.1.output.dense.weight"]["data_offsets"][0];
        let start = place.as_u64().unwrap() as usize;
        data[start..start + 4].copy_from_slice(&1e30f32.to_le_bytes());
    });
    for to in ["gguf:q4_0", "gguf:f16"] {
        let refused = workspace.fail(&["convert", "model", "-o", "x.gguf", "--to", to]);
        assert!(
            refused.contains("output.dense.weight") && refused.contains("fp16"),
            "{refused}"
        );
    }
    assert_eq!(workspace.entries("."), ["model"]);
}
