//! Opening checkpoint directories: single file, shards, and every way in which that can fail.

use crate::checkpoint_builder::{CheckpointDirectory, f32_tensor, safetensors_bytes, tensor};
use fewbit_checkpoint::{Checkpoint, CheckpointErrorKind, QuantizationConfig, StoredWeight};
use insta::assert_snapshot;
use safetensors::Dtype;
use serde_json::{Value, json};
use std::fs;

fn error_of(directory: &CheckpointDirectory, kind: CheckpointErrorKind) -> String {
    let error = Checkpoint::open(directory.path()).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    directory.text(&error)
}

#[test]
fn float_types_widen() {
    let values = [1.0f32, -0.5, 65504.0, 0.0, -2.0, 3.0];
    let half = |bits: [u16; 6]| bits.map(u16::to_le_bytes);
    let directory = CheckpointDirectory::new(
        &json!({"model_type": "bert"}),
        &[
            f32_tensor("a.weight", &[2, 3], &values),
            tensor(
                "b.weight",
                Dtype::F16,
                &[2, 3],
                half([0x3c00, 0xb800, 0x7bff, 0, 0xc000, 0x4200]),
            ),
            tensor(
                "c.weight",
                Dtype::BF16,
                &[2, 3],
                half([0x3f80, 0xbf00, 0x4780, 0, 0xc000, 0x4040]),
            ),
            tensor(
                "ids",
                Dtype::I64,
                &[2],
                [7i64.to_le_bytes(), 8i64.to_le_bytes()],
            ),
        ],
    );
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.config(), &json!({"model_type": "bert"}));
    assert_eq!(checkpoint.quantization(), &QuantizationConfig::None);
    // In file order: the writer sorts by dtype, the widest first.
    let names: Vec<&str> = checkpoint
        .tensors()
        .map(|tensor| tensor.name.as_str())
        .collect();
    assert_eq!(names, ["ids", "a.weight", "c.weight", "b.weight"]);
    for module in ["a", "b"] {
        let weight = checkpoint.stored_weight(module, [2, 3]).unwrap();
        assert!(matches!(weight, StoredWeight::Float(_)));
        assert_eq!(weight.dequantize([2, 3]).unwrap(), values);
        assert_eq!(
            checkpoint.weight_tensor_names(module),
            [format!("{module}.weight")]
        );
    }
    // 65504 is 65536 in bf16.
    assert_eq!(
        checkpoint.require("c.weight").unwrap().to_f32().unwrap(),
        [1.0, -0.5, 65536.0, 0.0, -2.0, 3.0]
    );
    let mut part = [0.0; 2];
    checkpoint
        .require("b.weight")
        .unwrap()
        .read_f32_range(3, &mut part)
        .unwrap();
    assert_eq!(part, [0.0, -2.0]);

    let error = checkpoint
        .require("b.weight")
        .unwrap()
        .read_f32_range(5, &mut part)
        .unwrap_err();
    assert_snapshot!(directory.text(&error), @"DIR/model.safetensors: tensor `b.weight`: elements 5..5+2: expected a range within 0..6");
    let error = checkpoint.require("ids").unwrap().to_f32().unwrap_err();
    assert_snapshot!(directory.text(&error), @"DIR/model.safetensors: tensor `ids`: dtype: expected F32, F16, BF16 or F64, found I64");
    let error = checkpoint.stored_weight("a", [3, 2]).unwrap_err();
    assert_eq!(error.kind(), CheckpointErrorKind::WrongShape);
    assert_snapshot!(directory.text(&error), @"DIR/model.safetensors: tensor `a.weight`: shape: expected [3, 2], found [2, 3]");
}

#[test]
fn misaligned_data_is_read() {
    // A header length that is not a multiple of 4 puts the f32 data at an odd address.
    let header = br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} "#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    assert_eq!(file.len() % 4, 3);
    file.extend([1.5f32, -2.5].iter().flat_map(|value| value.to_le_bytes()));
    let directory = CheckpointDirectory::new(&json!({}), &[]);
    directory.write("model.safetensors", file);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(
        checkpoint.require("w").unwrap().to_f32().unwrap(),
        [1.5, -2.5]
    );
}

