//! Signals, killed processes, and outputs that are in somebody's way.
#![cfg(unix)]

use crate::tiny_model::Workspace;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A command that is at work until somebody writes to the pipe `texts.txt`.
struct AtWork {
    child: Child,
    texts: File,
}

impl AtWork {
    /// Returns when the command reads its texts: signals are handled then, and what can be refused early was.
    fn start(workspace: &Workspace, before: &str, arguments: &[&str]) -> Self {
        let pipe = workspace.path("texts.txt");
        let _ = fs::remove_file(&pipe);
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        let child = Command::new("sh")
            .current_dir(workspace.path("."))
            .args(["-c", &format!("{before} exec \"$0\" \"$@\"")])
            .arg(assert_cmd::cargo::cargo_bin("fewbit"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Opening waits for the other side.
        let texts = File::options().write(true).open(pipe).unwrap();
        AtWork { child, texts }
    }

    fn send(&self, signal: &str) {
        send(&self.child, signal);
    }

    /// Exit code and both streams.
    fn end(self) -> (Option<i32>, String) {
        let output = self.child.wait_with_output().unwrap();
        drop(self.texts);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }
}

fn send(child: &Child, signal: &str) {
    let status = Command::new("kill")
        .args([format!("-{signal}"), child.id().to_string()])
        .stderr(Stdio::null())
        .status();
    // A process that is done is still there to be signalled until it is waited for.
    assert!(status.unwrap().success());
}

const EMBED: [&str; 6] = ["embed", "model", "-i", "texts.txt", "-o", "out.npy"];

#[test]
fn each_signal_has_its_exit_code() {
    let workspace = Workspace::new();
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let at_work = AtWork::start(&workspace, "", &EMBED);
        at_work.send(signal);
        assert_eq!(at_work.end(), (Some(code), String::new()), "{signal}");
        assert_eq!(workspace.entries("."), ["model", "texts.txt"]);
    }
}

#[test]
fn a_second_signal_changes_nothing() {
    let workspace = Workspace::new();
    let at_work = AtWork::start(&workspace, "", &EMBED);
    at_work.send("INT");
    at_work.send("INT");
    assert_eq!(at_work.end(), (Some(130), String::new()));
    assert_eq!(workspace.entries("."), ["model", "texts.txt"]);
}

/// What `nohup` asks for.
#[test]
fn an_ignored_hangup_stays_ignored() {
    let workspace = Workspace::new();
    let at_work = AtWork::start(&workspace, "trap '' HUP;", &EMBED);
    at_work.send("HUP");
    at_work.send("TERM");
    assert_eq!(at_work.end().0, Some(143));
}

#[test]
fn a_file_that_appears_meanwhile_stays() {
    let workspace = Workspace::new();
    for output in ["out.npy", "out.safetensors", "out.jsonl"] {
        let arguments = [&EMBED[..5], &[output]].concat();
        let mut at_work = AtWork::start(&workspace, "", &arguments);
        workspace.write(output, "precious");
        at_work.texts.write_all(b"a cat\n").unwrap();
        at_work.texts = File::open("/dev/null").unwrap();
        let (code, text) = at_work.end();
        assert_eq!(code, Some(1), "{text}");
        assert!(
            text.contains(&format!(
                "error: {output}: output exists: expected no such path, found a file"
            )),
            "{text}"
        );
        assert_eq!(workspace.read(output), b"precious");
        assert!(
            workspace
                .entries(".")
                .iter()
                .all(|name| !name.starts_with('.'))
        );
    }
}

#[test]
fn a_dangling_link_is_no_output() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a cat\na dog\n");
    for (link, arguments) in [
        (
            "out",
            &["quantize", "model", "--method", "dynamic", "-o", "out"][..],
        ),
        ("out.npy", &EMBED),
        (
            "stats.json",
            &[
                "calibrate",
                "model",
                "--calibration",
                "texts.txt",
                "--samples",
                "2",
                "--stats",
                "stats.json",
            ],
        ),
    ] {
        symlink("nowhere", workspace.path(link)).unwrap();
        let before = workspace.entries(".");
        let text = workspace.fail(arguments);
        assert!(
            text.ends_with(&format!("error: {link}: cannot be an output: expected no such path, found a link to nowhere, which does not exist\n  hint: remove the link, or name the path that it should lead to\n")),
            "{text}"
        );
        assert_eq!(workspace.entries("."), before);
    }
}

