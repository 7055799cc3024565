//! Outputs of several files, and runs that are interrupted while they write them.

use crate::tiny_model::Workspace;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Layers of the decoder.
const LAYERS: usize = 6;
/// Bytes of a file that takes one weight of it.
const SHARD_SIZE: &str = "2500";
const QUANTIZE: [&str; 10] = [
    "quantize",
    "decoder",
    "--method",
    "nf4",
    "--double-quant",
    "--max-shard-size",
    SHARD_SIZE,
    "--json",
    "-o",
    "out",
];

/// A decoder in two files: nothing of it runs here, as its weights are told by their names.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    std::fs::create_dir(workspace.path("decoder")).unwrap();
    workspace.write(
        "decoder/config.json",
        json!({"model_type": "mamba"}).to_string(),
    );
    let mut weight_map = serde_json::Map::new();
    for file in 0..2 {
        let name = format!("model-{:05}-of-00002.safetensors", file + 1);
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        let mut add = |tensor: String, shape: &[usize], seed: usize| {
            let start = data.len();
            for element in 0..shape.iter().product::<usize>() {
                let value = ((element * 7919 + seed * 104_729) % 2003) as f32 / 2003.0 - 0.5;
                data.extend(value.to_le_bytes());
            }
            let offsets = [start, data.len()];
            header.insert(
                tensor.clone(),
                json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}),
            );
            weight_map.insert(tensor, json!(name));
        };
        for layer in file * LAYERS / 2..(file + 1) * LAYERS / 2 {
            let prefix = format!("model.layers.{layer}");
            for (index, part) in ["q_proj", "k_proj", "v_proj", "o_proj"].iter().enumerate() {
                let name = format!("{prefix}.self_attn.{part}.weight");
                add(name, &[64, 64], layer * 10 + index);
            }
            for (index, part) in ["gate_proj", "up_proj", "down_proj"].iter().enumerate() {
                let name = format!("{prefix}.mlp.{part}.weight");
                add(name, &[64, 64], layer * 10 + 4 + index);
            }
            add(format!("{prefix}.input_layernorm.weight"), &[64], layer);
        }
        // What no layer uses may hold anything, and the report says so.
        add(format!("rest{file}.weight"), &[4], 0);
        let end = data.len();
        data[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        let header = Value::Object(header).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.extend(data);
        workspace.write(&format!("decoder/{name}"), bytes);
    }
    workspace.write(
        "decoder/model.safetensors.index.json",
        json!({"metadata": {}, "weight_map": weight_map}).to_string(),
    );
    workspace
}

fn files(workspace: &Workspace, directory: &str) -> Vec<(String, Vec<u8>)> {
    let names = workspace.entries(directory).into_iter();
    names
        .map(|name| {
            let bytes = workspace.read(&format!("{directory}/{name}"));
            (name, bytes)
        })
        .collect()
}

/// The report without how long it took.
fn report(text: &str) -> Value {
    let mut report: Value = serde_json::from_str(text).unwrap();
    report.as_object_mut().unwrap().remove("elapsed_seconds");
    report
}

fn start(workspace: &Workspace, command: &[&str], more: &[&str]) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin("fewbit"))
        .current_dir(workspace.path("."))
        .args(command)
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A sequence of numbers from 0 up to 1, each about as far from the others as random numbers are.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(unix)]
#[test]
fn killed_at_any_moment_it_goes_on_to_the_same_bytes() {
    let workspace = workspace();
    let expected_report = report(&workspace.succeed(&QUANTIZE).stdout);
    assert!(workspace.entries("out").len() > 7 * LAYERS);
    let notes = expected_report["notes"].to_string();
    assert_eq!(notes.matches("was carried over with NaN").count(), 2);
    std::fs::remove_dir_all(workspace.path("out")).unwrap();
    expect_the_same_after_kills(&workspace, &QUANTIZE, 50);
}

