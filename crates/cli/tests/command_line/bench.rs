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
            json!("dynamic + int8 embeddings"),
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
