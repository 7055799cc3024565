//! Checkpoints that `torch.save` wrote, in every form.

use crate::checkpoint_builder::{CheckpointDirectory, f32_tensor, golden, safetensors_bytes};
use fewbit_checkpoint::{Checkpoint, CheckpointErrorKind};
use insta::assert_snapshot;
use safetensors::SafeTensors;
use serde_json::json;
use std::fs;
use std::path::Path;

/// The checkpoint in `directory`, whose tensors are those of a safetensors file, bit for bit.
fn assert_same(directory: &Path, expected: &Path) {
    let checkpoint = Checkpoint::open(directory).unwrap();
    let expected = fs::read(expected).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    assert_eq!(checkpoint.tensors().count(), expected.len());
    for (name, other) in expected.iter() {
        let tensor = checkpoint.require(name).unwrap();
        assert_eq!(tensor.info.shape, other.shape(), "{name}");
        assert_eq!(
            tensor.info.dtype.name(),
            other.dtype().to_string(),
            "{name}"
        );
        assert_eq!(tensor.bytes().unwrap(), other.data(), "{name}");
        assert_eq!(tensor.info.byte_len, other.data().len(), "{name}");
        // What is kept for longer has the same bytes, whole and in part, also after its pages were let go.
        let mapped = checkpoint.mapped(name).unwrap();
        assert_eq!(mapped.bytes(), other.data(), "{name}");
        mapped.release(0..mapped.bytes().len());
        checkpoint.release(name);
        let half = other.data().len() / 2;
        let mut part = vec![0; other.data().len() - half];
        mapped.read(half, &mut part);
        assert_eq!(part, other.data()[half..], "{name}");
    }
}

#[test]
fn every_form_that_torch_writes() {
    for name in [
        "archive",
        "stream",
        "stream-parts",
        "new-types",
        "values-beside",
        "sharded",
    ] {
        let directory = golden("pytorch").join(name);
        assert_same(&directory, &directory.join("expected.safetensors"));
    }
}

/// A model has the same tensors from its two files, so that whatever reads it gives the same bits.
#[test]
fn a_model_is_the_same_from_both_files() {
    let twin = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../model/tests/golden/architectures/bert/model.safetensors");
    assert_same(&golden("pytorch").join("bert"), &twin);
}

#[test]
fn a_nested_state_dict_is_refused() {
    let error = Checkpoint::open(golden("pytorch").join("nested")).unwrap_err();
    assert_eq!(error.kind(), CheckpointErrorKind::UnsupportedPickle);
    let text = error.to_string();
    let text = text.split_once("pytorch_model.bin: ").unwrap().1;
    assert_snapshot!(text, @r#"
    expected tensors in the state dict, found none: `state_dict` is a dict
      hint: save the state dict itself: torch.save(torch.load(FILE, weights_only=True)["state_dict"], FILE)
    "#);
}

#[test]
fn safetensors_come_first() {
    let directory = CheckpointDirectory::new(&json!({}), &[]);
    directory.write("pytorch_model.bin", "damaged");
    directory.write(
        "model.safetensors",
        safetensors_bytes(&[f32_tensor("w", &[1], &[2.0])]),
    );
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.require("w").unwrap().to_f32().unwrap(), [2.0]);
}

#[test]
fn a_missing_tensor_names_the_file() {
    let checkpoint = Checkpoint::open(golden("pytorch").join("bert")).unwrap();
    let error = checkpoint.require("unlike").unwrap_err().to_string();
    assert!(
        error.contains("bert/pytorch_model.bin: tensor `unlike`: missing"),
        "{error}"
    );
}

/// Every beginning of a file, and the file with every byte changed, is read or refused with the file's name, and never a panic.
#[test]
fn damaged_anywhere() {
    let directory = CheckpointDirectory::new(&json!({}), &[]);
    let file = directory.path().join("pytorch_model.bin");
    for name in [
        "sharded/pytorch_model-00002-of-00002.bin",
        "stream/pytorch_model.bin",
    ] {
        let whole = fs::read(golden("pytorch").join(name)).unwrap();
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            let error = Checkpoint::open(directory.path()).unwrap_err();
            assert_eq!(
                error.file(),
                Some(file.as_path()),
                "{name}: {length}: {error}"
            );
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= [0x01, 0x80, 0xff][at % 3];
            fs::write(&file, &changed).unwrap();
            match Checkpoint::open(directory.path()) {
                Ok(checkpoint) => {
                    for tensor in checkpoint.tensors() {
                        let bytes = checkpoint.require(&tensor.name).unwrap();
                        assert_eq!(bytes.bytes().unwrap().len(), tensor.byte_len);
                    }
                }
                Err(error) => {
                    assert_eq!(error.file(), Some(file.as_path()), "{name}: {at}: {error}");
                }
            }
        }
    }
}
