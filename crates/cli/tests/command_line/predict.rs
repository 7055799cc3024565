//! `fewbit predict`

use crate::tiny_model::{Outcome, Workspace};
use serde_json::{Value, json};
use std::path::Path;

/// What the pipeline of transformers makes of the golden model's texts.
fn expected(golden: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../model/tests/golden/predictions")
        .join(golden)
        .join("expected.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn lines(outcome: &Outcome) -> Vec<Value> {
    let lines = outcome.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn jsonl(rows: &[Value]) -> String {
    rows.iter().map(|row| row.to_string() + "\n").collect()
}

/// The same but for scores, which differ by no more than what `model/tests/model/predictions.rs` derives.
fn assert_same(found: &Value, expected: &Value) {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len());
            found
                .iter()
                .zip(expected)
                .for_each(|(f, e)| assert_same(f, e));
        }
        (Value::Object(found), Value::Object(expected)) => {
            assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
            for (name, expected) in expected {
                assert_same(&found[name], expected);
            }
        }
        (Value::Number(found), Value::Number(expected)) => {
            let difference = found.as_f64().unwrap() - expected.as_f64().unwrap();
            assert!(difference.abs() <= 5e-5, "{found} {expected}");
        }
        _ => assert_eq!(found, expected),
    }
}

#[test]
fn labels_have_scores_in_json_and_in_a_table() {
    let workspace = Workspace::predicting("bert-single-label");
    let expected = expected("bert-single-label");
    let cases = expected["texts"].as_array().unwrap();
    let rows: Vec<Value> = cases
        .iter()
        .map(|case| json!({"text": case["text"], "other": 1}))
        .collect();
    workspace.write("texts.jsonl", jsonl(&rows));
    let predict = ["predict", "model", "-i", "texts.jsonl", "--json"];
    let best = lines(&workspace.succeed(&predict));
    let all =
        lines(&workspace.succeed(&[&predict[..], &["--top-k", "9", "--batch-size", "2"]].concat()));
    assert_eq!((best.len(), all.len()), (cases.len(), cases.len()));
    for ((best, all), case) in best.iter().zip(&all).zip(cases) {
        assert_same(&all["labels"], &case["labels"]);
        assert_eq!(best["labels"].as_array().unwrap().len(), 1);
        assert_eq!(best["labels"][0], all["labels"][0]);
    }
    workspace.write("texts.txt", "the cat sat\n\u{1b}[31mnot a dog\n");
    let table = workspace
        .succeed(&["predict", "model", "-i", "texts.txt"])
        .stdout;
    let table: Vec<&str> = table.lines().collect();
    assert_eq!(table.len(), 4, "{table:?}");
    assert!(
        table[0].contains("label") && table[0].contains("score"),
        "{table:?}"
    );
    assert!(
        table[2].trim_start().starts_with('1') && table[2].ends_with("the cat sat"),
        "{table:?}"
    );
    // A text does nothing to the terminal.
    assert!(table[3].ends_with(" [31mnot a dog"), "{table:?}");
}

#[test]
fn pairs_and_queries_have_one_score() {
    let workspace = Workspace::predicting("bert-cross-encoder");
    let expected = expected("bert-cross-encoder");
    let cases = || expected["pairs"].as_array().unwrap().iter();
    let rows: Vec<Value> = cases()
        .map(|case| json!({"text": case["text"], "passage": case["pair"]}))
        .collect();
    workspace.write("pairs.jsonl", jsonl(&rows));
    let flags = ["--pair-column", "passage", "--json"];
    let found = lines(
        &workspace.succeed(&[&["predict", "model", "-i", "pairs.jsonl"], &flags[..]].concat()),
    );
    for ((found, case), score) in found
        .iter()
        .zip(cases())
        .zip(expected["cross_encoder"].as_array().unwrap())
    {
        if case["text"] != "" {
            assert_same(&found["score"], score);
        }
    }
    // The last one is longer than the model's limit.
    assert_eq!(found.last().unwrap()["truncated"], true);
    assert!(found[0].get("truncated").is_none());
    let query = rows[1]["text"].as_str().unwrap();
    workspace.write(
        "passages.txt",
        format!("{}\na cat\n", rows[1]["passage"].as_str().unwrap()),
    );
    let ranked = lines(&workspace.succeed(&[
        "predict",
        "model",
        "-i",
        "passages.txt",
        "--query",
        query,
        "--json",
    ]));
    assert_eq!((ranked.len(), &ranked[0]), (2, &found[1]));
}

#[test]
fn entities_have_places_in_characters() {
    let workspace = Workspace::predicting("bert-token-classification");
    let expected = expected("bert-token-classification");
    let cases = expected.as_array().unwrap();
    let rows: Vec<Value> = cases
        .iter()
        .map(|case| json!({"text": case["text"]}))
        .collect();
    workspace.write("texts.jsonl", jsonl(&rows));
    let predict = ["predict", "model", "-i", "texts.jsonl", "--json"];
    for (flags, name) in [
        (&[][..], "simple"),
        (&["--aggregation", "none"][..], "none"),
        (&["--aggregation", "first"][..], "first"),
        (&["--aggregation", "average"][..], "average"),
        (&["--aggregation", "max"][..], "max"),
    ] {
        let found = lines(&workspace.succeed(&[&predict[..], flags].concat()));
        for (found, case) in found.iter().zip(cases) {
            assert_same(&found["entities"], &case[name]);
        }
    }
    let table = workspace.succeed(&predict[..4]).stdout;
    assert!(table.lines().next().unwrap().contains("start"), "{table}");
}