#[test]
fn outputs_follow_the_umask() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a cat\na dog\n");
    let run = |arguments: &str| {
        let status = Command::new("sh")
            .current_dir(workspace.path("."))
            .args(["-c", &format!("umask 027; \"$0\" {arguments}")])
            .arg(assert_cmd::cargo::cargo_bin("fewbit"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "{arguments}");
    };
    run("calibrate model --calibration texts.txt --samples 2 --stats stats.json");
    run("quantize model --method dynamic -o out");
    run("embed model -i texts.txt -o out.npy");
    let mode = |name: &str| {
        fs::metadata(workspace.path(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    for (name, expected) in [
        ("stats.json", 0o640),
        ("out", 0o750),
        ("out/config.json", 0o640),
        ("out/model.safetensors", 0o640),
        ("out/recipe.toml", 0o640),
        ("out.npy", 0o640),
    ] {
        assert_eq!(mode(name), expected, "{name}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_an_error() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a cat\n");
    let output = Command::new(assert_cmd::cargo::cargo_bin("fewbit"))
        .current_dir(workspace.path("."))
        .args(["embed", "model", "-i", "texts.txt"])
        .stdout(File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("cannot write to standard output\n  caused by: No space left on device"),
        "{text}"
    );
}

/// Paths as a killed process leaves them, and one of a process that lives.
#[test]
fn the_next_run_removes_what_killed_processes_left() {
    let workspace = Workspace::new();
    let temporary = workspace.path("tmp");
    for (file, bytes) in [
        (".out.fewbit-partial-killed/.fewbit-lock", ""),
        (".out.fewbit-partial-killed/model/model.safetensors", "1234"),
        (".old.fewbit-partial-killed/.fewbit-lock", ""),
        (".old.fewbit-partial-killed/old/config.json", "{}"),
        (".fewbit-killed.partial", "12345678"),
        ("stats.json.partial", "for --resume"),
        ("tmp/fewbit-compare-killed/.fewbit-lock", ""),
        ("tmp/fewbit-compare-killed/dynamic/config.json", "{}"),
        ("tmp/fewbit-measure-killed/.fewbit-lock", ""),
        ("tmp/fewbit-measure-living/.fewbit-lock", ""),
        ("tmp/fewbit-compare-others/precious", ""),
    ] {
        fs::create_dir_all(workspace.path(file).parent().unwrap()).unwrap();
        workspace.write(file, bytes);
    }
    let living = File::options()
        .write(true)
        .open(workspace.path("tmp/fewbit-measure-living/.fewbit-lock"))
        .unwrap();
    living.lock().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = workspace.command(arguments);
        let output = command.env("TMPDIR", &temporary).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        (String::from_utf8(output.stdout).unwrap(), text)
    };

    let listed: serde_json::Value = serde_json::from_str(&run(&["doctor", "--json"]).0).unwrap();
    let here = |name: &str| temporary.join(name).to_str().unwrap().to_owned();
    let listed = &listed["leftovers"];
    assert_eq!(
        *listed,
        serde_json::json!([
            {"path": here("fewbit-compare-killed"), "bytes": 2},
            {"path": here("fewbit-measure-killed"), "bytes": 0},
            {"path": "./.fewbit-killed.partial", "bytes": 8},
            {"path": "./.old.fewbit-partial-killed", "bytes": 2, "restores": "./old"},
            {"path": "./.out.fewbit-partial-killed", "bytes": 4},
        ])
    );
    let (text, _) = run(&["doctor"]);
    assert!(
        text.contains("left behind      ./.out.fewbit-partial-killed (4 "),
        "{text}"
    );
    assert!(
        text.contains(": the only copy of the old model ./old\n"),
        "{text}"
    );
    assert!(
        text.contains("the next quantize, calibrate, embed or compare"),
        "{text}"
    );

    let (_, text) = run(&["quantize", "model", "--method", "dynamic", "-o", "out"]);
    assert!(text.contains("old: the old model is back"), "{text}");
    assert_eq!(
        workspace.entries("tmp"),
        ["fewbit-compare-others", "fewbit-measure-living"]
    );
    assert_eq!(
        workspace.entries("."),
        ["model", "old", "out", "stats.json.partial", "tmp"]
    );
    assert_eq!(workspace.read("old/config.json"), b"{}");
    drop(living);
    assert!(run(&["doctor"]).0.contains("fewbit-measure-living"));
    run(&[
        "embed",
        "model",
        "-i",
        "stats.json.partial",
        "-o",
        "out.npy",
    ]);
    assert_eq!(workspace.entries("tmp"), ["fewbit-compare-others"]);
}

/// Signals at moments that lie evenly over the time of a conversion. Whenever they come, the output is the old one or the new one.
#[test]
fn an_interrupted_conversion_leaves_a_whole_model() {
    const TRIALS: u32 = 20;
    let workspace = Workspace::new();
    let convert = [
        "quantize", "model", "--method", "dynamic", "--force", "-o", "out",
    ];
    let files = |name: &str| -> Vec<(String, Vec<u8>)> {
        let names = workspace.entries(name).into_iter();
        names
            .map(|file| (file.clone(), workspace.read(&format!("{name}/{file}"))))
            .collect()
    };
    workspace.succeed(&["quantize", "model", "--method", "nf4", "-o", "out"]);
    let old = files("out");
    let start = std::time::Instant::now();
    workspace.succeed(&convert);
    let time = start.elapsed();
    let new = files("out");
    assert!(old != new);
    for trial in 0..TRIALS {
        fs::remove_dir_all(workspace.path("out")).unwrap();
        copy(&old, &workspace.path("out"));
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("fewbit"))
            .current_dir(workspace.path("."))
            .args(convert)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(time * trial / TRIALS);
        send(&child, "INT");
        let code = child.wait().unwrap().code();
        let found = files("out");
        assert!(found == new || found == old, "{trial}: {code:?}");
        // None: the signal came before the program had started.
        match code {
            Some(0) => assert!(found == new, "{trial}"),
            None => assert!(found == old, "{trial}"),
            code => assert_eq!(code, Some(130), "{trial}"),
        }
        assert_eq!(workspace.entries("."), ["model", "out"], "{trial}");
    }
}

fn copy(files: &[(String, Vec<u8>)], directory: &Path) {
    fs::create_dir(directory).unwrap();
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).unwrap();
    }
}
