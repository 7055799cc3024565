//! What `fewbit embed` makes of the files and streams that there are.

use crate::tiny_model::{DIMENSION, Outcome, Workspace};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

const EMBED: [&str; 3] = ["embed", "model", "-i"];

fn embed(workspace: &Workspace, file: &str, flags: &[&str]) -> Outcome {
    workspace.succeed(&[&EMBED[..], &[file], flags].concat())
}

#[test]
fn a_json_file_is_rows_whether_array_or_lines() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "red\nthe sea\n");
    let lines = embed(&workspace, "texts.txt", &[]);
    for content in [
        "[{\"text\": \"red\"},\n {\"text\": \"the sea\"}]\n",
        "{\"text\": \"red\"}\n{\"text\": \"the sea\"}\n",
    ] {
        workspace.write("texts.json", content);
        let json = embed(&workspace, "texts.json", &[]);
        assert_eq!(json.stdout, lines.stdout, "{content}");
        assert!(!json.stderr.contains("warning"), "{}", json.stderr);
    }
    workspace.write("rows.txt", "red\n{\"text\": \"the sea\"}\n{}\n[1]\n");
    let said = embed(&workspace, "rows.txt", &[]).stderr;
    assert!(
        said.contains("warning: rows.txt: line 2: the line begins with `{\"`, as JSON does"),
        "{said}"
    );
    assert_eq!(said.matches("warning").count(), 1, "{said}");
    let explicit = embed(&workspace, "rows.txt", &["--input-format", "lines"]).stderr;
    assert!(!explicit.contains("warning"), "{explicit}");
}

#[test]
fn quotation_marks_of_tab_separated_values_are_text() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "\"red\nthe \"sea\"\n\"a dog\"\n");
    workspace.write(
        "rows.tsv",
        "id\ttext\n1\t\"red\n2\tthe \"sea\"\n3\t\"a dog\"\n",
    );
    let rows = embed(&workspace, "rows.tsv", &[]);
    assert_eq!(rows.stdout, embed(&workspace, "texts.txt", &[]).stdout);
    assert!(
        rows.stderr.contains("warning: rows.tsv: line 4: column `text`: a text stands between quotation marks, which are kept"),
        "{}",
        rows.stderr
    );
}

#[test]
fn several_fields_are_a_text_each() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "red\na\nthe sea\nb\n");
    // NaN and half of a surrogate pair in a field that is not read do not matter.
    workspace.write(
        "rows.jsonl",
        "{\"title\": \"red\", \"body\": \"a\", \"score\": NaN}\n{\"title\": \"the sea\", \"body\": \"b\", \"raw\": \"\\ud83d\"}\n",
    );
    let fields = ["--field", "title", "--field", "body"];
    assert_eq!(
        embed(&workspace, "rows.jsonl", &fields).stdout,
        embed(&workspace, "texts.txt", &[]).stdout
    );
}

#[test]
fn a_compression_that_is_not_supported_is_no_damage() {
    let workspace = Workspace::new();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../data/tests/golden/brotli.parquet");
    workspace.write("brotli.parquet", std::fs::read(golden).unwrap());
    insta::assert_snapshot!(workspace.fail(&[&EMBED[..], &["brotli.parquet"]].concat()), @r#"
    error: brotli.parquet: row group 1: column `text`: compression: expected one that is supported (none, snappy, gzip and zstd), found brotli, which is not supported
      hint: write the file again with another, for instance compression="zstd" of pyarrow
    "#);
}

#[test]
fn a_dash_names_standard_output() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "red\nthe sea\n");
    let dash = embed(&workspace, "texts.txt", &["-o", "-"]);
    assert_eq!(dash.stdout, embed(&workspace, "texts.txt", &[]).stdout);
    assert_eq!(workspace.entries("."), ["model", "texts.txt"]);
}

