//! The modules of sentence-transformers that follow an encoder, through the program.

use crate::tiny_model::Workspace;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden")
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// A directory to run in with a golden model of `sentence_modules`, as `NAME`, and texts.
fn workspace(name: &str) -> Workspace {
    let workspace = Workspace::new();
    let model = workspace.path(name);
    let source = golden().join("sentence_modules").join(name);
    copy_folder(&source, &model);
    let calls: Value =
        serde_json::from_slice(&std::fs::read(source.join("calls.json")).unwrap()).unwrap();
    for (folder, encoder) in calls["encoders"].as_object().unwrap() {
        let encoder = golden().join("pooling").join(encoder.as_str().unwrap());
        for file in [
            "config.json",
            "model.safetensors",
            "tokenizer_config.json",
            "vocab.txt",
        ] {
            std::fs::copy(encoder.join(file), model.join(folder).join(file)).unwrap();
        }
    }
    for file in ["calls.json", "expected.safetensors"] {
        std::fs::remove_file(model.join(file)).unwrap();
    }
    workspace.write("texts.txt", "hello world\nthe cat sat on the mat\n");
    workspace
}

fn embed(workspace: &Workspace, model: &str, flags: &[&str]) -> Vec<Vec<f32>> {
    let arguments = [&["embed", model, "-i", "texts.txt"][..], flags].concat();
    workspace.succeed(&arguments).embeddings()
}

