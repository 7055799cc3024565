//! `fewbit sensitivity`, and recipes that mix weights.

use crate::tiny_model::Workspace;
use serde_json::Value;

const TEXTS: &str = "a small dog\nthe sea\nred\na red dog\n";

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("texts.txt", TEXTS);
    workspace
}

/// `fewbit sensitivity` with int8 and int4 per channel, and these arguments.
fn with<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let begin = [
        "sensitivity",
        "model",
        "--calibration",
        "texts.txt",
        "--weights",
        "int8,int4+channel",
    ];
    [&begin[..], arguments].concat()
}

fn bytes(report: &Value) -> u64 {
    report["file_bytes"].as_u64().unwrap()
}

#[test]
fn the_recipe_makes_the_model_that_is_reported() {
    let workspace = workspace();
    let json = |arguments: &[&str]| workspace.succeed(&with(arguments)).json();
    let least = json(&["--min-cosine", "-1", "--json"]);
    let most = least["uniform"][0]["file_bytes"].as_u64().unwrap();
    let limit = ((bytes(&least) + most) / 2).to_string();
    let report = json(&["--max-bytes", &limit, "-o", "recipe.json", "--json"]);
    assert!(bytes(&report) <= limit.parse().unwrap());
    let written: Value = serde_json::from_slice(&workspace.read("recipe.json")).unwrap();
    assert_eq!(written, report["recipe"]);
    assert!(!written["modules"].as_object().unwrap().is_empty());
    let quantize = [
        "quantize",
        "model",
        "-o",
        "out",
        "--recipe",
        "recipe.json",
        "--json",
    ];
    assert_eq!(bytes(&workspace.succeed(&quantize).json()), bytes(&report));
    // A recipe file is a method of a comparison, too.
    let methods = [
        "compare",
        "model",
        "--methods",
        "dynamic,recipe.json",
        "--json",
    ];
    let comparison = workspace.succeed(&methods).json();
    let names = comparison["rows"].as_array().unwrap().iter();
    let names: Vec<&str> = names.map(|row| row["name"].as_str().unwrap()).collect();
    assert!(names[2].contains(", mixed weights "), "{names:?}");
}

#[test]
fn people_see_costs_and_what_was_chosen() {
    let workspace = workspace();
    let arguments = [
        "--max-bytes",
        "1GB",
        "-o",
        "recipe.toml",
        "--gptq",
        "--method",
        "dynamic",
    ];
    let shown = workspace.succeed(&with(&arguments)).stdout;
    for expected in [
        "encoder.layer.0.attention.self.{query,key,value}",
        "int4+channel",
        "over 4 texts; all else is int8",
        "mixed, as chosen",
        "recipe written to recipe.toml",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let refused = workspace.fail(&with(&["--max-bytes", "1GB", "-o", "recipe.toml"]));
    assert!(refused.contains("force"), "{refused}");
    workspace.succeed(&with(&[
        "--max-bytes",
        "1GB",
        "-o",
        "recipe.toml",
        "--force",
    ]));
}

/// Layers may stay float, and the ranges of static inputs come of the same texts.
#[test]
fn floats_are_a_choice_beside_static_inputs() {
    let workspace = workspace();
    let sensitivity = |limit: &str| {
        let arguments = [
            "sensitivity",
            "model",
            "--calibration",
            "texts.txt",
            "--method",
            "static",
            "--weights",
            "float,int8,int4+channel",
            "--max-bytes",
            limit,
            "-o",
            "recipe.toml",
            "--force",
            "--json",
        ];
        workspace.succeed(&arguments).json()
    };
    // Before anything is chosen, a layer of floats more than int8 everywhere has.
    let quantize = [
        "quantize",
        "model",
        "-o",
        "int8",
        "--method",
        "weight-only",
        "--json",
    ];
    let int8 = bytes(&workspace.succeed(&quantize).json());
    let report = sensitivity(&(int8 + 6000).to_string());
    assert_eq!(report["baseline"], "float");
    let recipe = &report["recipe"];
    assert_eq!(recipe["method"], "static");
    assert!(!recipe["skip"].as_array().unwrap().is_empty(), "{recipe}");
    assert!(!recipe["static_inputs"].as_object().unwrap().is_empty());
    let quantize = ["quantize", "model", "-o", "out", "--recipe", "recipe.toml"];
    let written = workspace
        .succeed(&[&quantize[..], &["--json"]].concat())
        .json();
    assert_eq!(bytes(&written), bytes(&report));
    workspace.succeed(&["embed", "out", "-i", "texts.txt"]);
}

/// There is nothing to measure by where fewbit cannot run the model.
#[test]
fn models_that_are_not_run_are_refused_by_their_type() {
    let workspace = workspace();
    let mut config = workspace.json("model/config.json");
    config["model_type"] = "mamba".into();
    workspace.write("model/config.json", config.to_string());
    let text = workspace.fail(&with(&["--max-bytes", "1GB"]));
    assert!(text.contains("mamba"), "{text}");
    workspace.write(
        "recipe.toml",
        "version = 1\nmethod = \"weight-only\"\n[modules.\"*.query\"]\nweights = \"int4\"\n",
    );
    let quantize = ["quantize", "model", "-o", "out", "--recipe", "recipe.toml"];
    let text = workspace.fail(&quantize);
    assert!(
        text.contains("`modules`: expected a model that fewbit runs"),
        "{text}"
    );
}

#[test]
fn limits_that_no_mixture_keeps_and_wrong_words_are_refused() {
    let workspace = workspace();
    let failed = |arguments: &[&str]| workspace.fail(&with(arguments));
    let text = failed(&["--max-bytes", "1kB", "-o", "recipe.toml"]);
    assert!(text.contains("max-bytes: expected at least "), "{text}");
    let text = failed(&["--min-cosine", "1", "-o", "recipe.toml"]);
    assert!(text.contains("min-cosine: expected at most 0."), "{text}");
    assert!(!workspace.path("recipe.toml").exists());
    let text = failed(&["--max-bytes", "1GB", "--skip", "*.quarry"]);
    assert!(text.contains("matches no module"), "{text}");
    let misused = |arguments: &[&str]| workspace.misuse(&with(arguments));
    assert!(misused(&[]).contains("--max-bytes"));
    let both = misused(&["--max-bytes", "1GB", "--min-cosine", "0.9"]);
    assert!(both.contains("cannot be used with"), "{both}");
    let text = misused(&["--max-bytes", "1GB", "--group-size", "8"]);
    assert!(
        text.contains("--group-size: expected int4 without"),
        "{text}"
    );
    let text = workspace.misuse(&[
        "sensitivity",
        "model",
        "--calibration",
        "texts.txt",
        "--max-bytes",
        "1GB",
        "--weights",
        "int3",
    ]);
    assert!(text.contains("unknown weights `int3`"), "{text}");
}
