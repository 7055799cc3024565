//! How `fewbit convert` writes: dry runs, shards, int4 in groups.

use crate::tiny_model::Workspace;

#[test]
fn a_dry_run_says_each_file_and_its_size_and_writes_nothing() {
    let workspace = Workspace::new();
    workspace.succeed(&["quantize", "model", "-o", "nf4", "--method", "nf4"]);
    let before = workspace.entries(".");
    let plan = [
        "convert",
        "nf4",
        "-o",
        "out",
        "--to",
        "f32",
        "--max-shard-size",
        "20KB",
    ];
    let shown = workspace
        .succeed(&[&plan[..], &["--dry-run"]].concat())
        .stdout;
    insta::assert_snapshot!(shown);
    let json = workspace
        .succeed(&[&plan[..], &["--dry-run", "--json"]].concat())
        .json();
    assert_eq!(json["dry_run"], true);
    assert_eq!(workspace.entries("."), before);
    let report = workspace.succeed(&[&plan[..], &["--json"]].concat()).json();
    let files = json["files"].as_array().unwrap();
    assert!(files.len() > 1);
    for file in files {
        let path = format!("out/{}", file["name"].as_str().unwrap());
        assert_eq!(
            workspace.read(&path).len() as u64,
            file["bytes"].as_u64().unwrap()
        );
    }
    assert_eq!(report["files"], files.len());
    for same in ["file_bytes", "output_bytes", "source_bytes", "dequantized"] {
        assert_eq!(report[same], json[same], "{same}");
    }
    // Without OUT, too; a file for llama.cpp is the output itself.
    let plan = ["convert", "nf4", "--to", "gguf:f16", "--dry-run", "--json"];
    let json = workspace.succeed(&plan).json();
    let report = [
        "convert", "nf4", "-o", "m.gguf", "--to", "gguf:f16", "--json",
    ];
    let report = workspace.succeed(&report).json();
    assert_eq!(json["files"][0]["bytes"], report["file_bytes"]);
    assert!(json["files"][0]["name"].is_null());
    assert_eq!(
        workspace.read("m.gguf").len() as u64,
        report["file_bytes"].as_u64().unwrap()
    );
    // What is there is not written to, and a dry run says so.
    for to in ["f32", "gguf:f32"] {
        let out = if to == "f32" { "out" } else { "m.gguf" };
        let refused = workspace.fail(&["convert", "model", "-o", out, "--to", to, "--dry-run"]);
        assert!(refused.contains("--force"), "{refused}");
    }
}

#[test]
fn shards_are_those_of_one_file_and_an_interrupted_run_goes_on() {
    let workspace = Workspace::new();
    workspace.succeed(&["quantize", "model", "-o", "nf4", "--method", "nf4"]);
    workspace.succeed(&["convert", "nf4", "-o", "whole", "--to", "f32"]);
    let arguments = [
        "convert",
        "nf4",
        "-o",
        "shards",
        "--to",
        "f32",
        "--max-shard-size",
        "20KB",
    ];
    workspace.succeed(&arguments);
    let embed = |model: &str| {
        workspace.write("texts.txt", "a cat\nthe sea\n");
        workspace
            .succeed(&["embed", model, "-i", "texts.txt"])
            .stdout
    };
    assert_eq!(embed("shards"), embed("whole"));
    let resumed = workspace.succeed(&["convert", "nf4", "-o", "again", "--to", "f32", "--resume"]);
    assert!(
        resumed.stderr.contains("again.partial is not there"),
        "{}",
        resumed.stderr
    );
    // A run that meets a full disk leaves files; here one that was written by hand stands for that.
    std::fs::create_dir(workspace.path("other.partial")).unwrap();
    workspace.write("other.partial/run.json", "{}");
    let arguments = [
        "convert",
        "nf4",
        "-o",
        "other",
        "--to",
        "f32",
        "--max-shard-size",
        "20KB",
    ];
    let refused = workspace.fail(&arguments);
    assert!(refused.contains("--resume"), "{refused}");
    let refused = workspace.fail(&[&arguments[..], &["--resume"]].concat());
    assert!(refused.contains("other.partial"), "{refused}");
}