/// The same of codes that become floats, which are computed while they are written.
#[cfg(unix)]
#[test]
fn a_killed_conversion_goes_on_to_the_same_bytes() {
    let workspace = workspace();
    workspace.succeed(&[&QUANTIZE[..9], &["codes"]].concat());
    let convert = [
        "convert",
        "codes",
        "--to",
        "bf16",
        "--max-shard-size",
        "9000",
        "--json",
        "-o",
        "out",
    ];
    expect_the_same_after_kills(&workspace, &convert, 20);
    let names = workspace.entries("out").into_iter();
    let shards = names.filter(|name| name.ends_with(".safetensors"));
    assert!(shards.count() >= 7 * LAYERS);
}

/// Killed at so many random moments, also while it goes on from an earlier kill, the run of `command`, which writes `out`, leaves nothing that looks finished, and the
/// next one ends with the bytes and the report of one that nobody disturbed.
#[cfg(unix)]
fn expect_the_same_after_kills(workspace: &Workspace, command: &[&str], kills: usize) {
    const KILLS_IN_A_ROW: usize = 2;
    let begun = Instant::now();
    let expected_report = report(&workspace.succeed(command).stdout);
    let mut time = begun.elapsed();
    let expected = files(workspace, "out");
    let entries = workspace.entries(".");
    let mut random = Random(1);
    let (mut gone_on, mut unfinished, mut attempts) = (0, 0, 0);
    // Only kills of a run that was not done count, and some must have left files to go on from.
    while unfinished < kills || gone_on < kills / 5 {
        assert!(
            attempts < 20 * kills,
            "{unfinished} kills came in time, {gone_on} of them left whole files"
        );
        attempts += 1;
        std::fs::remove_dir_all(workspace.path("out")).unwrap();
        for _ in 0..KILLS_IN_A_ROW {
            let partial = workspace.path("out.partial").exists();
            let resume: &[&str] = if partial { &["--resume"] } else { &[] };
            let mut child = start(workspace, command, resume);
            std::thread::sleep(time.mul_f64(random.next()));
            child.kill().unwrap();
            child.wait().unwrap();
            // Where it was killed after its last step, all of it is there.
            if workspace.path("out").exists() {
                assert!(files(workspace, "out") == expected, "{unfinished}");
                // Other programs change how fast the machine is: the moments follow.
                time = time.mul_f64(0.9);
                break;
            }
            unfinished += 1;
        }
        if workspace.path("out").exists() {
            let partial = workspace.path("out.partial");
            assert!(!partial.exists() || std::fs::remove_dir_all(partial).is_ok());
            continue;
        }
        if workspace.path("out.partial").exists() {
            gone_on += 1;
        } else {
            time = time.mul_f64(1.1);
        }
        let resumed = workspace.succeed(&[command, &["--resume"]].concat());
        assert_eq!(report(&resumed.stdout), expected_report, "{unfinished}");
        assert!(files(workspace, "out") == expected, "{unfinished}");
        assert_eq!(workspace.entries("."), entries, "{unfinished}");
    }
}

