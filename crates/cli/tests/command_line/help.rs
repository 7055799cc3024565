//! Help, usage errors, and the small commands.

use crate::tiny_model::{Outcome, Workspace};

#[test]
fn every_command_explains_itself_on_standard_output() {
    let workspace = Workspace::new();
    let mut shown = String::new();
    for command in [
        vec!["--help"],
        vec!["inspect", "--help"],
        vec!["quantize", "--help"],
        vec!["embed", "--help"],
        vec!["compare", "--help"],
    ] {
        let outcome = Outcome::of(workspace.command(&command).env("COLUMNS", "110"));
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        assert!(
            outcome
                .stdout
                .lines()
                .all(|line| line.chars().count() <= 120),
            "{}",
            outcome.stdout
        );
        shown += &format!("$ fewbit {}\n{}\n", command.join(" "), outcome.stdout);
    }
    assert!(!shown.contains("measure-one-model"));
    insta::assert_snapshot!(shown);
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_was_expected() {
    let workspace = Workspace::new();
    let first_line = |arguments: &[&str]| {
        workspace
            .misuse(arguments)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    insta::assert_snapshot!(first_line(&["quantise", "model"]), @"error: unrecognized subcommand 'quantise'");
    insta::assert_snapshot!(first_line(&["quantize", "model", "-o", "out", "--method", "int3"]), @"error: invalid value 'int3' for '--method <METHOD>'");
    insta::assert_snapshot!(first_line(&["quantize", "model", "--method", "nf4"]), @"error: the following required arguments were not provided:");
    insta::assert_snapshot!(first_line(&["quantize", "model", "-o", "out"]), @"error: the following required arguments were not provided:");
    insta::assert_snapshot!(first_line(&["embed", "model", "--threads", "0"]), @"error: invalid value '0' for '--threads <N>': 0 is not in 1..=1024");
    insta::assert_snapshot!(first_line(&["embed", "model", "--batch-size", "0"]), @"error: invalid value '0' for '--batch-size <N>': 0 is not in 1..=65536");
    insta::assert_snapshot!(first_line(&["compare", "model", "--max-drop", "-1"]), @"error: --max-drop: expected a number of points, 0 or more, found -1");
    insta::assert_snapshot!(first_line(&["compare", "model", "--max-drop", "nan"]), @"error: --max-drop: expected a number of points, 0 or more, found NaN");
    insta::assert_snapshot!(first_line(&["compare", "model", "--methods", "dynamic,int3"]), @"error: --methods: unknown method `int3`: expected one of fp16, bf16, dynamic, weight-only, nf4, fp4, int4 (the same as nf4)");
    insta::assert_snapshot!(first_line(&["compare", "model", "--methods", "nf4+embeddings"]), @"error: --methods: recipe: `quantize_embeddings`: expected false with the method `nf4`, found true");
    insta::assert_snapshot!(first_line(&["compare", "model", "--methods", "nf4+triple"]), @"error: --methods: `nf4+triple`: expected a method with `+embeddings` or `+double`, found `+triple`");
}

#[test]
fn doctor_says_where_the_number_of_threads_comes_from() {
    let workspace = Workspace::new();
    let outcome = Outcome::of(
        workspace
            .command(&["doctor", "--json"])
            .env("OMP_NUM_THREADS", "3"),
    );
    let diagnosis = outcome.json();
    assert_eq!(
        diagnosis["threads"],
        serde_json::json!({"count": 3, "source": {"environment": "OMP_NUM_THREADS"}})
    );
    assert!(
        diagnosis["hub_cache"]
            .as_str()
            .unwrap()
            .starts_with(workspace.path("hugging-face-home").to_str().unwrap())
    );
    let text = workspace.succeed(&["doctor", "--threads", "2"]).stdout;
    assert!(
        text.contains("threads          2, from the threads argument\n"),
        "{text}"
    );
    let wrong = Outcome::of(
        workspace
            .command(&["doctor"])
            .env("RAYON_NUM_THREADS", "two"),
    );
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.starts_with("error: RAYON_NUM_THREADS: expected a number of threads from 1 to 1024, found `two`\n  hint: "), "{}", wrong.stderr);
}

#[test]
fn kernels_lists_the_instruction_sets_and_follows_the_variable() {
    let workspace = Workspace::new();
    let outcome = Outcome::of(
        workspace
            .command(&["kernels", "--json"])
            .env("FEWBIT_ISA", "scalar"),
    );
    assert_eq!(
        outcome.json()[0],
        serde_json::json!({"isa": "scalar", "supported": true, "used": true})
    );
    let unknown = Outcome::of(workspace.command(&["kernels"]).env("FEWBIT_ISA", "mmx"));
    assert_eq!(unknown.code, Some(1));
    assert!(
        unknown.stderr.starts_with("error: ")
            && unknown.stderr.contains("FEWBIT_ISA")
            && unknown.stderr.contains("mmx"),
        "{}",
        unknown.stderr
    );
}
