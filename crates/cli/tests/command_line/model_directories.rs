//! Directories that are more than one checkpoint: an adapter beside its base, an encoder in a folder.

use crate::tiny_model::Workspace;
use serde_json::Value;
use std::path::Path;

/// Copies the golden adapter of this name beside the model.
fn add_adapter(workspace: &Workspace, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../model/tests/golden/adapters")
        .join(name);
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        workspace.write(&format!("model/{file}"), bytes);
    }
}

fn largest_difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn base_and_adapter_are_quantized_into_one_model() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a cat\nthe long walk by the sea\n");
    let embed = |model: &str| {
        workspace
            .succeed(&["embed", model, "-i", "texts.txt"])
            .embeddings()
    };
    let base = embed("model");
    add_adapter(&workspace, "lora");
    let both = embed("model");
    assert!(largest_difference(&base, &both) > 0.01);

    let report = workspace.succeed(&["quantize", "model", "-o", "merged", "--method", "fp16"]);
    assert!(report.stdout.contains("adapter"), "{}", report.stdout);
    let files = workspace.entries("merged");
    assert!(
        files.iter().all(|name| !name.starts_with("adapter")),
        "{files:?}"
    );
    // fp16 keeps 11 bits; the base alone is farther away by far.
    let merged = embed("merged");
    assert!(largest_difference(&merged, &both) < 0.01);

    let inspection = workspace.succeed(&["inspect", "model", "--json"]).json();
    assert_eq!(inspection["model_type"], "bert");
}

/// `compare` and `bench` run base and adapter together, also in the models that they make.
#[test]
fn base_and_adapter_are_compared_and_timed_as_one_model() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a cat\nthe long walk by the sea\n");
    let rows = |what: &str| {
        let comparison = workspace.succeed(&[
            "compare",
            "model",
            "--texts",
            "texts.txt",
            "--methods",
            "fp16,dynamic",
            "--keep",
            what,
            "--threads",
            "1",
            "--json",
        ]);
        comparison.json()["rows"].as_array().unwrap().clone()
    };
    rows("base-only");
    add_adapter(&workspace, "lora");
    let rows = rows("both");
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["original", "fp16", "dynamic"]);
    let embed = |model: &str| {
        workspace
            .succeed(&["embed", model, "-i", "texts.txt"])
            .embeddings()
    };
    let both = embed("model");
    // fp16 keeps 11 bits; the base alone is farther away by far.
    assert!(largest_difference(&embed("both/fp16"), &both) < 0.01);
    assert!(largest_difference(&embed("base-only/fp16"), &both) > 0.01);
    for row in &rows[1..] {
        let cosine = row["agreement"]["mean_cosine"].as_f64().unwrap();
        assert!(cosine > 0.99, "{row}");
    }

    let quick = ["--seconds", "0.001", "--rounds", "1"];
    let bench = [
        "bench",
        "model",
        "both/fp16",
        "--batch",
        "1",
        "--tokens",
        "8",
    ];
    let benchmark =
        workspace.succeed(&[&bench[..], &["--threads", "1", "--json"], &quick].concat());
    let results = &benchmark.json()["shapes"][0]["models"];
    let models: Vec<&Value> = results
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["model"])
        .collect();
    assert_eq!(models, ["model", "fp16"]);
}

/// `0_Transformer`, as sentence-transformers once wrote it.
#[test]
fn an_encoder_in_a_folder_is_found_by_every_command() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a cat\nthe long walk by the sea\n");
    std::fs::create_dir_all(workspace.path("old/1_Pooling")).unwrap();
    std::fs::rename(workspace.path("model"), workspace.path("old/0_Transformer")).unwrap();
    let modules = r#"[
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    ]"#;
    workspace.write("old/modules.json", modules);
    workspace.write(
        "old/1_Pooling/config.json",
        r#"{"word_embedding_dimension": 32, "pooling_mode_mean_tokens": true}"#,
    );
    // What versions before 1.0 wrote beside the folders.
    workspace.write("old/config.json", r#"{"__version__": "0.2.5"}"#);
    let embed = |model: &str| {
        workspace
            .succeed(&["embed", model, "-i", "texts.txt"])
            .embeddings()
    };
    let before = embed("old");
    let inspection = workspace.succeed(&["inspect", "old", "--json"]).json();
    assert_eq!(inspection["model_type"], "bert");
    workspace.succeed(&["quantize", "old", "-o", "new", "--method", "fp16"]);
    assert_eq!(workspace.json("new/modules.json")[0]["path"], "");
    assert!(!workspace.path("new/0_Transformer").exists());
    assert!(workspace.path("new/model.safetensors").exists());
    assert!(largest_difference(&embed("new"), &before) < 0.01);
    workspace.succeed(&[
        "quantize",
        "old",
        "-o",
        "new-dynamic",
        "--method",
        "dynamic",
        "--dry-run",
    ]);
}

/// int8 embeddings are refused where they are asked for, and not among what is tried unasked.
#[test]
fn a_head_that_shares_the_embeddings_keeps_them_float() {
    let workspace = Workspace::with("bert-masked-lm");
    let error = workspace.fail(&[
        "quantize",
        "model",
        "-o",
        "out",
        "--method",
        "dynamic",
        "--quantize-embeddings",
    ]);
    assert!(error.contains("cls.predictions"), "{error}");
    assert!(error.contains("hint:"), "{error}");
    assert!(!workspace.path("out").exists());
    let inspection = workspace.succeed(&["inspect", "model", "--json"]).json();
    let methods = inspection["methods"].as_array().unwrap();
    assert!(!methods.is_empty());
    assert!(
        methods
            .iter()
            .all(|method| method["recipe"]["quantize_embeddings"] != true)
    );
}
