//! `fewbit inspect`

use crate::tiny_model::Workspace;

#[test]
fn the_model_by_part_dtype_and_method() {
    let workspace = Workspace::new();
    insta::assert_snapshot!(workspace.succeed(&["inspect", "model"]).stdout);
}

#[test]
fn every_tensor_of_a_quantized_model() {
    let workspace = Workspace::new();
    workspace.succeed(&[
        "quantize",
        "model",
        "-o",
        "small",
        "--method",
        "dynamic",
        "--quantize-embeddings",
    ]);
    let shown = workspace.succeed(&["inspect", "small", "--tensors"]).stdout;
    insta::assert_snapshot!(shown);
}

#[test]
fn sizes_of_the_methods_are_what_quantize_writes() {
    let workspace = Workspace::new();
    let inspection = workspace.succeed(&["inspect", "model", "--json"]).json();
    let methods = inspection["methods"].as_array().unwrap();
    assert!(methods.len() >= 8);
    for method in methods {
        let recipe = &method["recipe"];
        if recipe["method"] == "static" {
            continue;
        }
        workspace.write("recipe.json", recipe.to_string());
        let report = workspace
            .succeed(&[
                "quantize",
                "model",
                "-o",
                "out",
                "--force",
                "--recipe",
                "recipe.json",
                "--json",
            ])
            .json();
        assert_eq!(report["output_bytes"], method["output_bytes"], "{recipe}");
        let file = std::fs::metadata(workspace.path("out/model.safetensors"));
        assert_eq!(method["file_bytes"], file.unwrap().len(), "{recipe}");
    }
    let parts: u64 = inspection["size"]["by_part"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["bytes"].as_u64().unwrap())
        .sum();
    let tensors: u64 = inspection["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tensor| tensor["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!((parts, tensors), (77_536, 77_536));
}

#[test]
fn the_size_of_static_is_that_with_every_input_static() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a dog\nthe sea\n");
    let inspection = workspace.succeed(&["inspect", "model", "--json"]).json();
    let methods = inspection["methods"].as_array().unwrap();
    let calibration = [
        "--calibration",
        "texts.txt",
        "--samples",
        "2",
        "--min-sqnr=-inf",
    ];
    for (label, more) in [
        ("static", &[][..]),
        ("static + float embeddings", &["--keep-embeddings"]),
    ] {
        let start = [
            "quantize", "model", "-o", label, "--method", "static", "--json",
        ];
        let written = workspace
            .succeed(&[&start[..], &calibration, more].concat())
            .json();
        let planned = methods
            .iter()
            .find(|method| method["label"] == label)
            .unwrap();
        assert_eq!(planned["output_bytes"], written["output_bytes"], "{label}");
        assert_eq!(planned["recipe"].get("static_inputs"), None);
    }
}

/// A golden folder of fewbit-model.
fn golden(path: &str) -> String {
    format!(
        "{}/../model/tests/golden/{path}",
        env!("CARGO_MANIFEST_DIR")
    )
}

#[test]
fn the_task_head_and_its_labels() {
    let workspace = Workspace::new();
    let shown = |path: &str| {
        let output = workspace.succeed(&["inspect", &golden(path)]).stdout;
        output.lines().nth(2).unwrap_or_default().to_owned()
    };
    for (path, line) in [
        (
            "task_heads/bert-sequence",
            "  sequence classification (BertForSequenceClassification), 3 labels: negative, neutral, positive; scores: softmax",
        ),
        (
            "task_heads/bert-regression",
            "  sequence classification (BertForSequenceClassification), 1 label: LABEL_0; scores: the logits",
        ),
        (
            "task_heads/roberta-token",
            "  token classification (RobertaForTokenClassification), 5 labels: O, B-PER, I-PER, B-LOC, I-LOC",
        ),
        (
            "task_heads/modernbert-answer",
            "  question answering (ModernBertForQuestionAnswering)",
        ),
        (
            "task_heads/electra-mask",
            "  masked language modelling (ElectraForMaskedLM)",
        ),
        ("architectures/bert", "  not quantized"),
    ] {
        assert_eq!(shown(path), line, "{path}");
    }
    let refused = shown("architectures/electra-embedding-size-16");
    let start = "  task head of ElectraForPreTraining, of which fewbit gives no logits: ";
    assert!(refused.starts_with(start), "{refused}");
    assert!(refused.contains("`architectures`"), "{refused}");
}

#[test]
fn the_task_head_in_json() {
    let workspace = Workspace::new();
    let head = |path: &str| {
        let inspection = workspace.succeed(&["inspect", &golden(path), "--json"]);
        inspection.json()["head"].clone()
    };
    assert_eq!(
        head("task_heads/bert-multi-label"),
        serde_json::json!({
            "model_class": "BertForSequenceClassification",
            "task": "sequence-classification",
            "labels": ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"],
            "scores": "sigmoid",
            "not_run": null,
        })
    );
    assert_eq!(head("architectures/bert"), serde_json::Value::Null);
}