#[test]
fn missing_tensor_names_its_neighbours() {
    let names = [
        "bert.encoder.layer.0.output.dense.weight",
        "bert.encoder.layer.1.output.dense.weight",
        "bert.pooler.dense.weight",
    ];
    let tensors = names.map(|name| f32_tensor(name, &[1], &[0.0]));
    let directory = CheckpointDirectory::new(&json!({}), &tensors);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let error = checkpoint
        .require("encoder.layer.1.output.dense.weight")
        .unwrap_err();
    assert_eq!(error.kind(), CheckpointErrorKind::MissingTensor);
    assert_snapshot!(directory.text(&error), @r"
    DIR/model.safetensors: tensor `encoder.layer.1.output.dense.weight`: missing: expected this tensor, found 3 others
      hint: near names in the checkpoint: bert.encoder.layer.1.output.dense.weight, bert.encoder.layer.0.output.dense.weight, bert.pooler.dense.weight
    ");
    let error = checkpoint.stored_weight("unlike", [1, 1]).unwrap_err();
    assert_snapshot!(directory.text(&error), @"DIR/model.safetensors: tensor `unlike.weight`: missing: expected this tensor, found 3 others");
}

#[test]
fn not_a_checkpoint_directory() {
    let directory = CheckpointDirectory::new(&json!({}), &[]);
    let missing = directory.path().join("missing");
    let error = Checkpoint::open(&missing).unwrap_err();
    assert_eq!(error.kind(), CheckpointErrorKind::NotFound);
    assert_snapshot!(directory.text(&error), @"DIR/missing: no such directory");

    let error = Checkpoint::open(directory.path().join("config.json")).unwrap_err();
    assert_snapshot!(directory.text(&error), @r"
    DIR/config.json: expected a checkpoint directory, found a file
      hint: name the directory that holds config.json and model.safetensors or pytorch_model.bin
    ");

    fs::remove_file(directory.path().join("config.json")).unwrap();
    assert_snapshot!(error_of(&directory, CheckpointErrorKind::NotFound), @r"
    DIR: not a checkpoint: expected config.json, found none
      hint: a checkpoint directory holds config.json, model.safetensors or pytorch_model.bin, and the tokenizer files
    ");
    directory.write("config.json", "{\"a\": 1");
    assert_snapshot!(
        error_of(&directory, CheckpointErrorKind::Malformed),
        @"DIR/config.json: not valid JSON: EOF while parsing an object at line 1 column 7"
    );
    directory.write("config.json", "[]");
    assert_snapshot!(error_of(&directory, CheckpointErrorKind::Malformed), @"DIR/config.json: expected a JSON object, found another value");
}

/// Weights alone can be read; what model they are of is an error for those who ask.
#[test]
fn weights_without_a_config() {
    let directory = CheckpointDirectory::new(&json!({}), &[f32_tensor("a.weight", &[1], &[0.5])]);
    fs::remove_file(directory.path().join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert!(!checkpoint.has_config() && checkpoint.config() == &json!({}));
    assert!(!checkpoint.quantization().is_quantized());
    assert_eq!(checkpoint.weight_shape("a").unwrap(), Some(vec![1]));
    assert_eq!(checkpoint.weight_shape("b").unwrap(), None);
    let error = checkpoint.missing_config();
    assert_eq!(error.kind(), CheckpointErrorKind::NotFound);
    assert_snapshot!(directory.text(&error), @r"
    DIR: not a checkpoint: expected config.json, found none
      hint: without it nothing says what model the weights are of; `inspect`, and `quantize` with fp16, bf16, weight-only, nf4 and fp4, need only these
    ");
}

#[test]
fn weights_of_another_kind() {
    let directory = CheckpointDirectory::new(&json!({}), &[]);
    assert_snapshot!(
        error_of(&directory, CheckpointErrorKind::NotFound),
        @"DIR: no weights: expected model.safetensors, pytorch_model.bin or an index of shards, found none of them"
    );
    directory.write("model.gguf", "GGUF");
    assert_snapshot!(error_of(&directory, CheckpointErrorKind::NotFound), @r"
    DIR: no weights: expected model.safetensors, pytorch_model.bin or an index of shards, found only the GGUF file `model.gguf`
      hint: make one of it first: fewbit convert DIR/model.gguf -o OUT --to f32
    ");
    directory.write("model.pt", "PK");
    assert_snapshot!(error_of(&directory, CheckpointErrorKind::NotFound), @r"
    DIR: no weights: expected model.safetensors, pytorch_model.bin or an index of shards, found only the pickle file `model.pt`
      hint: rename it to pytorch_model.bin if it holds the state dict of the whole model
    ");
    directory.write("weights.safetensors", "");
    assert_snapshot!(error_of(&directory, CheckpointErrorKind::NotFound), @r"
    DIR: no weights: expected model.safetensors, pytorch_model.bin or an index of shards, found `weights.safetensors`
      hint: rename it to model.safetensors if it holds the whole model
    ");
}

#[test]
fn file_damaged_on_disk() {
    let directory = CheckpointDirectory::new(&json!({}), &[f32_tensor("w", &[4], &[0.0; 4])]);
    let path = directory.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    assert_snapshot!(error_of(&directory, CheckpointErrorKind::Malformed), @r"
    DIR/model.safetensors: truncated safetensors file: expected 80 bytes, found 75
      hint: the file is incomplete or damaged: download or write it again
    ");
    fs::write(&path, "").unwrap();
    assert_snapshot!(error_of(&directory, CheckpointErrorKind::Malformed), @r"
    DIR/model.safetensors: truncated safetensors file: expected at least 8 bytes, found 0
      hint: the file is incomplete or damaged: download or write it again
    ");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_snapshot!(error_of(&directory, CheckpointErrorKind::Io), @"DIR/model.safetensors: cannot open: not a regular file");
}

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

/// Two shards: `a` and `b` in the first, `c` in the second.
fn sharded(weight_map: &Value) -> CheckpointDirectory {
    let directory = CheckpointDirectory::new(&json!({}), &[]);
    let one = |name| f32_tensor(name, &[1], &[name.len() as f32]);
    directory.write(FIRST, safetensors_bytes(&[one("a"), one("bb")]));
    directory.write(SECOND, safetensors_bytes(&[one("ccc")]));
    directory.write(
        "model.safetensors.index.json",
        json!({"metadata": {}, "weight_map": weight_map}).to_string(),
    );
    directory
}

#[test]
fn shards() {
    let directory = sharded(&json!({"ccc": SECOND, "bb": FIRST, "a": FIRST}));
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let names: Vec<&str> = checkpoint
        .tensors()
        .map(|tensor| tensor.name.as_str())
        .collect();
    assert_eq!(names, ["a", "bb", "ccc"]);
    let last = checkpoint.require("ccc").unwrap();
    assert_eq!(last.info.file, directory.path().join(SECOND));
    assert_eq!(last.to_f32().unwrap(), [3.0]);
    let error = checkpoint.require("d").unwrap_err();
    assert_snapshot!(directory.text(&error), @"DIR/model.safetensors.index.json: tensor `d`: missing: expected this tensor, found 3 others");
}

#[test]
fn index_decides_between_shards() {
    let directory = sharded(&json!({"a": FIRST, "bb": FIRST, "ccc": SECOND}));
    let old_a = f32_tensor("a", &[1], &[99.0]);
    directory.write(
        SECOND,
        safetensors_bytes(&[old_a, f32_tensor("ccc", &[1], &[3.0])]),
    );
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.tensors().count(), 3);
    assert_eq!(checkpoint.require("a").unwrap().to_f32().unwrap(), [1.0]);

    directory.write(
        "model.safetensors.index.json",
        json!({"weight_map": {"bb": FIRST, "ccc": SECOND}}).to_string(),
    );
    assert_snapshot!(
        error_of(&directory, CheckpointErrorKind::Malformed),
        @"DIR/model.safetensors.index.json: tensor `a`: in more than one shard: expected the index to say which one, found it in `model-00002-of-00002.safetensors` and before"
    );
}

#[test]
fn shards_that_do_not_fit_their_index() {
    let directory = sharded(&json!({"a": FIRST, "bb": SECOND, "ccc": SECOND}));
    assert_snapshot!(error_of(&directory, CheckpointErrorKind::MissingTensor), @r"
    DIR/model.safetensors.index.json: tensor `bb`: expected in shard `model-00002-of-00002.safetensors`, found 1 other tensors there
      hint: the index and the shards belong to different versions: download both again
    ");
    let directory = sharded(&json!({"a": FIRST, "bb": FIRST, "ccc": SECOND}));
    fs::remove_file(directory.path().join(SECOND)).unwrap();
    assert_snapshot!(error_of(&directory, CheckpointErrorKind::NotFound), @r"
    DIR/model.safetensors.index.json: shard `model-00002-of-00002.safetensors` is missing: expected 2 shards, found 1
      hint: download the model again, or copy the missing shard into the directory
    ");
    for (weight_map, expected) in [
        (
            json!({"a": "../model.safetensors"}),
            "tensor `a`: shard: expected a plain file name, found `../model.safetensors`",
        ),
        (
            json!({"a": 1}),
            "tensor `a`: shard: expected a string, found 1",
        ),
        (
            json!({}),
            "field `weight_map`: expected at least one tensor, found none",
        ),
        (
            json!([]),
            "field `weight_map`: expected an object, found something else",
        ),
    ] {
        let directory = sharded(&weight_map);
        assert_eq!(
            error_of(&directory, CheckpointErrorKind::Malformed),
            format!("DIR/model.safetensors.index.json: {expected}")
        );
    }
}

/// A parser that makes a map of it would take one of the two.
#[test]
fn an_index_with_a_name_twice_is_refused() {
    let directory = sharded(&json!({}));
    for (index, expected) in [
        (
            format!(r#"{{"weight_map": {{"a": "{FIRST}", "bb": "{FIRST}", "a": "{SECOND}"}}}}"#),
            "tensor `a`: named twice: expected one shard that holds it, found `model-00001-of-00002.safetensors` and \
             `model-00002-of-00002.safetensors`\n  hint: the index is damaged: download it again",
        ),
        (
            format!(r#"{{"weight_map": {{"a": "{FIRST}"}}, "weight_map": {{"bb": "{FIRST}"}}}}"#),
            "field `weight_map`: expected an object, found two",
        ),
        (
            r#"{"metadata": {}}"#.to_owned(),
            "field `weight_map`: expected an object, found none",
        ),
    ] {
        directory.write("model.safetensors.index.json", index);
        assert_eq!(
            error_of(&directory, CheckpointErrorKind::Malformed),
            format!("DIR/model.safetensors.index.json: {expected}")
        );
    }
}

#[test]
fn quantization_that_is_not_read() {
    for (config, expected) in [
        (
            json!({"quant_method": "hqq", "bits": 4}),
            "unsupported: quantization method `hqq`",
        ),
        (
            json!({"quant_method": "aqlm"}),
            "unsupported: quantization method `aqlm`",
        ),
        (
            json!({"quant_method": "fp8"}),
            "unsupported: quantization method `fp8`",
        ),
    ] {
        let directory = CheckpointDirectory::new(
            &json!({"quantization_config": config}),
            &[f32_tensor("w", &[1], &[0.0])],
        );
        let text = error_of(&directory, CheckpointErrorKind::UnsupportedQuantization);
        assert_eq!(
            text,
            format!(
                "DIR/config.json: {expected}\n  hint: fewbit reads float checkpoints, bitsandbytes (nf4, fp4, 8-bit), \
                 compressed-tensors (int-quantized and pack-quantized with 4 or 8 bits, float-quantized with 8 bits, \
                 nvfp4-pack-quantized, mxfp4-pack-quantized), GPTQ (gptq and gptq_v2 with 4 or 8 bits) and AWQ (gemm)"
            )
        );
    }
    for (config, expected) in [
        (
            json!({"bits": 4}),
            "quantization_config.quant_method: expected a string, found none",
        ),
        (
            json!("nf4"),
            "quantization_config: expected an object, found \"nf4\"",
        ),
    ] {
        let directory = CheckpointDirectory::new(&json!({"quantization_config": config}), &[]);
        assert_eq!(
            error_of(&directory, CheckpointErrorKind::Malformed),
            format!("DIR/config.json: {expected}")
        );
    }
    let directory = CheckpointDirectory::new(
        &json!({"quantization_config": null}),
        &[f32_tensor("w", &[1], &[0.0])],
    );
    assert!(
        !Checkpoint::open(directory.path())
            .unwrap()
            .quantization()
            .is_quantized()
    );
}

#[test]
fn quantized_tensors_without_a_config() {
    let directory = CheckpointDirectory::new(
        &json!({}),
        &[tensor("m.weight", Dtype::I8, &[1, 2], [[1u8, 2]])],
    );
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let error = checkpoint.stored_weight("m", [1, 2]).unwrap_err();
    assert_eq!(error.kind(), CheckpointErrorKind::WrongDType);
    assert_snapshot!(directory.text(&error), @r"
    DIR/model.safetensors: tensor `m.weight`: config.json (not quantized): expected F32, F16, BF16 or F64, found I8
      hint: a quantized checkpoint needs its `quantization_config` in config.json
    ");
}

/// Resident KiB of the mapping of `path` in this process.
#[cfg(target_os = "linux")]
fn resident_kib(path: &std::path::Path) -> usize {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let path = path.canonicalize().unwrap();
    let mut lines = maps
        .lines()
        .skip_while(|line| !line.ends_with(path.to_str().unwrap()));
    let resident = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
    resident.trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn a_released_tensor_leaves_memory_and_can_be_read_again() {
    let values: Vec<f32> = (0..1 << 20).map(|value| value as f32).collect();
    let directory = CheckpointDirectory::new(
        &json!({}),
        &[
            f32_tensor("a.weight", &[1 << 10, 1 << 10], &values),
            f32_tensor("b.weight", &[3], &[1.0, 2.0, 3.0]),
        ],
    );
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let read = || checkpoint.require("a.weight").unwrap().to_f32().unwrap();
    assert!(read() == values);
    #[cfg(target_os = "linux")]
    {
        let file = directory.path().join("model.safetensors");
        let before = resident_kib(&file);
        assert!(before >= 4096, "{before}");
        checkpoint.release("a.weight");
        // The first and the last page are shared with what lies beside the tensor.
        let after = resident_kib(&file);
        assert!(after <= before - 4096 + 128, "{before} -> {after}");
    }
    checkpoint.release("a.weight");
    assert!(read() == values);
    checkpoint.release("no such tensor");
}

#[test]
fn indexes_are_row_major() {
    let directory = CheckpointDirectory::new(
        &json!({}),
        &[
            f32_tensor("cube", &[2, 3, 4], &[0.0; 24]),
            f32_tensor("scalar", &[], &[0.0]),
        ],
    );
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let cube = checkpoint.require("cube").unwrap();
    assert_eq!(cube.index_of(0), [0, 0, 0]);
    assert_eq!(cube.index_of(5), [0, 1, 1]);
    assert_eq!(cube.index_of(23), [1, 2, 3]);
    assert!(checkpoint.require("scalar").unwrap().index_of(0).is_empty());
}
