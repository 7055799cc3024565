//! Models that the program does not run.

use crate::tiny_model::Workspace;
use serde_json::json;

#[test]
fn what_inspect_and_a_dry_run_say() {
    let workspace = Workspace::new();
    workspace.edit_config(|config| config["model_type"] = json!("mamba"));
    let text = workspace.succeed(&["inspect", "model"]).stdout;
    assert!(
        text.contains("mamba, a model that fewbit does not run"),
        "{text}"
    );
    let methods = text.split("What each method").nth(1).unwrap();
    for method in ["fp16", "bf16", "weight-only", "nf4", "fp4"] {
        assert!(methods.contains(method), "{text}");
    }
    assert!(
        !methods.contains("\ndynamic") && !methods.contains("\nstatic "),
        "{text}"
    );
    let dry = [
        "quantize",
        "model",
        "-o",
        "out",
        "--method",
        "nf4",
        "--dry-run",
    ];
    let text = workspace.succeed(&dry).stdout;
    for line in [
        "encoder.layer.0.attention.self.query.weight",
        "embeddings.word_embeddings: tables that are looked up stay float",
        "note: `model_type` mamba: fewbit does not run this model; what is a linear layer was told from the names and shapes of its tensors",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let json = workspace.succeed(&["inspect", "model", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["model_type"], "mamba");
    assert!(json.get("layers").is_none() && json["tensors"].is_array());
}

/// Weights and nothing else.
#[test]
fn a_checkpoint_without_a_config_is_known_by_its_tensors() {
    let workspace = Workspace::new();
    std::fs::remove_file(workspace.path("model/config.json")).unwrap();
    let text = workspace.succeed(&["inspect", "model"]).stdout;
    assert!(
        text.contains("unknown, a model that fewbit does not run"),
        "{text}"
    );
    for method in ["nf4", "fp16", "weight-only"] {
        let quantize = ["quantize", "model", "-o", method, "--method", method];
        let text = workspace.succeed(&quantize).stdout;
        assert!(
            text.contains("no config.json says what model this is, and loaders will want one"),
            "{text}"
        );
        // It can be looked at like any other.
        let json = workspace.succeed(&["inspect", method, "--json"]).stdout;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["model_type"], "unknown");
    }
    assert_eq!(
        workspace.json("fp16/config.json"),
        json!({"dtype": "float16"})
    );
    let refused = workspace.fail(&["quantize", "model", "-o", "out", "--method", "dynamic"]);
    assert!(
        refused.contains("model: not a checkpoint: expected config.json, found none"),
        "{refused}"
    );
}

/// What a recipe file says is told of the file, not of a flag that nobody typed.
#[test]
fn a_recipe_file_that_the_model_does_not_fit_is_named() {
    let workspace = Workspace::new();
    workspace.edit_config(|config| config["model_type"] = json!("mamba"));
    workspace.write(
        "r.toml",
        "version = 1\nmethod = \"weight-only\"\nquantize_embeddings = true\n",
    );
    let text = workspace.fail(&["quantize", "model", "-o", "out", "--recipe", "r.toml"]);
    assert!(
        text.starts_with("error: r.toml: `embeddings`: expected a model that fewbit runs"),
        "{text}"
    );
    let flags = [
        "quantize",
        "model",
        "-o",
        "out",
        "--method",
        "weight-only",
        "--quantize-embeddings",
    ];
    let text = workspace.misuse(&flags);
    assert!(
        text.starts_with("error: --quantize-embeddings: expected a model"),
        "{text}"
    );
}
