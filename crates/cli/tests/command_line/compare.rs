//! `fewbit compare`

use crate::tiny_model::{Workspace, scored_pairs};
use serde_json::Value;

fn names(comparison: &Value) -> Vec<&str> {
    comparison["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect()
}

#[test]
fn json_has_every_field_for_every_method() {
    let workspace = Workspace::new();
    workspace.write("pairs.jsonl", scored_pairs());
    let outcome = workspace.succeed(&[
        "compare",
        "model",
        "--data",
        "pairs.jsonl",
        "--threads",
        "1",
        "--json",
    ]);
    let comparison = outcome.json();
    assert_eq!(
        names(&comparison),
        [
            "original",
            "fp16",
            "bf16",
            "dynamic",
            "dynamic + float embeddings",
            "weight-only",
            "nf4",
            "nf4 + double quantization",
            "fp4"
        ]
    );
    let facts = |field: &str| comparison[field].as_u64().unwrap();
    assert_eq!(
        (
            facts("texts"),
            facts("threads"),
            facts("parameters"),
            facts("truncated")
        ),
        (8, 1, 19_384, 0)
    );
    let rows = comparison["rows"].as_array().unwrap();
    for row in rows {
        let number = |field: &str| {
            let value = row.pointer(field).unwrap_or(&Value::Null);
            value
                .as_f64()
                .unwrap_or_else(|| panic!("{}: {field}: {value}", row["name"]))
        };
        for field in [
            "/disk_bytes",
            "/directory_bytes",
            "/parameter_bytes",
            "/weight_memory_bytes",
            "/scratch_bytes",
            "/compression_ratio",
            "/bits_per_weight",
            "/median_milliseconds",
            "/texts_per_second",
            "/load_seconds",
        ] {
            assert!(number(field) > 0.0, "{}: {field}", row["name"]);
        }
        assert!((-1.0..=1.0).contains(&number("/similarity/spearman")));
        let method = row["recipe"]["method"].as_str().unwrap_or("fp16");
        assert_eq!(
            number("/buffer_bytes") > 0.0,
            !["fp16", "bf16"].contains(&method),
            "{}",
            row["name"]
        );
        #[cfg(target_os = "linux")]
        assert!(
            number("/peak_resident_bytes")
                > number("/weight_memory_bytes") + number("/scratch_bytes")
        );
        if row["name"] == "original" {
            assert_eq!(
                (&row["agreement"], &row["recipe"]),
                (&Value::Null, &Value::Null)
            );
            assert_eq!(row["compression_ratio"], 1.0);
        } else {
            let mean = number("/agreement/mean_cosine");
            assert!((0.5..1.000_001).contains(&mean), "{}: {mean}", row["name"]);
            assert!(number("/agreement/minimum_cosine") <= mean);
            assert!(number("/agreement/largest_absolute_difference") > 0.0);
            assert!(number("/quantize_seconds") > 0.0);
            assert_eq!(row["recipe"]["version"], 1);
        }
    }
}

#[test]
fn the_table_fits_and_says_what_its_columns_are() {
    let workspace = Workspace::new();
    workspace.write("pairs.jsonl", scored_pairs());
    let flags = [
        "--methods",
        "dynamic + int8 embeddings,nf4+double,int4",
        "--data",
        "pairs.jsonl",
        "--threads",
        "1",
    ];
    let outcome = workspace.succeed(&[&["compare", "model"], flags.as_slice()].concat());
    assert!(
        outcome
            .stdout
            .lines()
            .all(|line| line.chars().count() <= 120),
        "{}",
        outcome.stdout
    );
    for line in ["dynamic + int8 embed.", "nf4 + double quant.", "nf4 "] {
        assert!(
            outcome.stdout.lines().any(|found| found.starts_with(line)),
            "{line}: {}",
            outcome.stdout
        );
    }
    for part in [
        "8 texts of 4 scored pairs",
        "Spearman        100 x ",
        "tokenization included; 8 texts (fewer than 20 are too few to rely on)",
        "nf4 and fp4 are small, not fast",
    ] {
        assert!(outcome.stdout.contains(part), "{part}: {}", outcome.stdout);
    }
    for step in [
        "quantizing: nf4 + double quantization\n",
        "speed, round 3 of 3: original\n",
    ] {
        assert!(outcome.stderr.contains(step), "{step}: {}", outcome.stderr);
    }
}

#[test]
fn without_data_it_says_that_its_texts_are_its_own() {
    let workspace = Workspace::new();
    let outcome = workspace.succeed(&["compare", "model", "--methods", "fp16"]);
    assert!(
        outcome.stdout.contains(
            "built into fewbit (bring your own with --data or --texts before you decide)"
        ),
        "{}",
        outcome.stdout
    );
    assert!(!outcome.stdout.contains("Spear"), "{}", outcome.stdout);
}

#[test]
fn keep_leaves_the_models_where_they_can_be_used() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a dog\nthe sea\n");
    workspace.succeed(&[
        "compare",
        "model",
        "--methods",
        "dynamic+embeddings,fp16",
        "--texts",
        "texts.txt",
        "--keep",
        "kept",
    ]);
    assert_eq!(
        workspace.entries("kept"),
        ["dynamic-int8-embeddings", "fp16"]
    );
    workspace.succeed(&["embed", "kept/dynamic-int8-embeddings", "-i", "texts.txt"]);
}