/// Rows before the one that cannot be read stay where they were printed; a file is whole or not there.
#[test]
fn what_cannot_be_read_in_the_middle_stops_there() {
    let workspace = Workspace::new();
    let rows = "{\"text\": \"red\"}\n".repeat(1000) + "{\"text\": 7}\n" + "{\"text\": \"red\"}\n";
    workspace.write("rows.jsonl", rows);
    let outcome = workspace.run(&[&EMBED[..], &["rows.jsonl"]].concat());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert_eq!(outcome.embeddings().len(), 1000);
    let error = "error: rows.jsonl: line 1001: field `text`: expected a string, found a number\n";
    assert!(outcome.stderr.contains(error), "{}", outcome.stderr);
    for output in ["out.npy", "out.safetensors", "out.jsonl"] {
        let text = workspace.fail(&[&EMBED[..], &["rows.jsonl", "-o", output]].concat());
        assert!(text.contains(error), "{text}");
    }
    assert_eq!(workspace.entries("."), ["model", "rows.jsonl"]);
}

#[test]
fn a_line_without_end_is_refused_by_its_number() {
    let workspace = Workspace::new();
    workspace.write("long.txt", "red\n".to_owned() + &"a".repeat(20 << 20));
    let outcome = workspace.run(&[&EMBED[..], &["long.txt"]].concat());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert_eq!(outcome.embeddings().len(), 1);
    assert!(
        outcome
            .stderr
            .contains("error: long.txt: line 2: expected at most 16 MiB, found a longer one\n"),
        "{}",
        outcome.stderr
    );
}

