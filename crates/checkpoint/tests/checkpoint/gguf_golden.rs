//! GGUF files that the package gguf wrote, against what it reads of them.

use fewbit_checkpoint::gguf::{GgufFile, GgufPart, MetadataValue, RowOrder, gguf_source};
use fewbit_checkpoint::{Checkpoint, CheckpointErrorKind};
use safetensors::SafeTensors;
use serde_json::json;
use std::path::Path;

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/gguf")
        .join(name)
}

fn open() -> GgufFile {
    GgufFile::open(golden("types.gguf")).unwrap()
}

fn expected(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(golden("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let values = tensor.data().as_chunks().0.iter().copied();
    values.map(f32::from_le_bytes).collect()
}

fn part(name: &str, stored: &str) -> GgufPart {
    GgufPart {
        name: name.to_owned(),
        stored: stored.to_owned(),
        rows: None,
        order: RowOrder::Same,
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn metadata_of_every_type() {
    let file = open();
    assert_eq!((file.version(), file.alignment()), (3, 64));
    let value = |name: &str| {
        file.metadata()
            .get(&format!("golden.{name}"))
            .unwrap()
            .clone()
    };
    for (name, expected) in [
        ("u8", MetadataValue::U8(200)),
        ("i8", MetadataValue::I8(-100)),
        ("u16", MetadataValue::U16(60000)),
        ("i16", MetadataValue::I16(-30000)),
        ("u32", MetadataValue::U32(4_000_000_000)),
        ("i32", MetadataValue::I32(-2_000_000_000)),
        ("f32", MetadataValue::F32(0.1)),
        ("bool", MetadataValue::Bool(true)),
        ("string", MetadataValue::String("naïve ▁".to_owned())),
        ("u64", MetadataValue::U64((1 << 63) + 1)),
        ("i64", MetadataValue::I64(-(1 << 62))),
        ("f64", MetadataValue::F64(0.1)),
        ("integers", MetadataValue::i32s(&[1, -2, 3])),
        ("floats", MetadataValue::f32s(&[0.5, -1.5])),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    let strings = file.metadata().strings("golden.strings").unwrap().unwrap();
    assert_eq!(strings, ["a", "", "▁b"]);
    let MetadataValue::Numbers(flags) = value("flags") else {
        panic!("an array")
    };
    let flags: Vec<_> = flags.values().collect();
    assert_eq!(flags, [true, false].map(MetadataValue::Bool));
}

#[test]
fn every_type_has_the_values_of_the_package() {
    let file = open();
    let parts: Vec<GgufPart> = file
        .tensors()
        .iter()
        .map(|tensor| part(&format!("model.{}", tensor.name), &tensor.name))
        .collect();
    assert_eq!(parts.len(), 12);
    let checkpoint = Checkpoint::of_gguf(&file, json!({}), &parts).unwrap();
    for tensor in file.tensors() {
        let view = checkpoint
            .require(&format!("model.{}", tensor.name))
            .unwrap();
        assert_eq!(view.info.shape, tensor.shape);
        let expected = expected(&tensor.name);
        assert_eq!(
            bits(&view.to_f32().unwrap()),
            bits(&expected),
            "{}",
            tensor.name
        );
        // In pieces that begin and end inside of blocks.
        for size in [1, 7, 31, 33, 300] {
            for start in (0..expected.len()).step_by(size) {
                let end = expected.len().min(start + size);
                let mut piece = vec![f32::NAN; end - start];
                view.read_f32_range(start, &mut piece).unwrap();
                assert_eq!(bits(&piece), bits(&expected[start..end]));
            }
        }
    }
}

#[test]
fn parts_of_rows_and_rows_in_another_order() {
    let file = open();
    let order = RowOrder::InterleavedHeads { head_rows: 4 };
    for stored in ["f16.weight", "q8_0.weight", "q4_k.weight", "f32.weight"] {
        let mut second = part("second", stored);
        second.rows = Some(1..3);
        let mut turned = part("turned", stored);
        turned.order = order;
        let checkpoint = Checkpoint::of_gguf(&file, json!({}), &[second, turned]).unwrap();
        let all = expected(stored);
        let view = checkpoint.require("second").unwrap();
        assert_eq!(view.info.shape, [2, 256]);
        assert_eq!(
            bits(&view.to_f32().unwrap()),
            bits(&all[256..768]),
            "{stored}"
        );
        let rows = [0, 2, 1, 3].map(|row| &all[row * 256..][..256]).concat();
        let view = checkpoint.require("turned").unwrap();
        assert_eq!(bits(&view.to_f32().unwrap()), bits(&rows), "{stored}");
        let mut piece = vec![0.0; 300];
        view.read_f32_range(250, &mut piece).unwrap();
        assert_eq!(bits(&piece), bits(&rows[250..550]), "{stored}");
    }
    let mut bias = part("bias", "vector.bias");
    bias.order = order;
    bias.rows = Some(4..8);
    let checkpoint = Checkpoint::of_gguf(&file, json!({}), &[bias]).unwrap();
    let all = expected("vector.bias");
    let found = checkpoint.require("bias").unwrap().to_f32().unwrap();
    assert_eq!(found, [4, 6, 5, 7].map(|at| all[at]));
}

#[test]
fn what_the_file_does_not_have_is_refused() {
    let file = open();
    let of = |part| Checkpoint::of_gguf(&file, json!({}), &[part]).unwrap_err();
    let missing = of(part("a", "blk.0.attn_q.weight"));
    assert_eq!(missing.kind(), CheckpointErrorKind::MissingTensor);
    assert_eq!(missing.file(), Some(&*golden("types.gguf")));
    for (rows, order) in [
        (Some(2..5), RowOrder::Same),
        (None, RowOrder::InterleavedHeads { head_rows: 3 }),
        (None, RowOrder::InterleavedHeads { head_rows: 8 }),
        (None, RowOrder::InterleavedHeads { head_rows: 0 }),
    ] {
        let error = of(GgufPart {
            rows,
            order,
            ..part("a", "q4_0.weight")
        });
        assert_eq!(error.kind(), CheckpointErrorKind::WrongShape, "{error}");
    }
    let twice = [part("a", "f32.weight"), part("a", "f16.weight")];
    assert!(Checkpoint::of_gguf(&file, json!({}), &twice).is_err());
}

#[test]
fn a_path_means_a_file_or_the_only_one_of_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert_eq!(gguf_source(path).unwrap(), None);
    std::fs::write(path.join("a.gguf"), "GGUF").unwrap();
    assert_eq!(gguf_source(path).unwrap(), Some(path.join("a.gguf")));
    assert_eq!(
        gguf_source(&path.join("a.gguf")).unwrap(),
        Some(path.join("a.gguf"))
    );
    assert_eq!(gguf_source(&path.join("b.gguf")).unwrap(), None);
    std::fs::write(path.join("b.GGUF"), "GGUF").unwrap();
    let several = gguf_source(path).unwrap_err().to_string();
    assert!(several.contains("found `a.gguf`, `b.GGUF`"), "{several}");
    std::fs::write(path.join("model.safetensors"), "").unwrap();
    assert_eq!(gguf_source(path).unwrap(), None);
}
