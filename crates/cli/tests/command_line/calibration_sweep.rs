//! `fewbit compare --calibration-sweep`

use crate::tiny_model::{Workspace, scored_pairs};
use serde_json::Value;

const TEXTS: &str = "a small dog\nthe sea\nred\na red dog\nlong walks by the sea\ntwo cats\n";

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("texts.txt", TEXTS);
    workspace.write("pairs.jsonl", scored_pairs());
    workspace
}

fn sweep<'a>(numbers: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["compare", "model", "--calibration", "texts.txt"];
    arguments.extend(["--calibration-sweep", numbers, "--threads", "1"]);
    arguments.extend(more);
    arguments
}

fn number(value: &Value, pointer: &str) -> f64 {
    let found = value.pointer(pointer).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("{pointer}: {value}"))
}

#[test]
fn every_run_is_the_model_that_quantize_makes() {
    let workspace = workspace();
    let arguments = sweep("2,6", &["--data", "pairs.jsonl", "--seed", "5", "--json"]);
    let found = workspace.succeed(&arguments).json();
    assert_eq!(found["seeds"], serde_json::json!([5, 6, 7]));
    assert_eq!((&found["inputs"], &found["texts"]), (&8.into(), &8.into()));
    let rows = found["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for (row, samples) in rows.iter().zip(["2", "6"]) {
        assert_eq!(row["samples"].to_string(), samples);
        let runs = row["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 3);
        for (spread, figure) in [
            ("mean_cosine", "/agreement/mean_cosine"),
            ("spearman", "/similarity/spearman"),
        ] {
            let values: Vec<f64> = runs.iter().map(|run| number(run, figure)).collect();
            let mean = values.iter().sum::<f64>() / 3.0;
            assert!((number(&row[spread], "/mean") - mean).abs() < 1e-12);
            let least = values.iter().copied().fold(1.0, f64::min);
            let greatest = values.iter().copied().fold(-1.0, f64::max);
            assert_eq!(number(&row[spread], "/least"), least);
            assert_eq!(number(&row[spread], "/greatest"), greatest);
        }
    }
    // All texts of the file: every seed draws the same.
    assert_eq!(
        number(&rows[1], "/mean_cosine/least"),
        number(&rows[1], "/mean_cosine/greatest")
    );

    let run = &rows[0]["runs"][1];
    let quantize = [
        "quantize",
        "model",
        "-o",
        "out",
        "--method",
        "static",
        "--calibration",
        "texts.txt",
        "--samples",
        "2",
        "--seed",
        "6",
        "--json",
    ];
    let report = workspace.succeed(&quantize).json();
    let fixed = report["recipe"]["static_inputs"].as_object().unwrap().len();
    // Three layers read the input of attention, one reads each other.
    let sensitivity = report["sensitivity"].as_array().unwrap();
    let readers = |site: &Value| site["modules"].as_array().unwrap().len();
    let all: usize = sensitivity.iter().map(readers).sum();
    let dynamic = number(run, "/dynamic_inputs") as usize;
    assert!((dynamic..=3 * dynamic).contains(&(all - fixed)), "{run}");
    let method = ["--methods", "static", "--samples", "2", "--seed", "6"];
    let files = [
        "--calibration",
        "texts.txt",
        "--data",
        "pairs.jsonl",
        "--json",
    ];
    let compared = workspace
        .succeed(
            &[
                &["compare", "model", "--threads", "1"],
                &method[..],
                &files[..],
            ]
            .concat(),
        )
        .json();
    let row = &compared["rows"][1];
    assert_eq!(row["name"], "static");
    for figure in ["/agreement/mean_cosine", "/similarity/spearman"] {
        assert_eq!(number(run, figure), number(row, figure), "{figure}");
    }
    let original = &compared["rows"][0];
    assert_eq!(
        number(&found, "/original/spearman"),
        number(original, "/similarity/spearman")
    );
}

#[test]
fn the_table_fits_and_the_steps_are_told() {
    let workspace = workspace();
    let outcome = workspace.succeed(&sweep("1,4", &["--data", "pairs.jsonl"]));
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{}",
        outcome.stdout
    );
    for start in ["(original) ", "(dynamic)  ", "1  ", "4  "] {
        let found = lines.iter().filter(|line| line.starts_with(start)).count();
        assert_eq!(found, 1, "{start}: {}", outcome.stdout);
    }
    for part in [
        "calibrated on texts of texts.txt, seeds 0, 1, 2",
        "judged by 8 texts of 4 scored pairs",
        "Spearman  ",
    ] {
        assert!(outcome.stdout.contains(part), "{part}: {}", outcome.stdout);
    }
    let steps = [
        "encoding all texts: original\ndynamic\n",
        "static, calibration texts: 1, seed 0\n",
        "static, calibration texts: 4, seed 2\n",
    ];
    for step in steps {
        assert!(outcome.stderr.contains(step), "{step}: {}", outcome.stderr);
    }
    let unscored = workspace.succeed(&sweep("1", &[])).stdout;
    assert!(unscored.contains("built into fewbit"), "{unscored}");
    assert!(!unscored.contains("Spearman"), "{unscored}");
}

#[test]
fn numbers_that_cannot_be_swept_are_refused() {
    let workspace = workspace();
    let first = |text: String| text.lines().next().unwrap().to_owned();
    insta::assert_snapshot!(workspace.fail(&sweep("1,7", &[])), @"
    error: texts.txt: expected at least 7 texts, found 6
      hint: give a file of more texts, or ask for fewer samples
    ");
    insta::assert_snapshot!(first(workspace.misuse(&sweep("1,0", &[]))), @"error: invalid value '0' for '--calibration-sweep <N,N>': expected a number of texts, 1 or more");
    insta::assert_snapshot!(first(workspace.misuse(&sweep("1,few", &[]))), @"error: invalid value 'few' for '--calibration-sweep <N,N>': expected a number of texts, 1 or more");
    insta::assert_snapshot!(first(workspace.misuse(&sweep("-4", &[]))), @"error: invalid value '-4' for '--calibration-sweep <N,N>': expected a number of texts, 1 or more");
    insta::assert_snapshot!(workspace.misuse(&sweep("4,1,4", &[])), @"
    error: --calibration-sweep: expected each number once, found 4 twice
      hint: each is drawn with 3 seeds
    ");
    let without = workspace.misuse(&["compare", "model", "--calibration-sweep", "1"]);
    assert!(without.contains("--calibration <FILE>"), "{without}");
    for more in [
        ["--methods", "nf4"],
        ["--samples", "4"],
        ["--keep", "kept"],
        ["--max-drop", "1"],
        ["--stats", "a.json"],
    ] {
        let refused = workspace.misuse(&sweep("1", &more));
        assert!(refused.contains("cannot be used with"), "{refused}");
    }
    assert!(!workspace.path("kept").exists());
}
