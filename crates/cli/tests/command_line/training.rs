//! `fewbit quantize --method qat`, and what compares its models.

use crate::tiny_model::Workspace;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Enough for a few steps of four texts.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let words = ["a", "small", "dog", "the", "sea", "red"];
    let text = |index: usize| {
        let words = (0..=index % 4).map(|place| words[(index / 4 + place * 5) % 6]);
        words.collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = (0..24).map(text).collect();
    workspace.write("texts.txt", texts.join("\n"));
    workspace
}

const TRAINING: [&str; 8] = [
    "--data",
    "texts.txt",
    "--steps",
    "4",
    "--batch-size",
    "4",
    "--evaluation-interval",
    "2",
];

/// `fewbit quantize model -o OUT --method qat` with these flags.
fn train<'a>(out: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    let command = ["quantize", "model", "-o", out, "--method", "qat"];
    [&command[..], &TRAINING, flags].concat()
}

#[test]
fn every_scheme_is_written_as_its_method_writes_it() {
    let workspace = workspace();
    for (out, flags, label, plain) in [
        ("int8", &[][..], "dynamic", &["--method", "dynamic"][..]),
        (
            "static",
            &["--activations", "static"],
            "static",
            &["--method", "static", "--calibration", "texts.txt"],
        ),
        (
            "int4",
            &["--weights", "int4", "--group-size", "channel"],
            "weight-only + int4",
            &[
                "--method",
                "weight-only",
                "--weights",
                "int4",
                "--group-size",
                "channel",
            ],
        ),
        (
            "w4a8",
            &[
                "--weights",
                "int4",
                "--group-size",
                "channel",
                "--activations",
                "dynamic",
            ],
            "dynamic + int4",
            &[
                "--method",
                "dynamic",
                "--weights",
                "int4",
                "--group-size",
                "channel",
            ],
        ),
        ("nf4", &["--weights", "nf4"], "nf4", &["--method", "nf4"]),
    ] {
        let outcome = workspace.succeed(&train(out, flags));
        assert!(outcome.stdout.contains(label), "{}", outcome.stdout);
        assert!(outcome.stdout.contains("+ QAT"), "{}", outcome.stdout);
        assert!(
            outcome
                .stdout
                .contains("mean cosine to the float model on 1 text held out")
        );
        let again = format!("plain-{out}");
        workspace.succeed(&[&["quantize", "model", "-o", &again], plain].concat());
        // What loaders read is the same.
        let entries = |directory: &str| workspace.entries(directory);
        assert_eq!(entries(out), entries(&again));
        let config = |directory: &str| workspace.json(&format!("{directory}/config.json"));
        assert_eq!(config(out), config(&again), "{out}");
        workspace.succeed(&["embed", out, "-i", "texts.txt"]);
    }
    // A recipe says that it was trained, and trains again.
    let recipe = String::from_utf8(workspace.read("int4/recipe.toml")).unwrap();
    assert!(recipe.contains("qat = true"), "{recipe}");
    let again = [
        &[
            "quantize",
            "model",
            "-o",
            "again",
            "--recipe",
            "int4/recipe.toml",
        ][..],
        &TRAINING,
    ]
    .concat();
    workspace.succeed(&again);
    let weights = |directory: &str| workspace.read(&format!("{directory}/model.safetensors"));
    assert_eq!(weights("again"), weights("int4"));

    let report = workspace.succeed(&train("json", &["--json"])).json();
    assert_eq!(report["steps"], 4);
    assert_eq!(report["trained_texts"], 23);
    assert!(report["cosine_after"].as_f64() >= report["cosine_before"].as_f64());

    let outcome = workspace.succeed(&[
        "compare",
        "model",
        "--methods",
        "dynamic",
        "--quantized",
        "int8",
        "--quantized",
        "w4a8",
        "--json",
    ]);
    let rows = outcome.json()["rows"].clone();
    let names: Vec<&str> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["original", "dynamic", "int8", "w4a8"]);
}

