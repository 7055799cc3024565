//! GGUF files as models: `fewbit inspect FILE.gguf`, `fewbit convert FILE.gguf`

use crate::tiny_model::Workspace;
use fewbit::checkpoint::gguf::{GgufFile, GgufWriter, MetadataValue, PlannedTensor};
use fewbit::numerics::ggml_blocks::{BlockType, dequantize_blocks, quantize_blocks};
use safetensors::SafeTensors;

const TEXTS: &str = "a cat\nthe dogs of the sea\nx\n";

fn floats(bytes: &[u8]) -> Vec<f32> {
    let values = bytes.as_chunks().0.iter().copied();
    values.map(f32::from_le_bytes).collect()
}

/// The embeddings of a few texts, as the program writes them.
fn embeddings(workspace: &Workspace, model: &str) -> String {
    workspace.write("texts.txt", TEXTS);
    workspace
        .succeed(&["embed", model, "-i", "texts.txt"])
        .stdout
}

/// A file with other metadata and the same tensors under other names, but for those that `tensor` leaves out.
fn rewrite(
    workspace: &Workspace,
    from: &str,
    to: &str,
    entry: impl Fn(&str, &MetadataValue) -> Option<MetadataValue>,
    tensor: impl Fn(&str) -> Option<String>,
) {
    let file = GgufFile::open(workspace.path(from)).unwrap();
    let metadata: Vec<_> = file
        .metadata()
        .entries()
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), entry(key, value)?)))
        .collect();
    let kept: Vec<_> = file
        .tensors()
        .iter()
        .filter_map(|stored| Some((tensor(&stored.name)?, stored)))
        .collect();
    let planned = kept.iter().map(|(name, stored)| PlannedTensor {
        name: name.clone(),
        shape: stored.shape.clone(),
        kind: stored.kind.readable().unwrap(),
    });
    let bytes = workspace.read(from);
    let first = file
        .tensors()
        .iter()
        .map(|tensor| tensor.byte_len().next_multiple_of(32));
    let start = bytes.len() - first.sum::<usize>();
    let mut at = start;
    let mut places = std::collections::HashMap::new();
    for tensor in file.tensors() {
        places.insert(tensor.name.clone(), at..at + tensor.byte_len());
        at += tensor.byte_len().next_multiple_of(32);
    }
    let mut writer =
        GgufWriter::create(&workspace.path(to), true, &metadata, planned.collect()).unwrap();
    for (_, stored) in kept {
        writer.append(&bytes[places[&stored.name].clone()]).unwrap();
    }
    writer.finish().unwrap();
}

fn same(_: &str, value: &MetadataValue) -> Option<MetadataValue> {
    Some(value.clone())
}

