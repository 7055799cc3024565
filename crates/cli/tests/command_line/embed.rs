//! `fewbit embed`

use crate::tiny_model::{DIMENSION, MAX_TOKENS, Outcome, Workspace};
use serde_json::Value;

const TEXTS: &str = "a small dog\n\nthe sea\r\nred";

/// The tokenizer is opened on a thread of its own: what it has to say reaches the terminal all the same.
#[test]
fn a_token_without_an_embedding_is_warned_of() {
    let workspace = Workspace::new();
    let rows = workspace.json("model/config.json")["vocab_size"]
        .as_u64()
        .unwrap() as usize;
    let pieces = String::from_utf8(workspace.read("model/vocab.txt")).unwrap();
    let mut lines: Vec<String> = pieces.lines().map(str::to_owned).collect();
    lines.extend((lines.len()..=rows).map(|id| format!("piece{id}")));
    workspace.write("texts.txt", TEXTS);
    let warning = |lines: &[String]| {
        workspace.write("model/vocab.txt", lines.join("\n"));
        let found = workspace.succeed(&[
            "embed",
            "model",
            "-i",
            "texts.txt",
            "-o",
            "out.npy",
            "--force",
        ]);
        found.stderr.contains(&format!(
            "vocab.txt: 1 of {} tokens have no row in the model's word embeddings, which are {rows}",
            rows + 1
        ))
    };
    assert!(warning(&lines));
    assert!(!warning(&lines[..rows]));
}

#[test]
fn jsonl_npy_and_safetensors_hold_the_same_values() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", TEXTS);
    let embeddings = workspace
        .succeed(&["embed", "model", "-i", "texts.txt"])
        .embeddings();
    assert_eq!(embeddings.len(), 4);
    assert!(
        embeddings
            .iter()
            .all(|embedding| embedding.len() == DIMENSION)
    );
    let bytes: Vec<u8> = embeddings
        .concat()
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();

    workspace.succeed(&["embed", "model", "-i", "texts.txt", "-o", "out.npy"]);
    let npy = workspace.read("out.npy");
    assert_eq!(&npy[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    assert_eq!(start % 64, 0);
    let header = std::str::from_utf8(&npy[10..start]).unwrap();
    assert_eq!(
        header.trim_end(),
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 32), }"
    );
    assert_eq!(&npy[start..], bytes);

    workspace.succeed(&["embed", "model", "-i", "texts.txt", "-o", "out.safetensors"]);
    let file = workspace.read("out.safetensors");
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    assert_eq!(
        header,
        serde_json::json!({"embeddings": {"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 4 * 32 * 4]}})
    );
    assert_eq!(&file[8 + length..], bytes);

    workspace.succeed(&["embed", "model", "-i", "texts.txt", "-o", "out.jsonl"]);
    assert_eq!(
        String::from_utf8(workspace.read("out.jsonl")).unwrap(),
        workspace
            .succeed(&["embed", "model", "-i", "texts.txt"])
            .stdout
    );
    assert_eq!(
        workspace.entries("."),
        [
            "model",
            "out.jsonl",
            "out.npy",
            "out.safetensors",
            "texts.txt"
        ]
    );
}

#[test]
fn the_embedding_does_not_depend_on_batches_threads_or_neighbours() {
    let workspace = Workspace::new();
    let all = Outcome::of(
        workspace
            .command(&["embed", "model", "--threads", "2"])
            .write_stdin(TEXTS),
    )
    .embeddings();
    let small = Outcome::of(
        workspace
            .command(&["embed", "model", "-i", "-", "--batch-size", "1"])
            .write_stdin(TEXTS),
    )
    .embeddings();
    assert_eq!(all, small);
    let alone = Outcome::of(
        workspace
            .command(&["embed", "model"])
            .write_stdin("the sea"),
    )
    .embeddings();
    assert_eq!(alone, all[2..3]);
}

#[test]
fn jsonl_input_takes_the_field_that_is_named() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "red\nthe sea\n");
    workspace.write(
        "texts.jsonl",
        "{\"text\": \"red\", \"title\": \"a\"}\n{\"text\": \"the sea\", \"title\": \"b\"}\n",
    );
    workspace.write("titles.json", "{\"title\": \"red\"}\n\"the sea\"\n");
    let lines = workspace
        .succeed(&["embed", "model", "-i", "texts.txt"])
        .stdout;
    assert_eq!(
        workspace
            .succeed(&["embed", "model", "-i", "texts.jsonl"])
            .stdout,
        lines
    );
    assert_eq!(
        workspace
            .succeed(&["embed", "model", "-i", "titles.json", "--field", "title"])
            .stdout,
        lines
    );
    let wrong = workspace.fail(&["embed", "model", "-i", "texts.jsonl", "--field", "body"]);
    insta::assert_snapshot!(wrong, @"
    error: texts.jsonl: line 1: expected a field `body`, found `text`, `title`
      hint: name the field that holds the text with --field
    ");
}

#[test]
fn a_cut_text_is_said_on_standard_error_and_in_the_output() {
    let workspace = Workspace::new();
    let long = "word ".repeat(100_000);
    let outcome = Outcome::of(
        workspace
            .command(&["embed", "model"])
            .write_stdin(format!("short\n{long}\n")),
    );
    assert_eq!(outcome.code, Some(0));
    let expected = format!(
        "warning: 1 of 2 texts was cut at the model's limit of {MAX_TOKENS} tokens (number 2)\n  hint: "
    );
    assert!(outcome.stderr.contains(&expected), "{}", outcome.stderr);
    let lines: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0].get("truncated"), None);
    assert_eq!(lines[1]["truncated"], Value::Bool(true));

    let summary = Outcome::of(
        workspace
            .command(&["embed", "model", "-o", "out.npy", "--json", "--force"])
            .write_stdin(format!("short\n{long}\n")),
    )
    .json();
    assert_eq!(summary["truncated"], serde_json::json!([1]));
    assert_eq!(summary["max_tokens"], MAX_TOKENS);
    assert_eq!(summary["pooling"], serde_json::json!(["mean"]));
    assert_eq!(summary["normalized"], false);
    let isa = summary["instruction_set"].as_str().unwrap();
    assert!(fewbit::kernels::Isa::parse(isa).is_some(), "{isa}");
    assert_eq!(
        (summary["texts"].as_u64(), summary["dimension"].as_u64()),
        (Some(2), Some(32))
    );
}