/// Whoever writes a line waits for its answer before writing the next.
#[test]
fn a_coprocess_answers_line_by_line() {
    let workspace = Workspace::new();
    for flags in [[].as_slice(), &["--batch-size", "1"]] {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("fewbit"))
            .current_dir(workspace.path("."))
            .args([&["embed", "model"], flags].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut questions = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut first = None;
        for text in ["red", "the sea", "red"] {
            writeln!(questions, "{text}").unwrap();
            questions.flush().unwrap();
            let mut answer = String::new();
            answers.read_line(&mut answer).unwrap();
            let row: serde_json::Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(row["embedding"].as_array().unwrap().len(), DIMENSION);
            if text == "red" {
                assert_eq!(*first.get_or_insert(answer.clone()), answer);
            }
        }
        drop(questions);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

/// More texts than one window has: the order is that of the input, and the header counts them all.
#[test]
fn many_texts_come_in_their_order() {
    let workspace = Workspace::new();
    let texts: Vec<String> = (0..1000u32)
        .map(|index| "ab".repeat(index as usize * 7 % 11 + 1))
        .collect();
    workspace.write("texts.txt", texts.join("\n"));
    let rows = embed(&workspace, "texts.txt", &["--batch-size", "8"]).embeddings();
    assert_eq!(rows.len(), 1000);
    for (index, row) in rows.iter().enumerate() {
        // Texts repeat after eleven.
        assert!(*row == rows[index % 11], "{index}");
    }
    assert_ne!(rows[0], rows[1]);
    embed(&workspace, "texts.txt", &["-o", "out.npy"]);
    let npy = workspace.read("out.npy");
    let start = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    assert!(
        std::str::from_utf8(&npy[10..start])
            .unwrap()
            .contains("'shape': (1000, 32), }")
    );
    let bytes: Vec<u8> = rows
        .concat()
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    assert!(npy[start..] == bytes);
}

/// An encoder and a pooling configuration in `1_Pooling`.
const MODULES: &str = r#"[{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}, {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;

/// Flags take the place of what the model's files say.
#[test]
fn pooling_length_limit_and_prompt_can_be_chosen() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "red sea\na dog\n");
    workspace.write("prompted.txt", "query red sea\nquery a dog\n");
    let plain = embed(&workspace, "texts.txt", &[]).embeddings();
    let mean = embed(
        &workspace,
        "texts.txt",
        &["--pooling", "mean", "--no-normalize"],
    );
    assert_eq!(mean.embeddings(), plain);
    assert_eq!(mean.stderr, "");
    for mode in ["cls", "max", "last"] {
        let pooled = embed(&workspace, "texts.txt", &["--pooling", mode]).embeddings();
        assert_ne!(pooled, plain, "{mode}");
        // The configuration that sentence-transformers writes gives the same.
        workspace.write("model/modules.json", MODULES);
        std::fs::create_dir_all(workspace.path("model/1_Pooling")).unwrap();
        let name = if mode == "last" { "lasttoken" } else { mode };
        let config = format!("{{\"word_embedding_dimension\": 32, \"pooling_mode\": \"{name}\"}}");
        workspace.write("model/1_Pooling/config.json", config);
        assert_eq!(
            embed(&workspace, "texts.txt", &[]).embeddings(),
            pooled,
            "{mode}"
        );
        std::fs::remove_file(workspace.path("model/modules.json")).unwrap();
    }
    for row in embed(&workspace, "texts.txt", &["--normalize"]).embeddings() {
        let length: f64 = row.iter().map(|&value| f64::from(value).powi(2)).sum();
        // 32 squares, each rounded to one part in 2^24.
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    let prompted = embed(&workspace, "prompted.txt", &[]).stdout;
    assert_eq!(
        embed(&workspace, "texts.txt", &["--prompt", "query "]).stdout,
        prompted
    );
    let by_name = |name: &str| embed(&workspace, "texts.txt", &["--prompt-name", name]);
    // Every model has a query and a document prompt, empty unless its settings have others; without modules.json they are not read.
    assert_eq!(by_name("document").embeddings(), plain);
    workspace.write(
        "model/config_sentence_transformers.json",
        r#"{"prompts": {"query": "query ", "passage": ""}, "default_prompt_name": null}"#,
    );
    let unread = by_name("query");
    assert_eq!(unread.embeddings(), plain);
    assert!(
        unread.stderr.contains(
            "config_sentence_transformers.json is not read, as there is no modules.json beside it"
        ),
        "{}",
        unread.stderr
    );
    workspace.write("model/1_Pooling/config.json", r#"{"pooling_mode": "mean"}"#);
    workspace.write("model/modules.json", MODULES);
    assert_eq!(by_name("query").stdout, prompted);
    assert_eq!(by_name("document").embeddings(), plain);
    let unknown = workspace.fail(&[&EMBED[..], &["texts.txt", "--prompt-name", "other"]].concat());
    assert!(
        unknown.contains("config_sentence_transformers.json: `prompts`: expected a prompt named `other`, found `query`, `document`, `passage`\n"),
        "{unknown}"
    );
    let cut = embed(&workspace, "texts.txt", &["--max-tokens", "5"]);
    // With [CLS] and [SEP] they are 8 and 6 tokens: a letter is one.
    assert!(
        cut.stderr
            .contains("2 of 2 texts were cut at the model's limit of 5 tokens"),
        "{}",
        cut.stderr
    );
    let long = workspace.fail(&[&EMBED[..], &["texts.txt", "--max-tokens", "600"]].concat());
    assert!(
        long.contains("max_tokens: expected at most 36, found 600\n"),
        "{long}"
    );
}

/// The parquet crate panics over this file; only our error is said.
#[test]
fn a_damaged_parquet_file_is_one_error_and_no_panic() {
    let workspace = Workspace::new();
    let seed = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds/data_rows/delta.parquet");
    let mut bytes = std::fs::read(seed).unwrap();
    // A length in a page of strings.
    bytes[43] ^= 0xff;
    workspace.write("texts.parquet", bytes);
    insta::assert_snapshot!(workspace.fail(&[&EMBED[..], &["texts.parquet"]].concat()), @r"
    error: texts.parquet: row group 1: column `text`: expected Parquet, uncompressed or compressed with snappy, gzip or zstd, found a page that contradicts the file's table of contents
      hint: the file is damaged or written as something else: write it again
    ");
}