fn all(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn floats_come_back_bit_for_bit_and_embed_alike() {
    for golden in ["bert", "nomic-bert-module-names"] {
        let workspace = Workspace::with(golden);
        workspace.succeed(&["convert", "model", "-o", "m.gguf", "--to", "gguf:f32"]);
        let temporary = workspace.path("tmp");
        std::fs::create_dir(&temporary).unwrap();
        let arguments = ["convert", "m.gguf", "-o", "back", "--to", "f32", "--json"];
        let mut command = workspace.command(&arguments);
        command.env("TMPDIR", &temporary).assert().success();
        // What is made of the metadata on the way is removed.
        assert_eq!(workspace.entries("tmp"), [""; 0]);
        let (source, back) = (
            workspace.read("model/model.safetensors"),
            workspace.read("back/model.safetensors"),
        );
        let source = SafeTensors::deserialize(&source).unwrap();
        let back = SafeTensors::deserialize(&back).unwrap();
        assert!(back.len() > 20);
        for (name, tensor) in back.tensors() {
            let expected = source.tensor(&name).unwrap_or_else(|_| panic!("{name}"));
            assert_eq!(tensor.shape(), expected.shape(), "{name}");
            assert_eq!(tensor.data(), expected.data(), "{name}");
        }
        assert_eq!(
            embeddings(&workspace, "back"),
            embeddings(&workspace, "model")
        );
        // A directory with one such file is the same model.
        std::fs::create_dir(workspace.path("folder")).unwrap();
        std::fs::rename(workspace.path("m.gguf"), workspace.path("folder/m.gguf")).unwrap();
        workspace.succeed(&["convert", "folder", "-o", "again", "--to", "f32"]);
        assert_eq!(
            workspace.read("again/model.safetensors"),
            workspace.read("back/model.safetensors")
        );
    }
}

#[test]
fn blocks_come_back_as_what_they_stand_for() {
    let workspace = Workspace::new();
    let source = workspace.read("model/model.safetensors");
    let source = SafeTensors::deserialize(&source).unwrap();
    for kind in [
        BlockType::Q8_0,
        BlockType::Q5_1,
        BlockType::Q5_0,
        BlockType::Q4_1,
        BlockType::Q4_0,
    ] {
        let (file, to) = (format!("{kind}.gguf"), format!("gguf:{kind}"));
        workspace.succeed(&["convert", "model", "-o", &file, "--to", &to]);
        let back = kind.name();
        let arguments = ["convert", &file, "-o", back, "--to", "f32", "--json"];
        let report = workspace.succeed(&arguments).json();
        assert_eq!(report["source_quantization"], format!("GGUF {kind}"));
        // Word embeddings, and in each layer all matrices but that with rows of 44.
        assert_eq!(report["dequantized"], 1 + 2 * 5);
        let back = workspace.read(&format!("{back}/model.safetensors"));
        let back = SafeTensors::deserialize(&back).unwrap();
        for name in [
            "embeddings.word_embeddings.weight",
            "encoder.layer.1.attention.self.key.weight",
            "encoder.layer.0.intermediate.dense.weight",
        ] {
            let values = floats(source.tensor(name).unwrap().data());
            let mut blocks = vec![0; values.len() / kind.elements() * kind.bytes()];
            quantize_blocks(kind, &values, &mut blocks);
            let mut expected = vec![0.0; values.len()];
            dequantize_blocks(kind, &blocks, &mut expected);
            assert_eq!(
                floats(back.tensor(name).unwrap().data()),
                expected,
                "{name}"
            );
        }
    }
    let refused = workspace.fail(&["convert", "q8_0.gguf", "-o", "nf4", "--to", "nf4"]);
    assert!(refused.contains("--allow-requantize"), "{refused}");
    for to in ["nf4", "gguf:q4_0"] {
        let arguments = ["convert", "q8_0.gguf", "-o", "new", "--to", to, "--force"];
        workspace.succeed(&[&arguments[..], &["--allow-requantize"]].concat());
        assert_eq!(workspace.path("new").is_dir(), to == "nf4");
        if to == "nf4" {
            embeddings(&workspace, "new");
        }
        std::fs::rename(workspace.path("new"), workspace.path(&to.replace(':', "-"))).unwrap();
    }
    workspace.succeed(&["convert", "q8_0.gguf", "-o", "bf16", "--to", "bf16"]);
    assert_eq!(workspace.json("bf16/config.json")["dtype"], "bfloat16");
}

#[test]
fn queries_keys_and_values_may_be_one_tensor() {
    // As llama.cpp's converter writes Nomic BERT: rows one below the other.
    let workspace = Workspace::with("nomic-bert-module-names");
    workspace.succeed(&["convert", "model", "-o", "m.gguf", "--to", "gguf:f32"]);
    let file = GgufFile::open(workspace.path("m.gguf")).unwrap();
    let bytes = workspace.read("m.gguf");
    let total: usize = file
        .tensors()
        .iter()
        .map(|tensor| tensor.byte_len().next_multiple_of(32))
        .sum();
    let mut at = bytes.len() - total;
    let (mut planned, mut data) = (Vec::<PlannedTensor>::new(), Vec::<Vec<u8>>::new());
    for tensor in file.tensors() {
        let part = &bytes[at..at + tensor.byte_len()];
        at += tensor.byte_len().next_multiple_of(32);
        let of_qkv = ["attn_q.", "attn_k.", "attn_v."]
            .iter()
            .find(|name| tensor.name.contains(**name));
        match of_qkv {
            Some(name) if *name != "attn_q." => {
                planned.last_mut().unwrap().shape[0] += tensor.shape[0];
                data.last_mut().unwrap().extend(part);
            }
            _ => {
                planned.push(PlannedTensor {
                    name: tensor.name.replace("attn_q.", "attn_qkv."),
                    shape: tensor.shape.clone(),
                    kind: tensor.kind.readable().unwrap(),
                });
                data.push(part.to_vec());
            }
        }
    }
    let metadata = file.metadata().entries();
    let mut writer =
        GgufWriter::create(&workspace.path("fused.gguf"), false, metadata, planned).unwrap();
    data.iter().for_each(|data| writer.append(data).unwrap());
    writer.finish().unwrap();
    workspace.succeed(&["convert", "m.gguf", "-o", "parts", "--to", "f32"]);
    workspace.succeed(&["convert", "fused.gguf", "-o", "fused", "--to", "f32"]);
    assert_eq!(
        workspace.read("fused/model.safetensors"),
        workspace.read("parts/model.safetensors")
    );
}

#[test]
fn a_file_shows_its_types_metadata_and_tensors() {
    let workspace = Workspace::new();
    workspace.succeed(&["convert", "model", "-o", "m.gguf", "--to", "gguf:q8_0"]);
    let shown = workspace.succeed(&["inspect", "m.gguf"]).stdout;
    insta::assert_snapshot!(shown);
    let shown = workspace
        .succeed(&["inspect", "m.gguf", "--tensors"])
        .stdout;
    assert!(shown.contains("blk.1.ffn_down.weight"), "{shown}");
    let json = workspace.succeed(&["inspect", "m.gguf", "--json"]).json();
    assert_eq!(json["architecture"], "bert");
    assert_eq!(json["tensors"][0]["type"], "q8_0");
    let bytes = workspace.read("m.gguf").len();
    assert_eq!(json["file_bytes"].as_u64(), Some(bytes as u64));
    let tokens = json["metadata"].as_array().unwrap().iter();
    let tokens = tokens
        .clone()
        .find(|entry| entry["key"] == "tokenizer.ggml.tokens")
        .unwrap();
    assert_eq!(tokens["value"]["first"].as_array().unwrap().len(), 8);
}

#[test]
fn files_that_are_no_such_model_are_refused() {
    let workspace = Workspace::new();
    workspace.succeed(&["convert", "model", "-o", "m.gguf", "--to", "gguf:q8_0"]);
    let refused = |file: &str| workspace.fail(&["convert", file, "-o", "out", "--to", "f32"]);
    let other = |key: &'static str, value: MetadataValue| {
        let entry = |known: &str, old: &MetadataValue| {
            Some(if known == key {
                value.clone()
            } else {
                old.clone()
            })
        };
        rewrite(&workspace, "m.gguf", "other.gguf", entry, all);
        refused("other.gguf")
    };
    insta::assert_snapshot!(
        other("general.architecture", MetadataValue::String("gemma3".to_owned())),
        @"
    error: other.gguf: metadata `general.architecture`: expected one of bert, nomic-bert, llama, qwen2, qwen3, found `gemma3`
      hint: use the safetensors checkpoint that the file was made from
    "
    );
    let found = other("bert.embedding_length", MetadataValue::U32(64));
    assert!(
        found.contains("shape: expected") && found.contains("other.gguf"),
        "{found}"
    );
    let found = other("bert.attention.head_count", MetadataValue::U32(0));
    assert!(found.contains("num_attention_heads"), "{found}");
    let found = other(
        "tokenizer.ggml.model",
        MetadataValue::String("t5".to_owned()),
    );
    assert!(found.contains("found `t5`"), "{found}");
    let found = other("tokenizer.ggml.cls_token_id", MetadataValue::U32(1 << 30));
    assert!(found.contains("cls_token_id"), "{found}");
    let found = other("bert.block_count", MetadataValue::U32(1 << 31));
    assert!(found.contains("num_hidden_layers"), "{found}");

    let without = |name: &str| (name != "blk.1.attn_k.weight").then(|| name.to_owned());
    rewrite(&workspace, "m.gguf", "other.gguf", same, without);
    let found = refused("other.gguf");
    assert!(
        found.contains("tensor `blk.1.attn_k.weight`: missing"),
        "{found}"
    );
    let no_key =
        |key: &str, value: &MetadataValue| (!key.ends_with("head_count")).then(|| value.clone());
    rewrite(&workspace, "m.gguf", "other.gguf", no_key, all);
    let found = refused("other.gguf");
    assert!(
        found.contains("`bert.attention.head_count`: expected this entry"),
        "{found}"
    );

    // Whoever runs models wants a directory.
    insta::assert_snapshot!(
        workspace.fail(&["embed", "m.gguf", "-i", "m.gguf"]),
        @"
    error: m.gguf: expected a checkpoint directory, found a GGUF file
      hint: make one of it first: fewbit convert m.gguf -o OUT --to f32
    "
    );
    std::fs::create_dir(workspace.path("two")).unwrap();
    for name in ["two/a.gguf", "two/b.gguf"] {
        std::fs::copy(workspace.path("m.gguf"), workspace.path(name)).unwrap();
    }
    let found = refused("two");
    assert!(
        found.contains("expected one GGUF file, found `a.gguf`, `b.gguf`"),
        "{found}"
    );
    workspace.write("cut.gguf", &workspace.read("m.gguf")[..1000]);
    let found = refused("cut.gguf");
    assert!(
        found.contains("cut.gguf") && found.contains("incomplete or damaged"),
        "{found}"
    );
    assert!(!workspace.path("out").exists());
}

