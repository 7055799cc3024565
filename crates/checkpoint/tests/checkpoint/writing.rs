//! Writing checkpoint directories: what is there afterwards, and that nothing is there after a failure.

use fewbit_checkpoint::{
    Checkpoint, CheckpointError, CheckpointErrorKind, CheckpointWriter, TensorPlan,
};
use fewbit_numerics::dtype::DType;
use insta::assert_snapshot;
use safetensors::SafeTensors;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory with links resolved, as the writer reports it.
fn temporary() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    (directory, path)
}

/// Names in `directory`, hidden ones included.
fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn text(error: &CheckpointError, directory: &Path) -> String {
    error
        .to_string()
        .replace(&directory.display().to_string(), "DIR")
}

fn plans() -> Vec<TensorPlan> {
    vec![
        TensorPlan::new("b.codes", DType::I8, [3]),
        TensorPlan::new("b.scale", DType::F32, [1, 2]),
        TensorPlan::new("a.half", DType::BF16, [1]),
        TensorPlan::new("shape", DType::I64, [2]),
        TensorPlan::new("nothing", DType::F32, [0, 5]),
    ]
}

fn write_all(writer: &mut CheckpointWriter) -> Result<(), CheckpointError> {
    writer.plan_tensors(plans())?;
    writer.write_tensor("b.codes", &[1, 2, 3])?;
    // Slices in any order.
    writer.write_tensor_part("b.scale", 4, &2f32.to_le_bytes())?;
    writer.write_tensor_part("b.scale", 0, &1f32.to_le_bytes())?;
    writer.write_tensor("shape", &[9; 16])?;
    writer.write_tensor("a.half", &[0x80, 0x3f])?;
    writer.write_tensor("nothing", &[])
}

#[test]
fn whole_directory() {
    let (_guard, directory) = temporary();
    let source = directory.join("vocab.txt");
    fs::write(&source, "[PAD]\n").unwrap();
    let mut permissions = fs::metadata(&source).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&source, permissions).unwrap();

    let out = directory.join("parent/out");
    let mut writer = CheckpointWriter::create(&out, false).unwrap();
    writer
        .write_json("config.json", &json!({"z": 1, "a": [2]}))
        .unwrap();
    writer
        .write_json("1_Pooling/config.json", &json!({}))
        .unwrap();
    writer.copy_file(&source, "vocab.txt").unwrap();
    write_all(&mut writer).unwrap();
    // Until it is finished there is a hidden directory only, and the model in it has no config.json.
    let [partial] = &entries(&directory.join("parent"))[..] else {
        panic!()
    };
    assert!(partial.starts_with(".out.fewbit-partial-"), "{partial}");
    assert_eq!(
        entries(&directory.join("parent").join(partial)),
        [".fewbit-lock", "model"]
    );
    assert_eq!(
        entries(&directory.join("parent").join(partial).join("model")),
        ["1_Pooling", "model.safetensors", "vocab.txt"]
    );

    assert_eq!(writer.finish().unwrap(), out);
    assert_eq!(entries(&directory.join("parent")), ["out"]);
    assert_eq!(
        entries(&out),
        ["1_Pooling", "config.json", "model.safetensors", "vocab.txt"]
    );
    assert_eq!(
        fs::read_to_string(out.join("config.json")).unwrap(),
        "{\n  \"z\": 1,\n  \"a\": [\n    2\n  ]\n}\n"
    );
    assert_eq!(
        fs::read_to_string(out.join("vocab.txt")).unwrap(),
        "[PAD]\n"
    );
    assert!(
        !fs::metadata(out.join("vocab.txt"))
            .unwrap()
            .permissions()
            .readonly()
    );

    let bytes = fs::read(out.join("model.safetensors")).unwrap();
    let (header_bytes, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header_bytes % 8, 0);
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    // Wide elements first, so that every tensor is aligned.
    assert_eq!(
        metadata.offset_keys(),
        ["shape", "b.scale", "nothing", "a.half", "b.codes"]
    );
    let checkpoint = Checkpoint::open(&out).unwrap();
    assert_eq!(
        checkpoint.require("b.scale").unwrap().to_f32().unwrap(),
        [1.0, 2.0]
    );
    assert_eq!(
        checkpoint.require("a.half").unwrap().to_f32().unwrap(),
        [1.0]
    );
    assert_eq!(
        *checkpoint.require("b.codes").unwrap().bytes().unwrap(),
        [1, 2, 3]
    );
}

