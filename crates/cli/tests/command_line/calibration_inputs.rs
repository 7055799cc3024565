//! What `fewbit calibrate` reads, and how it goes on after an interruption.

use crate::tiny_model::Workspace;
use std::path::Path;

/// Statistics by the least work: one range a site.
const CALIBRATE: [&str; 4] = ["calibrate", "model", "--observer", "min-max"];

fn calibrate(workspace: &Workspace, file: &str, stats: &str, flags: &[&str]) -> String {
    let files = ["--calibration", file, "--stats", stats];
    workspace
        .succeed(&[&CALIBRATE[..], &files, flags].concat())
        .stderr
}

fn refused(workspace: &Workspace, file: &str, flags: &[&str]) -> String {
    let files = ["--calibration", file, "--stats", "none.json"];
    workspace.fail(&[&CALIBRATE[..], &files, flags].concat())
}

/// A file that pyarrow wrote, and the same rows as JSONL.
fn golden(workspace: &Workspace, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tests/golden");
    workspace.write(name, std::fs::read(folder.join(name)).unwrap());
}

#[test]
fn the_same_texts_give_the_same_bytes_from_every_format() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a small dog\nthe sea\nred, blue\na red dog\n");
    workspace.write(
        "texts.jsonl",
        "{\"text\": \"a small dog\"}\n\"the sea\"\n{\"text\": \"red, blue\", \"label\": 1}\n{\"text\": \"a red dog\"}\n",
    );
    workspace.write(
        "texts.csv",
        "label,text\n0,a small dog\n1,the sea\n1,\"red, blue\"\n0,a red dog\n",
    );
    workspace.write(
        "texts.tsv",
        "first\tsecond\na small dog\tthe sea\nred, blue\ta red dog\n",
    );
    let four = ["--samples", "4"];
    calibrate(&workspace, "texts.txt", "lines.json", &four);
    let two_columns = [
        "--batches",
        "2",
        "--batch-size",
        "2",
        "--field",
        "first",
        "--field",
        "second",
    ];
    for (file, flags) in [
        ("texts.jsonl", &four[..]),
        ("texts.csv", &four),
        ("texts.tsv", &two_columns),
    ] {
        let stats = format!("{file}.json");
        calibrate(&workspace, file, &stats, flags);
        assert_eq!(
            workspace.read(&stats),
            workspace.read("lines.json"),
            "{file}"
        );
    }
    let lines = workspace.succeed(&["embed", "model", "-i", "texts.txt"]);
    let csv = workspace.succeed(&["embed", "model", "-i", "texts.csv"]);
    assert_eq!(csv.stdout, lines.stdout);
}

#[test]
fn parquet_gives_the_bytes_of_the_same_rows_in_jsonl() {
    let workspace = Workspace::new();
    for name in ["rows.jsonl", "snappy.parquet", "zstd.parquet"] {
        golden(&workspace, name);
    }
    let texts = ["--samples", "300", "--seed", "7"];
    let ids = [&texts[..], &["--input-ids-column", "input_ids"]].concat();
    for (kind, flags) in [("texts", &texts[..]), ("ids", &ids)] {
        let stats = |file: &str| format!("{file}.{kind}.json");
        for file in ["rows.jsonl", "snappy.parquet", "zstd.parquet"] {
            calibrate(&workspace, file, &stats(file), flags);
            assert_eq!(
                workspace.read(&stats(file)),
                workspace.read(&stats("rows.jsonl")),
                "{file}: {kind}"
            );
        }
        let embedded = workspace.succeed(&["embed", "model", "-i", "snappy.parquet"]);
        assert_eq!(embedded.embeddings().len(), 600);
    }
    assert_ne!(
        workspace.read("rows.jsonl.texts.json"),
        workspace.read("rows.jsonl.ids.json")
    );
    let piped = workspace.fail(&["embed", "model", "--input-format", "parquet"]);
    assert!(
        piped.contains("standard input: expected lines, JSON, CSV or TSV, found Parquet"),
        "{piped}"
    );
}