#[test]
fn int4_is_what_quantize_writes_with_these_words() {
    let workspace = Workspace::new();
    for (name, options) in [
        ("no-divisor", &["--group-size", "16"][..]),
        ("asymmetric", &["--group-size", "4", "--asymmetric"]),
        ("channel", &["--group-size", "channel"]),
    ] {
        let (converted, quantized) = (format!("c-{name}"), format!("q-{name}"));
        let convert = ["convert", "model", "-o", &converted, "--to", "int4"];
        let quantize = [
            "quantize",
            "model",
            "-o",
            &quantized,
            "--method",
            "weight-only",
            "--weights",
            "int4",
        ];
        let (first, second) = (
            workspace.run(&[&convert[..], options].concat()),
            workspace.run(&[&quantize[..], options].concat()),
        );
        assert_eq!(first.code, second.code, "{}{}", first.stderr, second.stderr);
        if first.code == Some(0) {
            assert_eq!(
                workspace.read(&format!("{converted}/model.safetensors")),
                workspace.read(&format!("{quantized}/model.safetensors"))
            );
        }
    }
    assert!(workspace.path("c-asymmetric").is_dir() && workspace.path("c-channel").is_dir());
    for (to, words) in [
        (
            "gptq",
            &["int4", "--layout", "gptq", "--group-size", "channel"][..],
        ),
        (
            "gptq_v2",
            &["int4", "--layout", "gptq_v2", "--group-size", "channel"],
        ),
        (
            "awq",
            &["int4", "--layout", "awq", "--group-size", "channel"],
        ),
        ("fp8", &["fp8"]),
        ("nvfp4", &["nvfp4"]),
        ("mxfp4", &["mxfp4"]),
    ] {
        let (converted, quantized) = (format!("c-{to}"), format!("q-{to}"));
        let quantize = [
            "quantize",
            "model",
            "-o",
            &quantized,
            "--method",
            "weight-only",
        ];
        let convert = ["convert", "model", "-o", &converted, "--to", to];
        let options = match words.len() {
            1 => &[][..],
            _ => &words[3..],
        };
        let first = workspace.run(&[&convert[..], options].concat());
        let second = workspace.run(&[&quantize[..], &["--weights"], words].concat());
        // Some layouts do not hold the shapes of this model: then the reason is the same.
        if second.code == Some(0) {
            for file in ["model.safetensors", "config.json"] {
                assert_eq!(
                    workspace.read(&format!("{converted}/{file}")),
                    workspace.read(&format!("{quantized}/{file}"))
                );
            }
        } else {
            let reason = |text: &str| text[text.find("expected").unwrap()..].to_owned();
            assert_eq!(reason(&first.stderr), reason(&second.stderr), "{to}");
        }
    }
    assert!(workspace.path("c-fp8").is_dir());
    workspace.succeed(&["quantize", "model", "-o", "nf4", "--method", "nf4"]);
    let refused = workspace.fail(&[
        "convert",
        "nf4",
        "-o",
        "x",
        "--to",
        "int4",
        "--group-size",
        "4",
    ]);
    assert!(refused.contains("--allow-requantize"), "{refused}");
}

#[test]
fn options_of_other_layouts_are_wrong_usage() {
    let workspace = Workspace::new();
    let convert = ["convert", "model", "-o", "out", "--to"];
    let misuse = |options: &[&str]| workspace.misuse(&[&convert[..], options].concat());
    insta::assert_snapshot!(misuse(&["nf4", "--group-size", "32"]), @"
    error: --group-size: does not go with `--to nf4`
      hint: it is for int4, gptq, gptq_v2 and awq
    ");
    assert!(misuse(&["f32", "--asymmetric"]).contains("--asymmetric"));
    assert!(misuse(&["gguf:f16", "--max-shard-size", "1GB"]).contains("one file"));
    assert!(misuse(&["gguf:f16", "--resume"]).contains("begun anew"));
    assert!(misuse(&["int4", "--group-size", "0"]).contains("--group-size"));
    assert!(misuse(&["f32", "--max-shard-size", "0"]).contains("--max-shard-size"));
    workspace.misuse(&["convert", "model", "--to", "f32", "--resume", "--dry-run"]);
}