#[cfg(unix)]
#[test]
fn output_is_as_readable_as_other_directories() {
    use std::os::unix::fs::PermissionsExt;
    let (_guard, directory) = temporary();
    fs::create_dir(directory.join("other")).unwrap();
    CheckpointWriter::create(directory.join("out"), false)
        .unwrap()
        .finish()
        .unwrap();
    let mode = |name: &str| {
        fs::metadata(directory.join(name))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode("out"), mode("other"));
}

#[test]
fn dropped_unfinished_leaves_nothing() {
    let (_guard, directory) = temporary();
    let mut writer = CheckpointWriter::create(directory.join("new/deep/out"), false).unwrap();
    write_all(&mut writer).unwrap();
    drop(writer);
    assert!(entries(&directory).is_empty());
}

#[test]
fn existing_outputs() {
    let (_guard, directory) = temporary();
    let out = directory.join("out");
    // An empty directory is as good as none.
    fs::create_dir(&out).unwrap();
    let mut writer = CheckpointWriter::create(&out, false).unwrap();
    writer.write_json("config.json", &json!(1)).unwrap();
    writer.finish().unwrap();

    let refuse = |path: &Path, force| {
        let error = CheckpointWriter::create(path, force)
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.kind(), CheckpointErrorKind::OutputExists);
        text(&error, &directory)
    };
    assert_snapshot!(refuse(&out, false), @r"
    DIR/out: output exists: expected no such path or an empty directory, found a directory with files in it
      hint: name another output directory, or replace this one with --force
    ");
    let file = out.join("config.json");
    for force in [false, true] {
        assert_eq!(
            refuse(&file, force),
            "DIR/out/config.json: output exists: expected no such path or an empty directory, found a file\n  \
             hint: name another output directory"
        );
    }

    // What was never a model is not replaced, whoever asks.
    let photos = directory.join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("precious"), "").unwrap();
    assert_snapshot!(refuse(&photos, true), @r"
    DIR/photos: cannot be replaced: expected a model directory, found one without config.json
      hint: remove it yourself, or name another output directory
    ");
    assert_eq!(entries(&photos), ["precious"]);
    fs::remove_dir_all(&photos).unwrap();

    // Replaced at the end, not before.
    let mut writer = CheckpointWriter::create(&out, true).unwrap();
    writer.write_json("other.json", &json!(2)).unwrap();
    assert_eq!(entries(&out), ["config.json"]);
    drop(writer);
    assert_eq!(entries(&out), ["config.json"]);
    let mut writer = CheckpointWriter::create(&out, true).unwrap();
    writer.write_json("other.json", &json!(2)).unwrap();
    writer.finish().unwrap();
    assert_eq!(entries(&out), ["other.json"]);
    assert_eq!(entries(&directory), ["out"]);
}

#[test]
fn output_that_appears_meanwhile() {
    let (_guard, directory) = temporary();
    let out = directory.join("out");
    let writer = CheckpointWriter::create(&out, false).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("precious"), "").unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.kind(), CheckpointErrorKind::OutputExists);
    assert_eq!(entries(&directory), ["out"]);
    assert_eq!(entries(&out), ["precious"]);
}

#[test]
fn source_is_never_replaced() {
    let (_guard, directory) = temporary();
    let source = directory.join("models/bert");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("config.json"), "{}").unwrap();
    for out in [&source, &directory.join("models"), &source.join(".")] {
        let error = CheckpointWriter::create(out, true)
            .and_then(|writer| writer.refuse_source(&source))
            .unwrap_err();
        assert_eq!(error.kind(), CheckpointErrorKind::OutputExists);
    }
    let error = CheckpointWriter::create(&source, true)
        .unwrap()
        .refuse_source(&source)
        .unwrap_err();
    assert_snapshot!(text(&error, &directory), @r"
    DIR/models/bert: the output would replace its own source DIR/models/bert
      hint: name another output directory
    ");
    for out in [
        directory.join("models/other"),
        source.join("quantized"),
        directory.join("models/bert-2"),
    ] {
        CheckpointWriter::create(&out, false)
            .unwrap()
            .refuse_source(&source)
            .unwrap();
    }
    assert_eq!(entries(&source), ["config.json"]);
}

