//! Checkpoints under other names than those of their files.

use crate::checkpoint_builder::{CheckpointDirectory, f32_tensor};
use fewbit_checkpoint::{Checkpoint, CheckpointError, RenamedTensor};
use insta::assert_snapshot;
use serde_json::json;

fn directory() -> CheckpointDirectory {
    let fused: Vec<f32> = (0..12).map(|value| value as f32).collect();
    CheckpointDirectory::new(
        &json!({"model_type": "bert"}),
        &[
            f32_tensor("fused.weight", &[6, 2], &fused),
            f32_tensor("fused.bias", &[6], &fused[..6]),
            f32_tensor("norm.weight", &[2], &[-1.0, -2.0]),
            f32_tensor("other", &[1], &[9.0]),
        ],
    )
}

fn open(renamed: &[(&str, &[&str])]) -> (CheckpointDirectory, Result<Checkpoint, CheckpointError>) {
    let directory = directory();
    let renamed = renamed.iter().map(|(stored, names)| RenamedTensor {
        stored: (*stored).to_owned(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
    });
    let renamed: Vec<RenamedTensor> = renamed.collect();
    let checkpoint = Checkpoint::open_renamed(directory.path(), |_| Ok(renamed));
    (directory, checkpoint)
}

#[test]
fn a_tensor_is_there_under_its_new_name_and_a_fused_one_as_its_parts() {
    let (_directory, checkpoint) = open(&[
        ("fused.weight", &["a.weight", "b.weight", "c.weight"]),
        ("fused.bias", &["a.bias", "b.bias", "c.bias"]),
        ("norm.weight", &["post_norm.weight"]),
    ]);
    let checkpoint = checkpoint.unwrap();
    let mut names: Vec<&str> = checkpoint
        .tensors()
        .map(|tensor| tensor.name.as_str())
        .collect();
    names.sort_unstable();
    let expected = [
        "a.bias",
        "a.weight",
        "b.bias",
        "b.weight",
        "c.bias",
        "c.weight",
        "other",
        "post_norm.weight",
    ];
    assert_eq!(names, expected);
    for (index, module) in ["a", "b", "c"].into_iter().enumerate() {
        let first = 4.0 * index as f32;
        let expected = [first, first + 1.0, first + 2.0, first + 3.0];
        let stored = checkpoint.stored_weight(module, [2, 2]).unwrap();
        assert_eq!(stored.dequantize([2, 2]).unwrap(), expected, "{module}");
        let name = format!("{module}.weight");
        // Also after its pages were let go, and by the ways that keep bytes for longer.
        checkpoint.release(&name);
        let view = checkpoint.require(&name).unwrap();
        assert_eq!(view.to_f32().unwrap(), expected, "{module}");
        let mapped = checkpoint.mapped(&name).unwrap();
        let bytes: Vec<u8> = expected
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        assert_eq!(mapped.bytes(), bytes, "{module}");
        let mut last = [0; 8];
        mapped.read(8, &mut last);
        assert_eq!(last, bytes[8..], "{module}");
        mapped.release(0..16);
        let bias = checkpoint.require(&format!("{module}.bias")).unwrap();
        let first = 2.0 * index as f32;
        assert_eq!(bias.to_f32().unwrap(), [first, first + 1.0], "{module}");
    }
    for gone in ["fused.weight", "fused.bias", "norm.weight"] {
        assert!(!checkpoint.contains(gone), "{gone}");
        assert!(checkpoint.get(gone).is_none() && checkpoint.mapped(gone).is_none());
    }
    assert_eq!(checkpoint.renamed().len(), 3);
    assert_eq!(
        checkpoint.renamed()[0].to_string(),
        "`fused.weight` of the files is `a.weight`, `b.weight` and `c.weight`"
    );
    assert_eq!(
        checkpoint.renamed()[2].to_string(),
        "`norm.weight` of the files is `post_norm.weight`"
    );
}

#[test]
fn rows_that_are_no_equal_parts_and_names_of_two_tensors_are_refused() {
    let refused = |renamed: &[(&str, &[&str])]| {
        let (directory, checkpoint) = open(renamed);
        directory.text(&checkpoint.unwrap_err())
    };
    assert_snapshot!(refused(&[("fused.weight", &["a", "b", "c", "d"])]), @r"
    DIR/model.safetensors: tensor `fused.weight`: shape: expected rows that are 4 equal parts (a, b, c, d), found [6, 2]
      hint: config.json and the weights may belong to different models
    ");
    assert_snapshot!(refused(&[("norm.weight", &["other"])]), @r"
    DIR/model.safetensors: tensor `other`: expected to be the only tensor that is read as `other`, found another
      hint: the file has tensors of one module under two names: keep those of one
    ");
}