#[test]
fn what_a_file_does_not_say_is_found_out_and_told() {
    let workspace = Workspace::new();
    workspace.succeed(&["convert", "model", "-o", "m.gguf", "--to", "gguf:f32"]);
    let old = |key: &str, value: &MetadataValue| {
        let is_new = key.contains("normalizer") || key.ends_with("pooling_type");
        (!is_new).then(|| value.clone())
    };
    rewrite(&workspace, "m.gguf", "old.gguf", old, all);
    let arguments = ["convert", "old.gguf", "-o", "old", "--to", "f32", "--json"];
    let report = workspace.succeed(&arguments).json();
    let notes = report["notes"].to_string();
    assert!(notes.contains("texts are lowercased"), "{notes}");
    assert!(notes.contains("the pooler is not in the file"), "{notes}");
    assert!(!workspace.path("old/modules.json").exists());
    assert_eq!(
        embeddings(&workspace, "old"),
        embeddings(&workspace, "model")
    );
    let bare =
        |key: &str, value: &MetadataValue| (!key.starts_with("tokenizer.")).then(|| value.clone());
    rewrite(&workspace, "m.gguf", "bare.gguf", bare, all);
    let arguments = [
        "convert",
        "bare.gguf",
        "-o",
        "bare",
        "--to",
        "f32",
        "--json",
    ];
    let report = workspace.succeed(&arguments).json();
    assert!(report["notes"].to_string().contains("no tokenizer"));
    assert_eq!(
        workspace.entries("bare"),
        [
            "1_Pooling",
            "config.json",
            "model.safetensors",
            "modules.json",
            "sentence_bert_config.json"
        ]
    );
}
