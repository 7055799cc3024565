//! `fewbit bench`

use crate::tiny_model::{MAX_TOKENS, Outcome, Workspace};
use serde_json::{Value, json};

/// As quick as it can be.
const QUICK: [&str; 4] = ["--seconds", "0.001", "--rounds", "2"];

fn number(value: &Value, field: &str) -> f64 {
    let found = value.pointer(field).unwrap_or(&Value::Null);
    let number = found
        .as_f64()
        .unwrap_or_else(|| panic!("{field}: {found} of {value}"));
    assert!(number.is_finite(), "{field}: {number}");
    number
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field]
        .as_array()
        .unwrap_or_else(|| panic!("{field}: {value}"))
}

/// Equal but for the rounding of a few divisions and multiplications of f64.
fn assert_equal(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= 1e-12 * expected.abs(),
        "{what}: {found}, {expected}"
    );
}

#[test]
fn json_has_every_field_and_they_agree() {
    let workspace = Workspace::new();
    workspace.succeed(&["quantize", "model", "-o", "small", "--method", "dynamic"]);
    workspace.write("texts.txt", "a dog\n\nthe sea and the sun\nx\n");
    let flags = [
        "bench",
        "model",
        "small",
        "--batch",
        "1,3",
        "--tokens",
        "16,4",
        "--threads",
        "1,2",
        "--texts",
        "texts.txt",
        "--profile",
        "--json",
    ];
    let outcome = workspace.succeed(&[flags.as_slice(), &QUICK].concat());
    let benchmark = outcome.json();
    for field in ["version", "target", "cpu", "isa"] {
        assert!(
            !benchmark[field].as_str().unwrap().is_empty(),
            "{benchmark}"
        );
    }
    assert_eq!(
        (&benchmark["seconds"], &benchmark["rounds"]),
        (&json!(0.001), &json!(2))
    );

    let models = list(&benchmark, "models");
    let facts = |index: usize| {
        ["name", "model_type", "method", "stored_as"].map(|field| models[index][field].clone())
    };
    assert_eq!(
        facts(0),
        [json!("model"), json!("bert"), Value::Null, json!("F32")]
    );
    assert_eq!(
        facts(1),
        [
            json!("small"),
            json!("bert"),
            json!("dynamic"),
            json!("compressed-tensors int-quantized")
        ]
    );
    for model in models {
        assert_eq!(number(model, "/max_tokens"), MAX_TOKENS as f64);
        assert!(["int8", "f32"].contains(&model["arithmetic"].as_str().unwrap()));
        for field in [
            "/peak_gmacs_per_second",
            "/weight_memory_bytes",
            "/scratch_bytes",
            "/startup/load_milliseconds",
        ] {
            assert!(number(model, field) > 0.0, "{field}: {model}");
        }
        assert!(
            number(model, "/startup/first_embedding_milliseconds")
                > number(model, "/startup/load_milliseconds")
        );
        assert_eq!(number(model, "/startup/startups"), 2.0);
        #[cfg(target_os = "linux")]
        for field in ["/peak_resident_bytes", "/startup/peak_resident_bytes"] {
            assert!(number(model, field) > number(model, "/weight_memory_bytes"));
        }
    }

    let shapes = list(&benchmark, "shapes");
    let named: Vec<[u64; 3]> = shapes
        .iter()
        .map(|row| ["batch", "tokens", "threads"].map(|field| row[field].as_u64().unwrap()))
        .collect();
    assert_eq!(
        named,
        [
            [1, 16, 1],
            [1, 16, 2],
            [1, 4, 1],
            [1, 4, 2],
            [3, 16, 1],
            [3, 16, 2],
            [3, 4, 1],
            [3, 4, 2]
        ]
    );
    for row in shapes {
        let [batch, tokens, threads] =
            ["/batch", "/tokens", "/threads"].map(|field| number(row, field));
        let results = list(row, "models");
        assert_eq!(results.len(), 2);
        for (result, model) in results.iter().zip(models) {
            assert_eq!(result["model"], model["name"]);
            let of = |field: &str| number(result, &format!("/{field}"));
            let [median, p10, p90, p99] = ["median", "p10", "p90", "p99"]
                .map(|percentile| of(&format!("{percentile}_milliseconds")) / 1e3);
            assert!(
                0.0 < p10 && p10 <= median && median <= p90 && p90 <= p99,
                "{result}"
            );
            assert!(of("calls") >= 2.0);
            // Two layers of four 32 x 32 and two 32 x 44 matrices, and two products of tokens x tokens x 32.
            let multiply_adds =
                batch * (tokens * 2.0 * 6912.0 + 2.0 * 2.0 * tokens * tokens * 32.0);
            assert_eq!(of("multiply_adds"), multiply_adds);
            assert_equal(of("texts_per_second"), batch / median, "texts");
            assert_equal(of("tokens_per_second"), batch * tokens / median, "tokens");
            assert_equal(of("gmacs_per_second"), multiply_adds / median / 1e9, "GMAC");
            let peak = number(model, "/peak_gmacs_per_second");
            assert_equal(
                of("share_of_peak"),
                of("gmacs_per_second") / (threads * peak),
                "share",
            );
            assert_equal(
                of("times_faster"),
                number(&results[0], "/median_milliseconds") / 1e3 / median,
                "ratio",
            );
        }
    }

    let profiles = list(&benchmark, "profiles");
    assert_eq!(profiles.len(), 4 * 2);
    for profile in profiles {
        let stages = list(profile, "stages");
        assert_eq!(stages.len(), 8);
        let whole = number(profile, "/whole_milliseconds");
        let sum: f64 = stages
            .iter()
            .map(|stage| number(stage, "/milliseconds"))
            .sum();
        assert_equal(sum + number(profile, "/other_milliseconds"), whole, "whole");
        assert!(
            stages
                .iter()
                .all(|stage| (0.0..=1.0).contains(&number(stage, "/share")))
        );
    }

    let texts = &benchmark["texts"];
    assert_eq!(texts["texts"], 4);
    let rows = list(texts, "rows");
    assert_eq!(rows.len(), 2 * 2 * 2);
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row["order"], ["as-given", "by-length"][index % 2]);
        for result in list(row, "models") {
            let seconds = number(result, "/median_seconds");
            // A letter is a token: 4, 0, 15 and 1, each with [CLS] and [SEP].
            assert_eq!(number(result, "/tokens"), 20.0 + 4.0 * 2.0);
            assert_eq!(number(result, "/passes"), 2.0);
            assert_equal(number(result, "/texts_per_second"), 4.0 / seconds, "texts");
            assert_equal(
                number(result, "/tokens_per_second"),
                28.0 / seconds,
                "tokens",
            );
        }
    }
}