/// Ctrl-C removes what is not whole and says where the rest is.
#[cfg(unix)]
#[test]
fn a_signal_keeps_the_files_that_are_whole() {
    let workspace = workspace();
    workspace.succeed(&[&QUANTIZE[..9], &["whole"]].concat());
    for attempt in 0.. {
        let child = start(&workspace, &QUANTIZE, &[]);
        let begun = Instant::now();
        while !workspace.path("out.partial").exists() && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_micros(200));
        }
        let signal = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(signal.unwrap().success());
        let output = child.wait_with_output().unwrap();
        if output.status.code() == Some(130) && workspace.path("out.partial").exists() {
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(
                text.ends_with(
                    "interrupted: what is finished is kept in out.partial\n  \
                     hint: the same command with --resume goes on from there\n"
                ),
                "{text}"
            );
            break;
        }
        // It was done before the signal came.
        assert!(attempt < 20, "{output:?}");
        std::fs::remove_dir_all(workspace.path("out")).unwrap();
    }
    assert_eq!(
        workspace.entries("."),
        ["decoder", "model", "out.partial", "whole"]
    );
    insta::assert_snapshot!(workspace.fail(&QUANTIZE), @r"
    error: out.partial: expected nothing, found what was finished of a run that was interrupted
      hint: go on with --resume, or remove the directory to start again
    ");
    let other = [&QUANTIZE[..], &["--resume", "--block-size", "128"]].concat();
    insta::assert_snapshot!(workspace.fail(&other), @r"
    error: out.partial: expected shards of the same source, recipe, size of shards and version of fewbit, found those of another run
      hint: give the flags of the run that was interrupted, or remove the directory to start again
    ");
    let outcome = workspace.succeed(&[&QUANTIZE[..], &["--resume"]].concat());
    assert_eq!(outcome.stderr, "");
    assert!(files(&workspace, "out") == files(&workspace, "whole"));
    assert_eq!(workspace.entries("."), ["decoder", "model", "out", "whole"]);
}

#[test]
fn sizes_of_files_are_said_before_and_afterwards() {
    let workspace = workspace();
    let plan = workspace.succeed(&[&QUANTIZE[..7], &["--dry-run", "--json"]].concat());
    let files = plan.json()["files"].as_u64().unwrap();
    assert!(files > 40, "{files}");
    let plan = workspace
        .succeed(&[&QUANTIZE[..7], &["--dry-run"]].concat())
        .stdout;
    let words = format!("; the {files} files of weights have ");
    assert!(plan.contains(&words), "{plan}");
    let outcome = workspace.succeed(&[&QUANTIZE[..7], &["--resume", "-o", "out"]].concat());
    let line = |text: &str| {
        text.lines()
            .find(|line| line.contains(&words))
            .map(str::to_owned)
    };
    assert_eq!(line(&outcome.stdout).unwrap(), line(&plan).unwrap());
    assert_eq!(
        outcome.stderr,
        "out.partial is not there: nothing to resume, starting anew\n"
    );
    let mut names = workspace.entries("out");
    names.retain(|name| name.ends_with(".safetensors"));
    assert_eq!(names.len() as u64, files);
    let inspected = workspace.succeed(&["inspect", "out", "--json"]).json();
    let source = workspace.succeed(&["inspect", "decoder", "--json"]).json();
    assert_eq!(inspected["parameters"], source["parameters"]);

    for size in ["much", "0", "5 apples"] {
        let arguments = [
            "quantize",
            "decoder",
            "-o",
            "x",
            "--method",
            "nf4",
            "--max-shard-size",
            size,
        ];
        let text = workspace.misuse(&arguments);
        assert!(
            text.contains(&format!(
                "expected a size such as 5GB, 500MB or 2GiB, found `{size}`"
            )),
            "{text}"
        );
    }
}

/// Indexes that cannot be followed.
#[test]
fn damaged_sets_of_files_are_refused() {
    let workspace = workspace();
    let quantize = ["quantize", "decoder", "-o", "x", "--method", "nf4"];
    let index = String::from_utf8(workspace.read("decoder/model.safetensors.index.json")).unwrap();
    let tensor = "model.layers.0.self_attn.q_proj.weight";
    let entry = format!("\"{tensor}\":\"model-00001-of-00002.safetensors\"");
    assert!(index.contains(&entry));
    let twice = index.replace(
        &entry,
        &format!("{entry},\"{tensor}\":\"model-00002-of-00002.safetensors\""),
    );
    workspace.write("decoder/model.safetensors.index.json", twice);
    insta::assert_snapshot!(workspace.fail(&quantize), @r"
    error: decoder/model.safetensors.index.json: tensor `model.layers.0.self_attn.q_proj.weight`: named twice: expected one shard that holds it, found `model-00001-of-00002.safetensors` and `model-00002-of-00002.safetensors`
      hint: the index is damaged: download it again
    ");
    workspace.write("decoder/model.safetensors.index.json", index);
    let second = Path::new("decoder/model-00002-of-00002.safetensors");
    std::fs::remove_file(workspace.path(second.to_str().unwrap())).unwrap();
    insta::assert_snapshot!(workspace.fail(&quantize), @r"
    error: decoder/model.safetensors.index.json: shard `model-00002-of-00002.safetensors` is missing: expected 2 shards, found 1
      hint: download the model again, or copy the missing shard into the directory
    ");
    assert_eq!(workspace.entries("."), ["decoder", "model"]);
}
