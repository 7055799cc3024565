//! `quantize --weight-only`: layers of `dynamic` whose weights alone are quantized.

use crate::tiny_model::Workspace;

const TEXTS: &str = "a small dog\nthe sea\nred\na red dog\n";
const CALIBRATION: [&str; 4] = ["--calibration", "texts.txt", "--samples", "4"];
const FEED_FORWARD: [&str; 4] = [
    "--weight-only",
    "*.intermediate.dense",
    "--weight-only",
    "*[0-9].output.dense",
];

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("texts.txt", TEXTS);
    workspace
}

fn quantize<'a>(out: &'a str, flags: &[&[&'a str]]) -> Vec<&'a str> {
    [&["quantize", "model", "-o", out][..], &flags.concat()].concat()
}

fn embed(workspace: &Workspace, model: &str) -> Vec<Vec<f32>> {
    let embedded = workspace.succeed(&["embed", model, "-i", "texts.txt"]);
    embedded.embeddings()
}

#[test]
fn some_layers_of_dynamic_are_weight_only() {
    let workspace = workspace();
    for method in ["dynamic", "weight-only"] {
        workspace.succeed(&quantize(method, &[&["--method", method]]));
    }
    let report = workspace.succeed(&quantize(
        "mixed",
        &[&["--method", "dynamic"], &FEED_FORWARD],
    ));
    assert!(
        report
            .stdout
            .starts_with("dynamic, some layers weight-only + int8 embeddings: "),
        "{}",
        report.stdout
    );
    let mixed = embed(&workspace, "mixed");
    assert_ne!(mixed, embed(&workspace, "dynamic"));
    assert_ne!(mixed, embed(&workspace, "weight-only"));
    // The codes and the scales of a layer take the same place, whatever becomes of its inputs.
    let bytes = |model: &str| {
        let inspection = workspace.succeed(&["inspect", model, "--json"]).json();
        assert_eq!(
            inspection["quantization"],
            "compressed-tensors int-quantized"
        );
        inspection["size"].clone()
    };
    assert_eq!(bytes("mixed"), bytes("dynamic"));
    // All layers are those of the method weight-only.
    workspace.succeed(&quantize(
        "all",
        &[&["--method", "dynamic", "--weight-only", "*"]],
    ));
    assert_eq!(embed(&workspace, "all"), embed(&workspace, "weight-only"));
    assert_eq!(
        workspace.read("all/model.safetensors"),
        workspace.read("dynamic/model.safetensors")
    );
}

#[test]
fn a_dry_run_shows_them_apart() {
    let workspace = workspace();
    let shown = workspace.succeed(&[
        "quantize",
        "model",
        "--method",
        "dynamic",
        "--dry-run",
        "--weight-only",
        "*.query",
    ]);
    let lines: Vec<&str> = shown.stdout.lines().collect();
    assert!(
        lines.contains(&"quantize to int8 per channel, activations per token: 10 tensors"),
        "{}",
        shown.stdout
    );
    let query = lines
        .iter()
        .position(|line| *line == "quantize to int8 per channel, weight-only: 2 tensors");
    let rows = &lines[query.unwrap()..][..5];
    assert_eq!(
        rows.iter()
            .filter(|line| line.contains(".query.weight"))
            .count(),
        2,
        "{rows:?}"
    );
}

#[test]
fn gptq_rounds_them_and_the_recipe_makes_them_again() {
    let workspace = workspace();
    for (name, more) in [
        ("rounded", &["--gptq"][..]),
        ("proof", &["--gptq", "--saturation-proof"]),
    ] {
        let flags: [&[&str]; 4] = [&["--method", "dynamic"], &FEED_FORWARD, more, &CALIBRATION];
        let report = workspace.succeed(&[&quantize(name, &flags)[..], &["--json"]].concat());
        let report = report.json();
        let actions: Vec<&str> = report["modules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|module| module["action"].as_str().unwrap())
            .collect();
        let proof = if more.len() == 2 {
            ", saturation-proof"
        } else {
            ""
        };
        for (kind, expected) in [("weight-only", 4), ("activations per token", 8)] {
            let action = format!("quantize to int8 per channel by GPTQ{proof}, {kind}");
            let found = actions.iter().filter(|found| **found == action).count();
            assert_eq!(found, expected, "{actions:?}");
        }
        let inspection = workspace.succeed(&["inspect", name, "--json"]).json();
        assert_eq!(
            inspection["saturation"]["saturation_proof"],
            more.len() == 2
        );
        assert_eq!(inspection["saturation"]["pairs"], 6912);
        embed(&workspace, name);

        let recipe = format!("{name}/recipe.toml");
        let again = format!("{name}-again");
        let replay = quantize(
            &again,
            &[&["--recipe", &recipe, "--threads", "1"], &CALIBRATION],
        );
        workspace.succeed(&replay);
        for file in ["model.safetensors", "config.json", "recipe.toml"] {
            assert_eq!(
                workspace.read(&format!("{name}/{file}")),
                workspace.read(&format!("{again}/{file}")),
                "{file}"
            );
        }
    }
    // GPTQ rounds weights, whatever becomes of the inputs at run time.
    workspace.succeed(&quantize(
        "pure",
        &[&["--method", "weight-only", "--gptq"], &CALIBRATION],
    ));
    workspace.succeed(&quantize(
        "all",
        &[
            &["--method", "dynamic", "--gptq", "--weight-only", "*"],
            &CALIBRATION,
        ],
    ));
    assert_eq!(embed(&workspace, "all"), embed(&workspace, "pure"));
}

#[test]
fn a_recipe_file_and_flags_add_up() {
    let workspace = workspace();
    workspace.write(
        "mixed.json",
        r#"{"version": 1, "method": "dynamic", "weight_only": ["*.intermediate.dense"]}"#,
    );
    workspace.succeed(&quantize(
        "both",
        &[&["--recipe", "mixed.json"], &FEED_FORWARD],
    ));
    workspace.succeed(&quantize(
        "flags",
        &[&["--method", "dynamic", "--keep-embeddings"], &FEED_FORWARD],
    ));
    for file in ["model.safetensors", "config.json", "recipe.toml"] {
        assert_eq!(
            workspace.read(&format!("both/{file}")),
            workspace.read(&format!("flags/{file}"))
        );
    }
    assert_eq!(
        String::from_utf8(workspace.read("both/recipe.toml")).unwrap(),
        "version = 1\nmethod = \"dynamic\"\nweight_only = [\"*.intermediate.dense\", \"*[0-9].output.dense\"]\n"
    );
}

#[test]
fn what_they_do_not_go_with_is_refused_and_leaves_nothing() {
    let workspace = workspace();
    let refused = |flags: &[&str]| workspace.misuse(&quantize("no", &[flags]));
    let query = ["--weight-only", "*.query"];
    let with = |flags: &[&'static str]| [flags, &query].concat();
    insta::assert_snapshot!(refused(&with(&[&["--method", "static"], &CALIBRATION[..]].concat())), @r#"
    error: --weight-only: does not go with the method `static`
      hint: a layer that is not static is quantized per token there; use `dynamic` for layers of both kinds
    "#);
    insta::assert_snapshot!(refused(&with(&["--method", "weight-only"])), @r#"
    error: --weight-only: does not go with the method `weight-only`
      hint: all layers are: leave the patterns out
    "#);
    insta::assert_snapshot!(refused(&with(&["--method", "bf16"])), @r#"
    error: --weight-only: does not go with the method `bf16`
      hint: `dynamic` has layers whose weights alone are quantized
    "#);
    insta::assert_snapshot!(refused(&["--method", "dynamic", "--weight-only", "*.qeury"]), @"
    error: --weight-only: pattern `*.qeury` matches no linear layer that would be quantized
      hint: modules with near names: encoder.layer.0.output.dense, encoder.layer.1.output.dense, encoder.layer.0.attention.self.query, encoder.layer.0.attention.self.key, encoder.layer.0.intermediate.dense
    ");
    insta::assert_snapshot!(refused(&with(&["--method", "dynamic", "--skip", "*.query"])), @"
    error: --weight-only: pattern `*.query` matches no linear layer that would be quantized
      hint: `encoder.layer.0.attention.self.query` stays float, as it matches the skip pattern `*.query`: leave out one of the two
    ");
    workspace.write(
        "slip.toml",
        "version = 1\nmethod = \"dynamic\"\nweight_only = [\"*.qeury\"]\n",
    );
    insta::assert_snapshot!(workspace.fail(&quantize("no", &[&["--recipe", "slip.toml"]])), @"
    error: slip.toml: `weight_only`: pattern `*.qeury` matches no linear layer that would be quantized
      hint: modules with near names: encoder.layer.0.output.dense, encoder.layer.1.output.dense, encoder.layer.0.attention.self.query, encoder.layer.0.attention.self.key, encoder.layer.0.intermediate.dense
    ");
    assert_eq!(workspace.entries("."), ["model", "slip.toml", "texts.txt"]);
}