/// `a` is 5 and so on, [CLS] 2, [SEP] 3.
#[test]
fn tokenized_rows_take_the_place_of_texts() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a\nb\n");
    workspace.write(
        "ids.jsonl",
        "{\"input_ids\": [2, 5, 3, 0], \"attention_mask\": [1, 1, 1, 0]}\n{\"input_ids\": [2, 6, 3]}\n",
    );
    workspace.write(
        "student.jsonl",
        "{\"student_input_ids\": [2, 5, 3, 0], \"student_attention_mask\": [1, 1, 1, 0], \"m\": [1, 1, 1, 1]}\n\
         {\"student_input_ids\": [0, 2, 6, 3], \"student_attention_mask\": [0, 1, 1, 1], \"m\": [1, 1, 1, 1]}\n",
    );
    let two = ["--samples", "2"];
    calibrate(&workspace, "texts.txt", "texts.json", &two);
    let note = calibrate(&workspace, "ids.jsonl", "ids.json", &two);
    assert!(
        note.contains(
            "ids.jsonl: no column `text`: calibrating with the token ids of `input_ids`\n"
        ),
        "{note}"
    );
    let student = ["--samples", "2", "--input-ids-column", "student_input_ids"];
    calibrate(&workspace, "student.jsonl", "student.json", &student);
    for stats in ["ids.json", "student.json"] {
        assert_eq!(
            workspace.read(stats),
            workspace.read("texts.json"),
            "{stats}"
        );
    }
    let unmasked = [&student[..], &["--attention-mask-column", "m"]].concat();
    calibrate(&workspace, "student.jsonl", "unmasked.json", &unmasked);
    assert_eq!(workspace.json("unmasked.json")["tokens"], 8);
    // The sensitivity pass reads ids, too.
    let quantize = ["quantize", "model", "-o", "out", "--method", "static"];
    workspace.succeed(&[&quantize[..], &["--calibration", "student.jsonl"], &student].concat());
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let workspace = Workspace::new();
    workspace.write("t.csv", "score,sentence\n1,a\n2,\n");
    insta::assert_snapshot!(refused(&workspace, "t.csv", &["--samples", "2"]), @r"
    error: t.csv: line 1: expected a column `text`, found `score`, `sentence`
      hint: name the column that holds the text with --field
    ");
    insta::assert_snapshot!(refused(&workspace, "t.csv", &["--input-ids-column", "score"]), @r"
    error: t.csv: line 1: column `score`: expected a list of integers, found a CSV file, whose cells hold one value each
      hint: write tokenized rows as JSONL or Parquet
    ");
    workspace.write("t.parquet", "score,sentence\n1,a\n2,\n");
    insta::assert_snapshot!(refused(&workspace, "t.parquet", &[]), @r"
    error: t.parquet: expected Parquet, uncompressed or compressed with snappy, gzip or zstd, found Invalid Parquet file. Corrupt footer
      hint: the file is damaged or written as something else: write it again
    ");
    workspace.write(
        "ids.jsonl",
        "{\"input_ids\": [2, 3]}\n{\"input_ids\": [2, 900, 3]}\n",
    );
    insta::assert_snapshot!(refused(&workspace, "ids.jsonl", &["--samples", "1"]), @r"
    ids.jsonl: no column `text`: calibrating with the token ids of `input_ids`
    error: ids.jsonl: line 2: field `input_ids`: expected numbers from 0 to 79, found 900 at position 2
      hint: the ids are those of another model's tokenizer, or damaged
    ");
    workspace.write("long.jsonl", format!("{{\"input_ids\": {:?}}}\n", [5; 200]));
    insta::assert_snapshot!(refused(&workspace, "long.jsonl", &["--samples", "1"]), @r"
    long.jsonl: no column `text`: calibrating with the token ids of `input_ids`
    error: long.jsonl: line 1: field `input_ids`: expected at most 36 tokens, found 200
      hint: the model has no positions beyond that: tokenize with truncation
    ");
    workspace.write("few.jsonl", "{\"input_ids\": [2, 3]}\n");
    insta::assert_snapshot!(refused(&workspace, "few.jsonl", &["--batches", "2"]), @r"
    few.jsonl: no column `text`: calibrating with the token ids of `input_ids`
    error: few.jsonl: expected at least 64 rows, found 1
      hint: give a file of more rows, or ask for fewer samples
    ");
    assert!(!workspace.path("none.json").exists());
    let misuse = |flags: &[&str]| {
        let files = ["--calibration", "t.csv", "--stats", "none.json"];
        let text = workspace.misuse(&[&CALIBRATE[..], &files, flags].concat());
        text.lines().next().unwrap_or_default().to_owned()
    };
    insta::assert_snapshot!(misuse(&["--samples", "2", "--batches", "2"]), @"error: the argument '--samples <N>' cannot be used with '--batches <N>'");
    insta::assert_snapshot!(misuse(&["--batches", "0"]), @"error: invalid value '0' for '--batches <N>': expected 1 to 1000000000");
    insta::assert_snapshot!(misuse(&["--field", "a", "--input-ids-column", "b"]), @"error: the argument '--field <NAME>' cannot be used with '--input-ids-column <NAME>'");
}

#[test]
fn blank_texts_are_passed_over_and_counted() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a small dog\nthe sea\n");
    workspace.write("gaps.txt", "\na small dog\n  \nthe sea\n\n");
    workspace.write("gaps.csv", "id,text\n1,a small dog\n2,\n3,the sea\n");
    workspace.write("rows.json", "[{\"text\": \"a small dog\"}, \"the sea\"]");
    let note = calibrate(&workspace, "texts.txt", "texts.json", &[]);
    assert!(
        note.contains(
            "texts.txt: 2 texts, fewer than the usual 256: calibrating with all of them\n"
        ),
        "{note}"
    );
    for (file, blank) in [
        ("gaps.txt", "gaps.txt: 3 blank texts were passed over\n"),
        ("gaps.csv", "gaps.csv: 1 blank text was passed over\n"),
        ("rows.json", ""),
    ] {
        let stats = format!("{file}.stats");
        let note = calibrate(&workspace, file, &stats, &["--samples", "2"]);
        assert_eq!(note, blank, "{file}");
        assert!(
            workspace.read(&stats) == workspace.read("texts.json"),
            "{file}"
        );
    }
    workspace.write("blank.txt", "\n\n");
    let none = refused(&workspace, "blank.txt", &[]);
    assert!(
        none.contains("blank.txt: expected at least 1 texts, found 0\n"),
        "{none}"
    );
    let few = refused(&workspace, "gaps.txt", &["--samples", "3"]);
    assert!(
        few.contains("gaps.txt: expected at least 3 texts, found 2\n"),
        "{few}"
    );
}

/// Merged with itself, a file would count every text twice.
#[test]
fn the_same_statistics_are_not_merged_twice() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a\nb\n");
    calibrate(&workspace, "texts.txt", "s.json", &[]);
    workspace.write("copy.json", workspace.read("s.json"));
    // The same statistics, however they are written.
    let statistics = workspace.json("s.json");
    workspace.write(
        "pretty.json",
        serde_json::to_string_pretty(&statistics).unwrap(),
    );
    std::fs::create_dir(workspace.path("folder")).unwrap();
    let quantize = ["quantize", "model", "-o", "out", "--method", "static"];
    for second in ["s.json", "folder/../s.json", "copy.json", "pretty.json"] {
        let text =
            workspace.fail(&[&quantize[..], &["--stats", "s.json", "--stats", second]].concat());
        assert!(
            text.contains(&format!(
                "{second}: expected statistics of other texts, found those of s.json again\n"
            )),
            "{text}"
        );
    }
    assert!(!workspace.path("out").exists());
}

#[test]
fn a_number_of_samples_is_one_or_more_and_belongs_to_a_calibration() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a\nb\n");
    for number in ["0", "-3"] {
        let files = [
            "--calibration",
            "texts.txt",
            "--stats",
            "s.json",
            "--samples",
            number,
        ];
        let text = workspace.misuse(&[&CALIBRATE[..], &files].concat());
        let expected = format!(
            "error: invalid value '{number}' for '--samples <N>': expected a number of texts, 1 or more"
        );
        assert!(text.starts_with(&expected), "{text}");
    }
    let dynamic = [
        "quantize",
        "model",
        "-o",
        "out",
        "--method",
        "dynamic",
        "--samples",
        "4",
    ];
    let text = workspace.misuse(&dynamic);
    assert!(
        text.contains(
            "flags of calibration do not go with the method `dynamic`, which is not calibrated\n"
        ),
        "{text}"
    );
}

#[test]
fn partial_statistics_are_not_passed_over() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a\nb\n");
    let note = calibrate(
        &workspace,
        "texts.txt",
        "s.json",
        &["--samples", "2", "--resume"],
    );
    assert!(
        note.contains("s.json.partial is not there: nothing to resume"),
        "{note}"
    );
    assert_eq!(workspace.entries("."), ["model", "s.json", "texts.txt"]);
    workspace.write("none.json.partial", "{\"run\": ");
    insta::assert_snapshot!(refused(&workspace, "texts.txt", &["--samples", "2"]), @r"
    error: none.json.partial: expected no file, found the statistics of a calibration that was interrupted
      hint: go on with --resume, or remove the file to start again
    ");
    insta::assert_snapshot!(refused(&workspace, "texts.txt", &["--samples", "2", "--resume"]), @r"
    error: none.json.partial: expected partial statistics that `fewbit calibrate` wrote, found EOF while parsing a value at line 1 column 8
      hint: the file is damaged or was edited: remove it and calibrate again without --resume
    ");
    assert_eq!(workspace.read("none.json.partial"), b"{\"run\": ");
}

/// The signal comes after the first statistics are saved and long before the last.
#[cfg(unix)]
#[test]
fn an_interrupted_calibration_resumes_to_the_same_bytes() {
    use std::process::{Command, Stdio};
    let workspace = Workspace::new();
    let texts: String = (0..20_000u32)
        .map(|index| format!("the {} dog\n", "ab".repeat(index as usize % 9 + 1)))
        .collect();
    workspace.write("texts.txt", texts);
    let flags = ["--samples", "20000", "--batch-size", "1"];
    for signal in ["-TERM", "-KILL"] {
        let stats = format!("stats{signal}.json");
        let partial = format!("{stats}.partial");
        let files = ["--calibration", "texts.txt", "--stats", &stats];
        let arguments = [&CALIBRATE[..], &files, &flags].concat();
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("fewbit"))
            .current_dir(workspace.path("."))
            .args(&arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !workspace.path(&partial).exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let kill = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        let code = child.wait().unwrap().code();
        assert_eq!(code, (signal == "-TERM").then_some(143));
        let entries = workspace.entries(".");
        assert!(entries.contains(&partial) && !entries.contains(&stats));
        assert!(
            entries.iter().all(|name| !name.starts_with('.')),
            "{entries:?}"
        );

        let again = workspace.fail(&arguments);
        assert!(again.contains("go on with --resume"), "{again}");
        let other = [&arguments[..], &["--resume", "--seed", "1"]].concat();
        let other = workspace.fail(&other);
        assert!(other.contains("seed: expected 1, found 0"), "{other}");
        let resumed = workspace
            .succeed(&[&arguments[..], &["--resume", "--json"]].concat())
            .json();
        assert_eq!(resumed["samples"], 20_000);
        assert!(resumed["resumed_after"].as_u64().unwrap() >= 1, "{resumed}");
        assert!(!workspace.path(&partial).exists());
    }
    calibrate(&workspace, "texts.txt", "whole.json", &flags);
    for stats in ["stats-TERM.json", "stats-KILL.json"] {
        assert!(
            workspace.read(stats) == workspace.read("whole.json"),
            "{stats}"
        );
    }
}