#[test]
fn one_model_has_no_ratio_and_several_have() {
    let workspace = Workspace::new();
    let shapes = ["--batch", "1", "--tokens", "4", "--threads", "1"];
    let alone = workspace.succeed(&[&["bench", "model"], shapes.as_slice(), &QUICK].concat());
    assert!(
        alone.stdout.lines().all(|line| line.chars().count() <= 100),
        "{}",
        alone.stdout
    );
    assert!(
        alone
            .stdout
            .starts_with(&format!("fewbit {} on ", env!("CARGO_PKG_VERSION"))),
        "{}",
        alone.stdout
    );
    for part in [" kernels, 1 thread\n", "\n 1 x 4", "% of\n", "GMAC"] {
        assert!(alone.stdout.contains(part), "{part}: {}", alone.stdout);
    }
    for part in ["faster", "stages", "order"] {
        assert!(!alone.stdout.contains(part), "{part}: {}", alone.stdout);
    }
    assert_eq!(
        alone.stderr,
        "opening: model\ntime to the first embedding\nbatch of 1, 4 tokens each, 1 thread\n"
    );
    let twice = workspace.succeed(
        &[
            &["bench", "model", "model"],
            shapes.as_slice(),
            &["--profile"],
            &QUICK,
        ]
        .concat(),
    );
    for part in [
        "model (1)",
        "model (2)",
        "times\n",
        "stages: model (2), 1 x 4, 1 thread, mean of ",
    ] {
        assert!(twice.stdout.contains(part), "{part}: {}", twice.stdout);
    }
    for line in ["embeddings", "other", "whole"] {
        let shown = twice.stdout.lines().filter(|found| found.starts_with(line));
        assert_eq!(shown.count(), 2, "{line}: {}", twice.stdout);
    }
}

#[test]
fn texts_that_are_cut_are_said() {
    let workspace = Workspace::new();
    workspace.write("texts.jsonl", json!({"text": "a".repeat(90)}).to_string());
    let flags = [
        "bench",
        "model",
        "--batch",
        "2",
        "--tokens",
        "4",
        "--threads",
        "1",
        "--texts",
        "texts.jsonl",
    ];
    let outcome = workspace.succeed(&[flags.as_slice(), &QUICK].concat());
    assert!(
        outcome.stderr.contains("texts in batches of 2, 1 thread\n"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome
            .stderr
            .ends_with("warning: model: 1 of 1 text cut at the model's limit\n"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stdout.contains("1 text, tokenization included\n"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn more_threads_than_cpus_are_warned_of() {
    let workspace = Workspace::new();
    let flags = [
        "bench",
        "model",
        "--batch",
        "1",
        "--tokens",
        "4",
        "--threads",
        "1,1024",
    ];
    let outcome = workspace.succeed(&[flags.as_slice(), &QUICK].concat());
    assert!(
        outcome
            .stderr
            .starts_with("warning: 1024 threads take turns on "),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome
            .stdout
            .lines()
            .next()
            .unwrap()
            .ends_with(", 1 and 1024 threads")
    );
}

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
    insta::assert_snapshot!(refused(&["model", "--texts", "other.jsonl"]), @r#"
    error: other.jsonl: line 1: field `text`: expected one, found none
      hint: a line looks like {"text": "A man sings."}
    "#);
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
fn a_number_of_threads_comes_from_the_environment() {
    let workspace = Workspace::new();
    let flags = ["bench", "model", "--batch", "1", "--tokens", "4", "--json"];
    let outcome = Outcome::of(
        workspace
            .command(&[flags.as_slice(), &QUICK].concat())
            .env("FEWBIT_NUM_THREADS", "1"),
    );
    assert_eq!(outcome.json()["shapes"][0]["threads"], 1);
    let outcome = Outcome::of(workspace.command(&flags).env("FEWBIT_NUM_THREADS", "0"));
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .starts_with("error: FEWBIT_NUM_THREADS: expected "),
        "{}",
        outcome.stderr
    );
}

#[test]
fn the_hidden_command_answers_line_by_line_and_refuses_anything_else() {
    let workspace = Workspace::new();
    let mut command = workspace.command(&["measure-one-model"]);
    let asked =
        Outcome::of(command.write_stdin("\"memory\"\n{\"open\":{\"directory\":\"model\"}}\n"));
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