#[test]
fn a_missed_gate_is_exit_code_3_after_the_table_and_names_the_method() {
    let workspace = Workspace::new();
    let missed = workspace.run(&[
        "compare",
        "model",
        "--methods",
        "fp16,nf4",
        "--max-drop",
        "0.01",
    ]);
    assert_eq!(missed.code, Some(3));
    assert!(missed.stdout.contains("nf4"));
    let last: Vec<&str> = missed.stderr.lines().rev().take(2).collect();
    assert_eq!(
        last[1],
        "error: quality gate missed: expected a loss of at most 0.01 points of 100 x (1 - mean cosine)"
    );
    assert!(last[0].starts_with("  nf4 loses "), "{}", missed.stderr);
    workspace.succeed(&[
        "compare",
        "model",
        "--methods",
        "fp16,nf4",
        "--max-drop",
        "50",
    ]);
}

#[test]
fn data_that_cannot_be_used_is_refused_before_any_work() {
    let workspace = Workspace::new();
    workspace.write("empty.txt", "");
    insta::assert_snapshot!(workspace.fail(&["compare", "model", "--texts", "empty.txt"]), @"
    error: empty.txt: expected at least one text, found 0
      hint: every line is a text
    ");
    insta::assert_snapshot!(workspace.fail(&["compare", "model", "--data", "absent.jsonl"]), @"
    error: absent.jsonl: No such file or directory (os error 2)
      hint: check the path, and that you may read it
    ");
    workspace.write("pairs.jsonl", "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"score\": 1}\n{\"sentence1\": \"a\", \"score\": 1}\n");
    insta::assert_snapshot!(workspace.fail(&["compare", "model", "--data", "pairs.jsonl"]), @r#"
    error: pairs.jsonl: line 2: expected a field `sentence2`, found `sentence1`, `score`
      hint: name the field that holds the text with --data-fields
    "#);
    insta::assert_snapshot!(workspace.misuse(&["compare", "model", "--data", "pairs.jsonl", "--texts", "empty.txt"]).lines().next().unwrap(), @"error: the argument '--data <FILE>' cannot be used with '--texts <FILE>'");
}

#[test]
fn a_method_named_twice_is_wrong_usage() {
    let workspace = Workspace::new();
    let text = workspace.misuse(&["compare", "model", "--methods", "nf4,dynamic,int4"]);
    insta::assert_snapshot!(text, @"
    error: --methods: expected each method once, found `nf4` twice
      hint: `int4` is another name of `nf4`
    ");
}

#[test]
fn what_cannot_be_compared_is_refused_before_any_work() {
    let workspace = Workspace::new();
    let same = |first: &str| {
        format!("{{\"sentence1\": \"{first}\", \"sentence2\": \"b\", \"score\": 2}}\n")
    };
    workspace.write("pairs.jsonl", same("a") + &same("c"));
    insta::assert_snapshot!(workspace.fail(&["compare", "model", "--data", "pairs.jsonl"]), @"
    error: pairs.jsonl: all scores are equal, so there is no rank correlation
      hint: bring pairs of different similarity
    ");
    std::fs::create_dir_all(workspace.path("kept/nf4")).unwrap();
    workspace.write("kept/nf4/precious.txt", "keep me");
    insta::assert_snapshot!(workspace.fail(&["compare", "model", "--methods", "fp16,nf4", "--keep", "kept"]), @"
    error: kept/nf4: exists and is not empty
      hint: name another --keep directory, or remove it
    ");
    assert_eq!(workspace.entries("kept"), ["nf4"]);
    insta::assert_snapshot!(workspace.fail(&["compare", "model", "--keep", "pairs.jsonl"]), @"
    error: pairs.jsonl: expected a directory to keep models in, found a file
      hint: name another --keep directory
    ");
    std::fs::remove_file(workspace.path("model/vocab.txt")).unwrap();
    insta::assert_snapshot!(workspace.fail(&["compare", "model", "--keep", "new"]), @"
    error: model: expected tokenizer.json, or a WordPiece vocab.txt, found neither
      hint: `AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes tokenizer.json
    ");
    assert!(!workspace.path("new").exists());
}

#[test]
fn without_a_correlation_the_table_has_a_dash_and_the_gate_is_missed() {
    let workspace = Workspace::new();
    let pair = |score: u32| {
        format!("{{\"sentence1\": \"a cat\", \"sentence2\": \"red\", \"score\": {score}}}\n")
    };
    workspace.write("pairs.jsonl", pair(1) + &pair(2));
    let flags = ["--methods", "fp16", "--data", "pairs.jsonl"];
    let all = [&["compare", "model"], flags.as_slice()].concat();
    let shown = workspace.succeed(&all).stdout;
    assert!(
        shown
            .contains("(- where a model finds all pairs equally similar: there is no correlation)"),
        "{shown}"
    );
    assert_eq!(
        workspace
            .succeed(&[all.as_slice(), &["--json"]].concat())
            .json()["rows"][0]["similarity"],
        Value::Null
    );
    let missed = workspace.run(&[all.as_slice(), &["--max-drop", "100"]].concat());
    assert_eq!(missed.code, Some(3));
    assert!(
        missed
            .stderr
            .ends_with("\n  fp16 has no figure to judge it by\n"),
        "{}",
        missed.stderr
    );
}

#[test]
fn static_is_calibrated_with_what_the_flags_name_and_nothing_else() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a small dog\nthe sea\nred\na red dog\n");
    workspace.write("pairs.jsonl", scored_pairs());
    let compare = |more: &[&'static str]| {
        let mut arguments = vec!["compare", "model", "--data", "pairs.jsonl"];
        arguments.extend(more);
        arguments
    };
    let calibration = ["--calibration", "texts.txt", "--samples", "3"];
    let methods = ["--methods", "dynamic,static,static+embeddings"];
    let outcome = workspace.succeed(&compare(
        &[&methods[..], &calibration[..], &["--keep", "kept"]].concat(),
    ));
    assert!(
        outcome
            .stderr
            .contains(" of 8 inputs are dynamic per token"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome
            .stdout
            .contains("dynamic and static compute in int8."),
        "{}",
        outcome.stdout
    );
    workspace.succeed(
        &[
            &["quantize", "model", "-o", "out", "--method", "static"][..],
            &calibration[..],
        ]
        .concat(),
    );
    for file in ["recipe.toml", "model.safetensors"] {
        let kept = workspace.read(&format!("kept/static/{file}"));
        assert_eq!(kept, workspace.read(&format!("out/{file}")), "{file}");
    }
    assert!(workspace.path("kept/static-int8-embeddings").exists());

    let all = workspace
        .succeed(&compare(&[&calibration[..], &["--json"]].concat()))
        .json();
    assert_eq!(names(&all).last(), Some(&"static"));
    assert_eq!(names(&all).len(), 10);

    insta::assert_snapshot!(workspace.misuse(&compare(&["--methods", "nf4,static+embeddings"])), @"
    error: --methods: static+embeddings: expected --calibration FILE or --stats FILE
      hint: a few hundred texts like those that the model will see, one a line; `dynamic` needs none
    ");
    insta::assert_snapshot!(workspace.misuse(&compare(&[&calibration[..], &["--methods", "nf4"]].concat())), @"
    error: --methods: flags of calibration go with `static`, with GPTQ (`dynamic+gptq`) and with weighted scales (`nf4+activation-weighted`), which are not among the methods
      hint: add one, or leave out the flags
    ");
    let few = ["--methods", "static", "--calibration", "texts.txt"];
    let more = compare(&[&few[..], &["--samples", "256"]].concat());
    insta::assert_snapshot!(workspace.fail(&more), @"
    error: texts.txt: expected at least 256 texts, found 4
      hint: give a file of more texts, or ask for fewer samples
    ");
    // A number that nobody asked for is no demand.
    let outcome = workspace.succeed(&compare(&few));
    assert!(
        outcome.stderr.starts_with(
            "texts.txt: 4 texts, fewer than the usual 256: calibrating with all of them\n"
        ),
        "{}",
        outcome.stderr
    );
}

/// Makes fp16 fail, which cannot hold such a weight.
fn with_a_weight_beyond_fp16() -> Workspace {
    let workspace = Workspace::new();
    workspace.edit_weights(|header, data| {
        let name = "encoder.layer.1.attention.self.query.weight";
        let at = header[name]["data_offsets"][0].as_u64().unwrap() as usize;
        data[at..at + 4].copy_from_slice(&1e6f32.to_le_bytes());
    });
    workspace
}

#[test]
fn a_method_that_fails_has_a_row_that_says_so_and_the_others_are_measured() {
    let workspace = with_a_weight_beyond_fp16();
    let arguments = [
        "compare",
        "model",
        "--methods",
        "bf16,fp16,dynamic",
        "--keep",
        "kept",
    ];
    let outcome = workspace.run(&arguments);
    assert_eq!(outcome.code, Some(1));
    let rows: Vec<Vec<&str>> = outcome
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let row = |name: &str| rows.iter().find(|row| row.first() == Some(&name)).unwrap();
    assert_eq!(row("fp16")[..3], ["fp16", "failed", "-"]);
    assert!(row("bf16").iter().all(|cell| *cell != "failed"));
    assert!(row("dynamic").iter().all(|cell| *cell != "failed"));
    assert!(
        outcome.stdout.contains("\nfp16 failed: "),
        "{}",
        outcome.stdout
    );
    assert!(outcome.stdout.contains("1000000"), "{}", outcome.stdout);
    assert!(
        outcome.stderr.ends_with("error: 1 of 3 methods failed:\n  fp16\n  hint: what each failed with stands below the table, or under `failed` with --json\n"),
        "{}",
        outcome.stderr
    );
    assert_eq!(workspace.entries("kept"), ["bf16", "dynamic"]);

    let outcome = workspace.run(&["compare", "model", "--methods", "bf16,fp16", "--json"]);
    assert_eq!(outcome.code, Some(1));
    let comparison = outcome.json();
    assert_eq!(names(&comparison), ["original", "bf16"]);
    assert_eq!(comparison["failed"][0]["name"], "fp16");
    let error = comparison["failed"][0]["error"].as_str().unwrap();
    assert!(
        error.contains("expected values in the range of float16"),
        "{error}"
    );
}

#[test]
fn a_failed_method_goes_before_a_missed_gate() {
    let workspace = with_a_weight_beyond_fp16();
    let arguments = [
        "compare",
        "model",
        "--methods",
        "fp16,nf4",
        "--max-drop",
        "0",
    ];
    let outcome = workspace.run(&arguments);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains("error: 1 of 2 methods failed:\n  fp16\n"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("\n  nf4 loses "),
        "{}",
        outcome.stderr
    );
}

#[test]
fn static_without_a_range_that_is_good_enough_fails_alone() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a small dog\nthe sea\nred\na red dog\n");
    let flags = [
        "--calibration",
        "texts.txt",
        "--samples",
        "4",
        "--min-sqnr",
        "1000",
    ];
    let compare = |methods| [&["compare", "model", "--methods", methods][..], &flags].concat();
    let outcome = workspace.run(&compare("static,dynamic"));
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("\nstatic failed: sensitivity: expected a site with a static SQNR of at least 1000 dB, found none: they have "), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("\ndynamic "), "{}", outcome.stdout);
    // Where nothing is left to compare there is no table.
    let error = workspace.fail(&compare("static"));
    assert!(
        error.contains("error: sensitivity: expected a site"),
        "{error}"
    );
    assert!(error.contains("hint: use the method `dynamic`"), "{error}");
}