#[test]
fn answers_are_found_in_contexts() {
    let workspace = Workspace::predicting("bert-question-answering");
    let expected = expected("bert-question-answering");
    let three = expected
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["top_k"] == 3);
    let three: Vec<&Value> = three.collect();
    let rows: Vec<Value> = three
        .iter()
        .map(|case| json!({"question": case["question"], "context": case["context"]}))
        .collect();
    let flags = ["--top-k", "3", "--json"];
    workspace.write("questions.jsonl", jsonl(&rows));
    let found = lines(
        &workspace.succeed(&[&["predict", "model", "-i", "questions.jsonl"], &flags[..]].concat()),
    );
    assert_eq!(found.len(), three.len());
    for (found, case) in found.iter().zip(&three) {
        assert_same(&found["answers"], &case["answers"]);
    }
    // Rows have two texts: without a name that says otherwise they are JSONL.
    let mut command = workspace.command(&[&["predict", "model"], &flags[..]].concat());
    let piped = Outcome::of(command.write_stdin(jsonl(&rows)));
    assert_eq!(lines(&piped), found, "{}", piped.stderr);
}

#[test]
fn masks_have_candidates_and_a_file_appears_whole() {
    let workspace = Workspace::predicting("bert-masked-lm");
    let expected = expected("bert-masked-lm");
    let cases = expected.as_array().unwrap();
    let rows: Vec<Value> = cases
        .iter()
        .map(|case| json!({"text": case["text"]}))
        .collect();
    workspace.write("texts.jsonl", jsonl(&rows));
    let predict = [
        "predict",
        "model",
        "-i",
        "texts.jsonl",
        "--top-k",
        "4",
        "-o",
        "out.jsonl",
    ];
    let outcome = workspace.succeed(&predict);
    assert_eq!(outcome.stdout, "");
    assert!(
        outcome
            .stderr
            .contains("wrote out.jsonl (masked language modelling, 4 texts; in "),
        "{}",
        outcome.stderr
    );
    let written = String::from_utf8(workspace.read("out.jsonl")).unwrap();
    for (line, case) in written.lines().zip(cases) {
        let found: Value = serde_json::from_str(line).unwrap();
        assert_same(&found["masks"], &case["masks"]);
    }
    assert!(workspace.fail(&predict).contains("--force"));
    let summary = workspace
        .succeed(&[&predict[..], &["--force", "--json"]].concat())
        .json();
    assert_eq!(
        (&summary["texts"], &summary["task"]),
        (&json!(4), &json!("masked-language-modelling"))
    );
    // A text that cannot be predicted leaves no file.
    workspace.write("bad.txt", "the [MASK]\nthe cat\n");
    let error = workspace.fail(&["predict", "model", "-i", "bad.txt", "-o", "none.jsonl"]);
    assert!(
        error.contains("text \"the cat\": expected a mask `[MASK]`, found none\n  hint: "),
        "{error}"
    );
    assert!(!workspace.path("none.jsonl").exists());
}

#[test]
fn what_does_not_go_together_is_refused() {
    let workspace = Workspace::predicting("bert-token-classification");
    workspace.write("texts.txt", "a cat\n");
    workspace.write("rows.jsonl", "{\"title\": \"a cat\"}\n");
    let refused = |flags: &[&str]| {
        let arguments = [&["predict", "model", "-i", "texts.txt"], flags].concat();
        workspace.misuse(&arguments)
    };
    assert_eq!(
        refused(&["--top-k", "2"]),
        "error: --top-k: expected a model for sequence classification or question answering or masked language modelling, found one for token classification\n  hint: leave it out, or name another model\n"
    );
    assert!(
        refused(&["--query", "a"])
            .starts_with("error: --query: expected a model for sequence classification, found")
    );
    assert!(
        refused(&["-o", "out.csv"])
            .starts_with("error: out.csv: expected an output file ending in .jsonl, found .csv\n")
    );
    assert!(
        refused(&["--text-column", "a", "--input-format", "lines"])
            .contains("--text-column a is given, and lines have no columns")
    );
    assert!(refused(&["--aggregation", "all"]).contains("invalid value 'all'"));
    let error = workspace.fail(&["predict", "model", "-i", "rows.jsonl"]);
    assert_eq!(
        error,
        "error: rows.jsonl: line 1: expected a field `text`, found `title`\n  hint: name the field that holds the text with --text-column\n"
    );
    let error = workspace.fail(&["predict", "model", "-i", "texts.txt", "--max-tokens", "49"]);
    assert!(
        error.starts_with("error: max_tokens: expected at most 48, found 49\n"),
        "{error}"
    );
    let plain = Workspace::new();
    plain.write("texts.txt", "a cat\n");
    let error = plain.fail(&["predict", "model", "-i", "texts.txt"]);
    assert!(
        error.contains("`architectures`") && error.contains("fewbit embed"),
        "{error}"
    );
}
