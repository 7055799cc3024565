//! `--weight-only-in`: what layers compute in whose weights alone are int8.

use crate::tiny_model::{Outcome, Workspace};

const VARIABLE: &str = "FEWBIT_WEIGHT_ONLY";

/// With a model of each method.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a small dog\nthe sea\nred\na red dog\n");
    for method in ["dynamic", "weight-only"] {
        workspace.succeed(&["quantize", "model", "-o", method, "--method", method]);
    }
    workspace
}

/// The embeddings by a model, with these flags and perhaps the variable.
fn embed(
    workspace: &Workspace,
    model: &str,
    flags: &[&str],
    variable: Option<&str>,
) -> Vec<Vec<f32>> {
    let arguments = [&["embed", model, "-i", "texts.txt"], flags].concat();
    let mut command = workspace.command(&arguments);
    if let Some(value) = variable {
        command.env(VARIABLE, value);
    }
    let outcome = Outcome::of(&mut command);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.embeddings()
}

const FLOATS: &[&str] = &["--weight-only-in", "floats"];
const INTEGERS: &[&str] = &["--weight-only-in", "integers"];

#[test]
fn the_flag_does_what_the_variable_does_and_goes_before_it() {
    let workspace = workspace();
    let embed = |model, flags, variable| embed(&workspace, model, flags, variable);
    let integers = embed("weight-only", &[], None);
    let floats = embed("weight-only", FLOATS, None);
    assert_ne!(floats, integers);
    assert_eq!(embed("weight-only", &[], Some("floats")), floats);
    assert_eq!(embed("weight-only", &[], Some("")), integers);
    for variable in ["integers", "floats", "", "no such word"] {
        assert_eq!(embed("weight-only", FLOATS, Some(variable)), floats);
        assert_eq!(embed("weight-only", INTEGERS, Some(variable)), integers);
    }
    // Layers whose inputs are quantized to 8 bits are not concerned.
    let dynamic = embed("dynamic", &[], None);
    for flags in [FLOATS, INTEGERS] {
        assert_eq!(embed("dynamic", flags, None), dynamic);
    }
}

#[test]
fn it_concerns_the_layers_of_a_mixture_that_are_weight_only() {
    let workspace = workspace();
    let out = |name, glob| {
        let arguments = ["quantize", "model", "-o", name, "--method", "dynamic"];
        workspace.succeed(&[&arguments[..], &["--weight-only", glob]].concat());
    };
    out("mixed", "*.intermediate.dense");
    out("all", "*");
    let embed = |model, flags| embed(&workspace, model, flags, None);
    assert_ne!(embed("mixed", FLOATS), embed("mixed", INTEGERS));
    assert_ne!(embed("mixed", FLOATS), embed("weight-only", FLOATS));
    assert_eq!(embed("all", FLOATS), embed("weight-only", FLOATS));
}

/// Each model is measured in a process of its own.
#[test]
fn compare_and_bench_pass_it_on() {
    let workspace = workspace();
    let compare = |flags: &[&str]| {
        let arguments = ["compare", "model", "--methods", "weight-only", "--json"];
        workspace.succeed(&[&arguments[..], flags].concat()).json()
    };
    let cosine = |comparison: &serde_json::Value| {
        let row = &comparison["rows"][1];
        assert_eq!(row["name"], "weight-only");
        row["agreement"]["mean_cosine"].as_f64().unwrap()
    };
    let (integers, floats) = (compare(&[]), compare(FLOATS));
    assert_eq!(integers["weight_only_in"], "integers");
    assert_eq!(floats["weight_only_in"], "floats");
    assert_eq!(
        compare(INTEGERS)["rows"][1]["agreement"],
        integers["rows"][1]["agreement"]
    );
    assert_ne!(cosine(&floats), cosine(&integers));
    let arguments = ["compare", "model", "--methods", "weight-only"];
    let noted = |flags: &[&str], note: &str| {
        let shown = workspace.succeed(&[&arguments[..], flags].concat()).stdout;
        assert!(shown.contains(note), "{shown}");
    };
    noted(&[], "weight-only computes in integers");
    noted(FLOATS, "weight-only computes in floats");

    let bench = |flags: &[&str]| {
        let arguments = [
            "bench",
            "weight-only",
            "dynamic",
            "--batch",
            "1",
            "--tokens",
            "4",
            "--seconds",
            "0.001",
            "--rounds",
            "1",
            "--json",
        ];
        let benchmark = workspace.succeed(&[&arguments[..], flags].concat()).json();
        [0, 1].map(|model| {
            let model = &benchmark["models"][model];
            model["arithmetic"].as_str().unwrap().to_owned()
        })
    };
    assert_eq!(bench(&[]), ["int8", "int8"]);
    assert_eq!(bench(FLOATS), ["f32", "int8"]);
}

#[test]
fn another_word_is_wrong_usage() {
    let workspace = workspace();
    for arguments in [
        &["embed", "weight-only", "-i", "texts.txt"][..],
        &["bench", "weight-only"],
        &["compare", "model", "--methods", "weight-only"],
    ] {
        let refused = workspace.misuse(&[arguments, &["--weight-only-in", "bits"]].concat());
        assert!(
            refused.starts_with("error: invalid value 'bits' for '--weight-only-in <NUMBERS>'\n  [possible values: integers, floats]\n"),
            "{refused}"
        );
    }
    // A sweep has no such layers.
    let sweep = [
        "compare",
        "model",
        "--calibration",
        "texts.txt",
        "--calibration-sweep",
        "1",
    ];
    let refused = workspace.misuse(&[&sweep[..], FLOATS].concat());
    assert!(refused.contains("cannot be used with"), "{refused}");
    // The variable is no flag: what is wrong is the surroundings.
    let mut command = workspace.command(&["embed", "weight-only", "-i", "texts.txt"]);
    let outcome = Outcome::of(command.env(VARIABLE, "float"));
    assert_eq!(outcome.code, Some(1));
    assert_eq!(
        outcome.stderr,
        "error: FEWBIT_WEIGHT_ONLY: expected `integers` or `floats`, found `float`\n"
    );
}