/// With the golden model of this name that has a head, and texts for it.
fn workspace_with_head(golden: &str) -> Workspace {
    let workspace = Workspace::predicting(golden);
    let words = ["the", "cat", "dog", "sat", "new", "york", "not"];
    let text = |index: usize| {
        let words = (0..=index % 4).map(|place| words[(index / 4 + place * 5) % 7]);
        words.collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = (0..24).map(text).collect();
    workspace.write("texts.txt", texts.join("\n"));
    workspace
}

#[test]
fn heads_are_trained_and_judged_by_their_logits() {
    for (golden, measure, has_answers) in [
        ("bert-single-label", "kullback_leibler", true),
        ("bert-multi-label", "kullback_leibler", true),
        ("bert-token-classification", "kullback_leibler", true),
        ("roberta-question-answering", "kullback_leibler", true),
        ("bert-regression", "relative_squared_distance", false),
        // One label.
        ("bert-cross-encoder", "relative_squared_distance", false),
    ] {
        let workspace = workspace_with_head(golden);
        let report = workspace.succeed(&train("out", &["--json"])).json();
        let [before, after] = ["logits_before", "logits_after"].map(|key| report[key].clone());
        assert_eq!(after["measure"], measure, "{golden}");
        let distance = |logits: &serde_json::Value| logits["distance"].as_f64().unwrap();
        assert!(distance(&after) <= distance(&before), "{golden}: {report}");
        assert!(distance(&before) > 0.0, "{golden}: {report}");
        assert_eq!(after["same_answers"].is_f64(), has_answers, "{golden}");
        assert!(report["cosine_after"].is_f64(), "{golden}");
    }
    // A head that predicts words stays, and what is measured are embeddings.
    let workspace = workspace_with_head("bert-masked-lm");
    let report = workspace.succeed(&train("out", &["--json"])).json();
    assert!(report.get("logits_after").is_none(), "{report}");

    let workspace = workspace_with_head("bert-single-label");
    let shown = workspace
        .succeed(&train("out", &["--activations", "static"]))
        .stdout;
    for line in [
        "mean KL divergence from the float model's probabilities on 1 text held out: ",
        "same answers: ",
        "mean cosine of the embeddings: ",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    // What was written predicts, and loaders see what its method writes.
    let labels = |model: &str| {
        let rows = workspace.succeed(&["predict", model, "-i", "texts.txt", "--json"]);
        rows.stdout.lines().count()
    };
    assert_eq!(labels("out"), labels("model"));
    workspace.succeed(&[
        "quantize",
        "model",
        "-o",
        "plain",
        "--method",
        "static",
        "--calibration",
        "texts.txt",
    ]);
    assert_eq!(
        workspace.json("out/config.json"),
        workspace.json("plain/config.json")
    );
}

#[test]
fn heads_that_do_not_fit_are_refused() {
    let refused = |edit: &dyn Fn(&Workspace)| {
        let workspace = workspace_with_head("bert-single-label");
        edit(&workspace);
        let message = workspace.fail(&train("out", &[]));
        assert!(!workspace.path("out").exists(), "{message}");
        assert!(!workspace.path("out.training").exists(), "{message}");
        message
    };
    let message = refused(&|workspace| {
        workspace.edit_config(|config| config["id2label"] = serde_json::json!({"0": "one"}));
    });
    assert!(message.contains("`classifier.weight`"), "{message}");
    assert!(message.contains("config.json has 1 labels"), "{message}");
    let message = refused(&|workspace| {
        workspace.edit_weights(|header, _| {
            let header = header.as_object_mut().unwrap();
            let weight = header.remove("bert.pooler.dense.weight").unwrap();
            header.insert("bert.extra.weight".to_owned(), weight);
        });
    });
    assert!(message.contains("`bert.pooler.dense.weight`"), "{message}");
    let message = refused(&|workspace| workspace.write("texts.txt", "\n\n \n"));
    assert!(message.contains("texts.txt"), "{message}");
}

#[test]
fn what_does_not_go_together_is_wrong_usage() {
    let workspace = workspace();
    let model = ["quantize", "model", "-o", "out"];
    let misuse = |flags: &[&str]| workspace.misuse(&[&model[..], flags].concat());
    for (flags, expected) in [
        (
            &["--method", "qat"][..],
            "--method qat: expected --data FILE",
        ),
        (
            &["--method", "dynamic", "--steps", "3"],
            "--steps goes with the method `qat` alone, found `dynamic`",
        ),
        (
            &["--method", "dynamic", "--weights", "nf4"],
            "--weights nf4: expected the method `qat`",
        ),
        (
            &["--method", "dynamic", "--activations", "static"],
            "--activations: expected per-token or per-tensor",
        ),
        (
            &["--method", "qat", "--data", "texts.txt", "--weights", "fp8"],
            "--weights: expected int8, int4 or nf4",
        ),
        (
            &[
                "--method",
                "qat",
                "--data",
                "texts.txt",
                "--weights",
                "nf4",
                "--activations",
                "dynamic",
            ],
            "--weights nf4: expected --activations none",
        ),
        (
            &[
                "--method",
                "qat",
                "--data",
                "texts.txt",
                "--activations",
                "per-tensor",
            ],
            "--activations per-tensor does not go with the method `qat`",
        ),
    ] {
        let message = misuse(flags);
        assert!(
            message.starts_with(&format!("error: {expected}")),
            "{message}"
        );
    }
    let fail = |flags: &[&str]| workspace.fail(&train("out", flags));
    let message = fail(&["--learning-rate", "0"]);
    assert!(
        message.contains("learning rate: expected a number above 0, found 0"),
        "{message}"
    );
    workspace.write("few.txt", "a dog\nthe sea\n");
    let few = [&model[..], &["--method", "qat", "--data", "few.txt"]].concat();
    let message = workspace.fail(&few);
    assert!(
        message.contains("training data: expected at least 17 texts"),
        "{message}"
    );
    assert!(!workspace.path("out").exists());
    assert!(!workspace.path("out.training").exists());
    let message = workspace.misuse(&["compare", "model", "--methods", "qat"]);
    assert!(
        message.contains("`--quantized DIR` compares it here"),
        "{message}"
    );
}

/// Ctrl-C leaves what was saved last, and says where that is.
#[cfg(unix)]
#[test]
fn a_signal_keeps_what_was_trained() {
    let workspace = workspace();
    let long = [
        &["quantize", "model", "-o", "out", "--method", "qat"][..],
        &["--data", "texts.txt", "--batch-size", "4"],
        &["--evaluation-interval", "1"],
        &["--steps", "10000000", "--patience", "10000000"],
    ]
    .concat();
    let child = Command::new(assert_cmd::cargo::cargo_bin("fewbit"))
        .current_dir(workspace.path("."))
        .args(&long)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let saved = || {
        let saved = workspace.path("out.training");
        saved.exists()
            && workspace
                .entries("out.training")
                .iter()
                .any(|entry| entry.starts_with("step-"))
    };
    while !saved() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let signal = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signal.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.ends_with(
            "interrupted: what is finished is kept in out.training\n  \
             hint: the same command with --resume goes on from there\n"
        ),
        "{text}"
    );
    assert!(saved() && !workspace.path("out").exists());
    let message = workspace.fail(&long);
    assert!(message.contains("go on with --resume"), "{message}");
}