fn largest_difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_task_chooses_the_prompt_and_a_prompt_comes_first() {
    let workspace = workspace("embedding-gemma");
    let of = |flags: &[&str]| embed(&workspace, "embedding-gemma", flags);
    let query = of(&["--task", "query"]);
    assert_eq!(query, of(&["--prompt-name", "query"]));
    assert_eq!(query, of(&["--prompt", "task: search result | query: "]));
    assert_ne!(query, of(&["--task", "document"]));
    assert_ne!(query, of(&[]));
    let prompt = [
        "--task",
        "document",
        "--prompt",
        "task: search result | query: ",
    ];
    assert_eq!(query, of(&prompt));
    let refused = workspace.fail(&[
        "embed",
        "embedding-gemma",
        "-i",
        "texts.txt",
        "--task",
        "web",
    ]);
    insta::assert_snapshot!(refused, @r"
    error: task: expected `query` or `document`, as the model has no Router with other routes, found `web`
      hint: leave it out, or name a prompt of the model instead
    ");
}

#[test]
fn a_task_chooses_the_route() {
    let workspace = workspace("router-of-encoders");
    let of = |flags: &[&str]| embed(&workspace, "router-of-encoders", flags);
    assert_eq!(of(&["--task", "document", "--prompt", ""]), of(&[]));
    assert_ne!(of(&["--task", "query", "--prompt", ""]), of(&[]));
    let texts = [
        workspace.fail(&[
            "embed",
            "router-of-encoders",
            "-i",
            "texts.txt",
            "--task",
            "web",
        ]),
        workspace.fail(&["inspect", "router-of-encoders"]),
        workspace.fail(&[
            "quantize",
            "router-of-encoders",
            "-o",
            "out",
            "--method",
            "fp16",
        ]),
    ];
    insta::assert_snapshot!(texts.join("\n"), @r"
    error: router-of-encoders/router_config.json: `structure`: expected a route for the task `web`, found routes for `document`, `query`
      hint: choose a route with --task NAME

    error: router-of-encoders: expected one encoder, found a Router of sentence-transformers with those of its routes in `query_0_Transformer`, `document_0_Transformer`
      hint: `embed` runs the model as it is; anything else takes the folder of one encoder, such as router-of-encoders/query_0_Transformer, and what is made of it can stand in its place

    error: router-of-encoders: expected one encoder, found a Router of sentence-transformers with those of its routes in `query_0_Transformer`, `document_0_Transformer`
      hint: `embed` runs the model as it is; anything else takes the folder of one encoder, such as router-of-encoders/query_0_Transformer, and what is made of it can stand in its place
    ");
    // As the hint says it.
    let encoder = "router-of-encoders/query_0_Transformer";
    workspace.succeed(&["quantize", encoder, "-o", "out", "--method", "fp16"]);
    let before = of(&["--task", "query"]);
    std::fs::remove_dir_all(workspace.path(encoder)).unwrap();
    std::fs::rename(workspace.path("out"), workspace.path(encoder)).unwrap();
    let after = of(&["--task", "query"]);
    assert_ne!(after, before);
    assert!(largest_difference(&after, &before) < 0.02);
}

/// The folders of modules come along as they are: also a Router's, with those inside it, and weights that another tool pickled.
#[test]
fn modules_come_along_when_a_model_is_quantized() {
    for (name, kept) in [
        (
            "dense-pickle",
            &["2_Dense/config.json", "2_Dense/pytorch_model.bin"][..],
        ),
        (
            "layer-norm",
            &["2_LayerNorm/model.safetensors", "7_Dense/model.safetensors"],
        ),
        (
            "router",
            &[
                "2_Router/router_config.json",
                "2_Router/query_0_Dense/model.safetensors",
                "2_Router/document_0_Dense/model.safetensors",
                "2_Router/document_1_Normalize/config.json",
            ],
        ),
    ] {
        let workspace = workspace(name);
        workspace.succeed(&["quantize", name, "-o", "out", "--method", "dynamic"]);
        for file in kept {
            let (before, after) = (format!("{name}/{file}"), format!("out/{file}"));
            assert_eq!(workspace.read(&before), workspace.read(&after), "{file}");
        }
        let (before, after) = (embed(&workspace, name, &[]), embed(&workspace, "out", &[]));
        assert_ne!(before, after, "{name}: the encoder was not quantized");
        let largest = before
            .iter()
            .flatten()
            .fold(0.0, |largest: f32, value| largest.max(value.abs()));
        // Eight bits for weights and activations of one layer of 16 columns.
        assert!(
            largest_difference(&before, &after) < 0.2 * largest,
            "{name}"
        );
    }
}

/// A SPLADE model: words and their values, as JSONL only; its head stays as it is where the model is quantized.
#[test]
fn splade_gives_sparse_embeddings() {
    let workspace = workspace("splade");
    let rows = |model: &str| -> Vec<Value> {
        let said = workspace
            .succeed(&["embed", model, "-i", "texts.txt"])
            .stdout;
        said.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let numbers = |row: &Value, key: &str| -> Vec<f64> {
        let numbers = row[key].as_array().unwrap().iter();
        numbers.map(|number| number.as_f64().unwrap()).collect()
    };
    let float = rows("splade");
    assert_eq!(float.len(), 2);
    for row in &float {
        let (indices, values) = (numbers(row, "indices"), numbers(row, "values"));
        assert_eq!(indices.len(), values.len());
        assert!(indices.is_sorted_by(|a, b| a < b) && indices.iter().all(|&word| word < 162.0));
        assert!(values.iter().all(|&value| value > 0.0));
        assert!(row.get("embedding").is_none());
    }
    let flags = ["embed", "splade", "-i", "texts.txt", "-o"];
    let refused = workspace.fail(&[&flags[..], &["out.npy"]].concat());
    insta::assert_snapshot!(refused, @r"
    error: out.npy: expected an output file ending in .jsonl for sparse embeddings, found another
      hint: an embedding of this model has 162 values, most of them 0; a line of JSONL holds the others, with their columns
    ");
    assert!(!workspace.path("out.npy").exists());
    let summary = workspace
        .succeed(&[&flags[..], &["out.jsonl", "--json"]].concat())
        .json();
    assert_eq!(summary["pooling"], serde_json::json!(["splade"]));
    assert_eq!(summary["dimension"], 162);
    let lines = String::from_utf8(workspace.read("out.jsonl")).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first, float[0]);
    workspace.succeed(&["quantize", "splade", "-o", "int8", "--method", "dynamic"]);
    let int8 = rows("int8");
    assert_ne!(int8, float);
    let sum = |row: &Value| numbers(row, "values").iter().sum::<f64>();
    for (int8, float) in int8.iter().zip(&float) {
        // Eight bits for weights and activations of one layer of 16 columns.
        assert!((sum(int8) / sum(float) - 1.0).abs() < 0.1);
    }
}