#[test]
fn wrong_use_is_refused() {
    let (_guard, directory) = temporary();
    let out = directory.join("out");
    let mut writer = CheckpointWriter::create(&out, false).unwrap();
    let show = |result: Result<(), CheckpointError>| text(&result.unwrap_err(), &directory);
    assert_snapshot!(show(writer.write_tensor("a", &[])), @"DIR/out/model.safetensors: tensor `a`: not planned: expected `plan_tensors` first");
    let twice = vec![
        TensorPlan::new("a", DType::U8, [1]),
        TensorPlan::new("a", DType::F32, [1]),
    ];
    assert_snapshot!(show(writer.plan_tensors(twice)), @"DIR/out/model.safetensors: tensor `a`: planned twice");
    let huge = TensorPlan::new("a", DType::F32, [usize::MAX, 2]);
    assert_eq!(huge.byte_len(), usize::MAX);
    assert_snapshot!(
        show(writer.plan_tensors(vec![huge])),
        @"DIR/out/model.safetensors: tensor `a`: shape [18446744073709551615, 2]: the number of bytes overflows"
    );
    writer.plan_tensors(plans()).unwrap();
    assert_snapshot!(show(writer.plan_tensors(plans())), @"DIR/out/model.safetensors: the tensors are already planned");
    assert_snapshot!(
        show(writer.write_tensor("c", &[])),
        @"DIR/out/model.safetensors: tensor `c`: not planned: expected a tensor of `plan_tensors`"
    );
    assert_snapshot!(
        show(writer.write_tensor("b.codes", &[1, 2])),
        @"DIR/out/model.safetensors: tensor `b.codes`: data to write: expected 3 bytes, found 2"
    );
    assert_snapshot!(
        show(writer.write_tensor_part("b.codes", 2, &[1, 2])),
        @"DIR/out/model.safetensors: tensor `b.codes`: data to write: expected at most 3 bytes, found 2 from offset 2"
    );
    writer.write_tensor_part("b.codes", 1, &[1]).unwrap();
    assert_snapshot!(
        show(writer.write_tensor("b.codes", &[1, 2, 3])),
        @"DIR/out/model.safetensors: tensor `b.codes`: bytes 0..3 written twice"
    );
    writer.write_tensor("nothing", &[]).unwrap();
    assert_snapshot!(show(writer.write_tensor("nothing", &[])), @"DIR/out/model.safetensors: tensor `nothing`: bytes 0..0 written twice");
    for name in ["../x", "/x", "", "model.safetensors", "a/../../x"] {
        assert_eq!(
            show(writer.write_json(name, &json!(1))),
            format!(
                "DIR/out: file name: expected a path inside the output other than model.safetensors, found `{name}`"
            )
        );
    }
    assert_snapshot!(
        show(writer.copy_file(&directory.join("absent"), "x")),
        @"DIR/absent: cannot copy: No such file or directory (os error 2)"
    );
    assert_snapshot!(
        show(writer.finish().map(|_| ())),
        @"DIR/out/model.safetensors: tensor `a.half`: not written whole: expected 2 bytes, found 0"
    );
    assert!(entries(&directory).is_empty());
}

/// Run as a child with a small limit on the size of files; see `limit_while_writing`.
#[test]
fn child_that_writes() {
    let Some(out) = std::env::var_os("FEWBIT_TEST_OUT") else {
        return;
    };
    let mut writer = CheckpointWriter::create(Path::new(&out), false).unwrap();
    writer.write_json("config.json", &json!({})).unwrap();
    let size = 64 * 1024;
    let planned = writer.plan_tensors(vec![TensorPlan::new("w", DType::U8, [size])]);
    let error = planned
        .and_then(|()| writer.write_tensor("w", &vec![1; size]))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("model.safetensors: file too large: cannot write "),
        "{error}"
    );
    assert!(error.to_string().contains("\n  hint: "), "{error}");
}

/// A write that the system refuses in the middle leaves nothing behind.
#[cfg(unix)]
#[test]
fn limit_while_writing() {
    let (_guard, directory) = temporary();
    let out = directory.join("parent/out");
    // 8 blocks of 512 or 1024 bytes; with SIGXFSZ ignored the write fails instead of killing the process.
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 8; exec \"$0\" writing::child_that_writes --exact",
        ])
        .arg(std::env::current_exe().unwrap())
        .env("FEWBIT_TEST_OUT", &out)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && report.contains("1 passed"),
        "{report}"
    );
    assert!(entries(&directory).is_empty());
}