#[test]
fn no_texts_are_an_empty_array_and_a_warning() {
    let workspace = Workspace::new();
    let outcome = Outcome::of(
        workspace
            .command(&["embed", "model", "-o", "out.npy"])
            .write_stdin(""),
    );
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome
            .stderr
            .starts_with("warning: the input holds no texts\n"),
        "{}",
        outcome.stderr
    );
    let npy = workspace.read("out.npy");
    assert!(String::from_utf8_lossy(&npy).contains("'shape': (0, 32)"));
    assert_eq!(npy.len() % 64, 0);
}

#[test]
fn bad_input_names_file_and_line_and_leaves_no_output() {
    let workspace = Workspace::new();
    workspace.write("latin1.txt", b"ok\ncaf\xe9\n");
    insta::assert_snapshot!(workspace.fail(&["embed", "model", "-i", "latin1.txt", "-o", "out.npy"]), @"
    error: latin1.txt: line 2: expected UTF-8, found the byte 0xe9 at byte 4 of the line
      hint: convert the file to UTF-8, for instance with iconv
    ");
    insta::assert_snapshot!(workspace.fail(&["embed", "model", "-i", "absent.txt"]), @"
    error: absent.txt: cannot read the texts
      caused by: No such file or directory (os error 2)
      hint: -i names a file of texts, or is - for standard input
    ");
    insta::assert_snapshot!(workspace.fail(&["embed", "model", "-i", "model"]), @"
    error: model: cannot read the texts
      caused by: Is a directory (os error 21)
      hint: -i names a file of texts, or is - for standard input
    ");
    insta::assert_snapshot!(workspace.misuse(&["embed", "model", "-i", "latin1.txt", "-o", "out.csv"]), @"
    error: out.csv: expected an output file ending in .npy, .safetensors or .jsonl, found .csv
      hint: leave out -o for JSONL on standard output
    ");
    insta::assert_snapshot!(workspace.fail(&["embed", "model", "-o", "no/such/folder/out.npy"]), @"
    error: no/such/folder/out.npy: expected an existing directory no/such/folder, found none
      hint: create the directory first
    ");
    assert_eq!(workspace.entries("."), ["latin1.txt", "model"]);
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    use std::process::{Command, Stdio};
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a dog\n".repeat(5000));
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("fewbit"))
        .current_dir(workspace.path("."))
        .args(["embed", "model", "-i", "texts.txt"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        !String::from_utf8_lossy(&output.stderr).contains("error"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn an_output_that_is_there_is_replaced_only_with_force_and_the_input_never() {
    let workspace = Workspace::new();
    workspace.write("texts.jsonl", "\"red\"\n");
    workspace.write("out.npy", "precious");
    let embed = |output: &'static str| ["embed", "model", "-i", "texts.jsonl", "-o", output];
    insta::assert_snapshot!(workspace.fail(&embed("out.npy")), @"
    error: out.npy: output exists: expected no such path, found a file
      hint: name another output file, or replace this one with --force
    ");
    assert_eq!(workspace.read("out.npy"), b"precious");
    workspace.succeed(&[embed("out.npy").as_slice(), &["--force"]].concat());
    assert_ne!(workspace.read("out.npy"), b"precious");
    for flags in [[].as_slice(), &["--force"]] {
        let arguments = [embed("./model/../texts.jsonl").as_slice(), flags].concat();
        insta::allow_duplicates! {
            insta::assert_snapshot!(workspace.fail(&arguments), @"
            error: ./model/../texts.jsonl: expected an output file apart from the input, found the input itself
              hint: name another output file
            ");
        }
    }
    assert_eq!(workspace.read("texts.jsonl"), b"\"red\"\n");
}

#[test]
fn a_model_without_modules_json_says_how_it_pools() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "red\n");
    let said = || {
        workspace
            .succeed(&["embed", "model", "-i", "texts.txt"])
            .stderr
    };
    assert_eq!(
        said(),
        "note: the model has no modules.json: an embedding is the mean of the hidden states, not normalized\n"
    );
    workspace.write(
        "model/modules.json",
        r#"[{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}, {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#,
    );
    std::fs::create_dir(workspace.path("model/1_Pooling")).unwrap();
    workspace.write(
        "model/1_Pooling/config.json",
        r#"{"word_embedding_dimension": 32, "pooling_mode_cls_token": true}"#,
    );
    assert_eq!(said(), "");
}
