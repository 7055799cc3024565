//! What `fewbit bench` refuses, and how it fails.

use crate::tiny_model::{Outcome, Workspace};
use serde_json::{Value, json};

#[test]
fn numbers_that_make_no_sense_are_wrong_usage() {
    let workspace = Workspace::new();
    let first_line = |flag: &str, value: &str| {
        let text = workspace.misuse(&["bench", "model", flag, value]);
        text.lines().next().unwrap_or_default().to_owned()
    };
    insta::assert_snapshot!(first_line("--batch", "0"), @"error: invalid value '0' for '--batch <N,N>': expected 1 to 65536");
    insta::assert_snapshot!(first_line("--batch", ""), @"error: invalid value '' for '--batch <N,N>': expected 1 to 65536");
    insta::assert_snapshot!(first_line("--batch", "1,,8"), @"error: invalid value '' for '--batch <N,N>': expected 1 to 65536");
    insta::assert_snapshot!(first_line("--batch", "8,-1"), @"error: invalid value '-1' for '--batch <N,N>': expected 1 to 65536");
    insta::assert_snapshot!(first_line("--batch", "99999999999999999999999"), @"error: invalid value '99999999999999999999999' for '--batch <N,N>': expected 1 to 65536");
    insta::assert_snapshot!(first_line("--batch", "1,8,1"), @"error: --batch: expected each number once, found 1 twice");
    insta::assert_snapshot!(first_line("--tokens", "0"), @"error: invalid value '0' for '--tokens <N,N>': expected 1 to 65536");
    insta::assert_snapshot!(first_line("--tokens", "16x"), @"error: invalid value '16x' for '--tokens <N,N>': expected 1 to 65536");
    insta::assert_snapshot!(first_line("--tokens", "16,16"), @"error: --tokens: expected each number once, found 16 twice");
    insta::assert_snapshot!(first_line("--threads", "1,1025"), @"error: invalid value '1025' for '--threads <N,N>': expected 1 to 1024");
    insta::assert_snapshot!(first_line("--threads", "2,2"), @"error: --threads: expected each number once, found 2 twice");
    insta::assert_snapshot!(first_line("--seconds", "0"), @"error: invalid value '0' for '--seconds <X>': expected a number above 0, at most 600");
    insta::assert_snapshot!(first_line("--seconds", "nan"), @"error: invalid value 'nan' for '--seconds <X>': expected a number above 0, at most 600");
    insta::assert_snapshot!(first_line("--seconds", "inf"), @"error: invalid value 'inf' for '--seconds <X>': expected a number above 0, at most 600");
    insta::assert_snapshot!(first_line("--seconds", "-1"), @"error: invalid value '-1' for '--seconds <X>': expected a number above 0, at most 600");
    insta::assert_snapshot!(first_line("--rounds", "0"), @"error: invalid value '0' for '--rounds <N>': expected 1 to 1000");
    insta::assert_snapshot!(workspace.misuse(&["bench"]).lines().next().unwrap_or_default(), @"error: the following required arguments were not provided:");
    insta::assert_snapshot!(workspace.misuse(&["bench", "model", ""]), @"
    error: MODEL is empty
      hint: name a model directory or a Hub id
    ");
}

#[test]
fn what_cannot_be_measured_is_refused_and_says_why() {
    let workspace = Workspace::new();
    let refused = |arguments: &[&str]| {
        let text = workspace.fail(&[&["bench"], arguments].concat());
        // What was done until then is said, too.
        text.split_inclusive('\n')
            .filter(|line| !line.starts_with("opening: "))
            .collect::<String>()
    };
    insta::assert_snapshot!(refused(&["model", "./absent"]), @"
    error: ./absent: no such directory, and not a Hub id
      hint: a Hub id has the form `owner/name` or `owner/name@revision`
    ");
    insta::assert_snapshot!(refused(&["model", "--tokens", "16,37"]), @"
    error: model: tokens: expected at most 36, found 37
      hint: this model has 36 positions; give other numbers with --tokens
    ");
    insta::assert_snapshot!(refused(&["model", "--tokens", "32", "--batch", "1,65536"]), @"
    error: a batch of 65536 with 32 tokens each: expected at most 1048576 tokens in all, found 2097152
      hint: measure a smaller batch; beyond some hundreds of tokens, the time of a batch grows with its size
    ");
    insta::assert_snapshot!(refused(&["model", "--texts", "absent.txt"]), @"
    error: absent.txt: No such file or directory (os error 2)
      hint: check the path, and that you may read it
    ");
    workspace.write("empty.txt", "");
    insta::assert_snapshot!(refused(&["model", "--texts", "empty.txt"]), @"
    error: empty.txt: expected at least one text, found 0
      hint: every line is a text
    ");
    workspace.write("other.jsonl", "{\"sentence\": \"a\"}\n");
    insta::assert_snapshot!(refused(&["model", "--texts", "other.jsonl"]), @"
    error: other.jsonl: line 1: expected a field `text`, found `sentence`
      hint: name the field that holds the text with --field
    ");
    std::fs::remove_file(workspace.path("model/vocab.txt")).unwrap();
    insta::assert_snapshot!(refused(&["model"]), @"
    error: model: expected tokenizer.json, or a WordPiece vocab.txt, found neither
      hint: `AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes tokenizer.json
    ");
}

#[test]
fn an_instruction_set_that_cannot_be_had_is_refused() {
    let workspace = Workspace::new();
    let outcome = Outcome::of(
        workspace
            .command(&["bench", "model"])
            .env("FEWBIT_ISA", "mmx"),
    );
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    assert!(
        outcome
            .stderr
            .contains("error: FEWBIT_ISA: unknown instruction set"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn the_hidden_command_answers_line_by_line_and_refuses_anything_else() {
    let workspace = Workspace::new();
    let mut command = workspace.command(&["measure-one-model"]);
    let open = json!({"open": {"directory": "model", "output": "embeddings"}});
    let asked = Outcome::of(command.write_stdin(format!("\"memory\"\n{open}\n")));
    let answers: Vec<Value> = asked
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        answers[0],
        json!({"failed": "the request is about an open model, and none is open"})
    );
    assert_eq!(answers[1]["done"]["checkpoint_directory"], "model");
    assert_eq!((answers.len(), asked.code), (2, Some(0)));
    let nonsense = Outcome::of(
        workspace
            .command(&["measure-one-model"])
            .write_stdin("nonsense\n"),
    );
    assert_eq!((nonsense.code, nonsense.stdout.as_str()), (Some(1), ""));
    assert!(
        nonsense
            .stderr
            .starts_with("error: the request is not one that fewbit sends to itself\n"),
        "{}",
        nonsense.stderr
    );
}

/// As the system does where memory runs out.
#[cfg(target_os = "linux")]
#[test]
fn a_measuring_process_that_is_killed_is_an_error_and_no_result() {
    use std::process::{Command, Stdio};

    let workspace = Workspace::new();
    let program = Command::new(assert_cmd::cargo::cargo_bin("fewbit"))
        .current_dir(workspace.path("."))
        .args([
            "bench",
            "model",
            "--batch",
            "1",
            "--tokens",
            "4",
            "--threads",
            "1",
        ])
        // It is over when the process is gone, not before.
        .args(["--seconds", "600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = program.id();
    // The first child is the one that holds the model until the end.
    let child = loop {
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        if let Some(first) = children.split_whitespace().next() {
            break first.to_owned();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(
        Command::new("kill")
            .args(["-9", &child])
            .status()
            .unwrap()
            .success()
    );
    let output = program.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(1), &[][..]),
        "{stderr}"
    );
    assert!(
        stderr.contains("error: model: measuring in a process of its own: it ended with signal: 9 (SIGKILL)\n  hint: "),
        "{stderr}"
    );
}
