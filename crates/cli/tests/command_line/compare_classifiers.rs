//! `fewbit compare` on models that classify texts.

use crate::tiny_model::Workspace;
use serde_json::Value;

const COMPARE: [&str; 8] = [
    "compare",
    "model",
    "--methods",
    "fp16,nf4",
    "--threads",
    "1",
    "--texts",
    "texts.jsonl",
];

/// Texts with labels by name and by number. With the model's own labels, accuracy of the original is 1.
fn workspace() -> Workspace {
    let workspace = Workspace::predicting("bert-single-label");
    let texts = [
        "the cat sat",
        "not a dog",
        "new york",
        "washington and the mat",
        "ann lee",
        "un",
    ];
    workspace.write("texts.txt", texts.join("\n"));
    let labels = workspace
        .succeed(&["predict", "model", "-i", "texts.txt", "--json"])
        .stdout;
    let names = ["bad", "fair", "good"];
    let rows = texts
        .iter()
        .zip(labels.lines())
        .enumerate()
        .map(|(index, (text, line))| {
            let line: Value = serde_json::from_str(line).unwrap();
            let name = line["labels"][0]["label"].as_str().unwrap();
            let number = names.iter().position(|known| *known == name).unwrap();
            let label = match index % 2 {
                0 => Value::from(name),
                _ => Value::from(number),
            };
            serde_json::json!({"text": text, "label": label, "second": "a cat"}).to_string() + "\n"
        });
    workspace.write("texts.jsonl", rows.collect::<String>());
    workspace
}

#[test]
fn logits_take_the_place_of_embeddings() {
    let workspace = workspace();
    let comparison = workspace
        .succeed(&[&COMPARE[..], &["--label-column", "label", "--json"]].concat())
        .json();
    assert_eq!(
        (&comparison["output"], &comparison["texts_kind"]),
        (&"logits".into(), &"labelled".into())
    );
    let rows = comparison["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    let number = |row: &Value, field: &str| row.pointer(field).and_then(Value::as_f64).unwrap();
    assert_eq!(rows[0]["classes"]["agreement"], Value::Null);
    assert_eq!(number(&rows[0], "/classes/quality/accuracy"), 1.0);
    assert_eq!(number(&rows[0], "/classes/quality/macro_f1"), 1.0);
    assert_eq!(rows[0]["classes"]["quality"]["texts"], 6);
    for row in &rows[1..] {
        assert_eq!(row["agreement"], Value::Null);
        let same = number(row, "/classes/agreement/same_label");
        // The right labels are the original's.
        assert_eq!(number(row, "/classes/quality/accuracy"), same);
        assert!(number(row, "/classes/agreement/mean_divergence") > 0.0);
        assert!(number(row, "/classes/agreement/largest_logit_difference") > 0.0);
        assert!(number(row, "/median_milliseconds") > 0.0);
    }
    // Half floats are nearer to the original than four bits.
    let divergence = |row: usize| number(&rows[row], "/classes/agreement/mean_divergence");
    assert!(divergence(1) < divergence(2));
    // Without labels there is no accuracy, with second texts there are other logits.
    let plain = workspace
        .succeed(&[&COMPARE[..], &["--json"]].concat())
        .json();
    assert_eq!(plain["rows"][1]["classes"]["quality"], Value::Null);
    assert_eq!(
        plain["rows"][1]["classes"]["agreement"],
        rows[1]["classes"]["agreement"]
    );
    let pairs = workspace
        .succeed(&[&COMPARE[..], &["--pair-column", "second", "--json"]].concat())
        .json();
    assert!(pairs["tokens"].as_u64() > plain["tokens"].as_u64());
}

#[test]
fn the_table_of_classifiers_says_what_its_columns_are() {
    let workspace = workspace();
    let table = workspace
        .succeed(&[&COMPARE[..], &["--label-column", "label"]].concat())
        .stdout;
    assert!(
        table.lines().all(|line| line.chars().count() <= 120),
        "{table}"
    );
    for word in [
        "label",
        "nats",
        "racy",
        "F1",
        "macro F1        100 x mean of the labels' F1",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    assert!(!table.contains("cosine"), "{table}");
}

#[test]
fn gates_of_classifiers_are_points_of_accuracy() {
    let workspace = workspace();
    let gate = [
        &COMPARE[..],
        &["--label-column", "label", "--max-drop", "100"],
    ]
    .concat();
    workspace.succeed(&gate);
    let refused = workspace.fail(&[&COMPARE[..], &["--label-column", "text"]].concat());
    assert!(
        refused.starts_with("error: label of text 1: expected one of the model's 3 labels (`bad`, `fair`, `good`) or its number, found `the cat sat`\n  hint: "),
        "{refused}"
    );
}

#[test]
fn labels_are_for_models_of_labels() {
    let plain = Workspace::new();
    plain.write("texts.jsonl", "{\"text\": \"a\", \"label\": 0}\n");
    let refused = plain.fail(&[&COMPARE[..], &["--label-column", "label"]].concat());
    assert!(
        refused.contains(
            "expected a model with a head for sequence classification, found `BertModel`\n  hint: "
        ),
        "{refused}"
    );
    let embeddings = plain.succeed(&[&COMPARE[..], &["--json"]].concat()).json();
    assert_eq!(embeddings["output"], "embeddings");
    let number = Workspace::predicting("bert-regression");
    number.write(
        "texts.jsonl",
        "{\"text\": \"a\", \"label\": 0}\n{\"text\": \"the cat\", \"label\": 0}\n",
    );
    let refused = number.fail(&[&COMPARE[..], &["--label-column", "label"]].concat());
    assert!(refused.contains("expected a model that gives one of several labels, found one whose scores are the values of 1 logits"), "{refused}");
    let row = number.succeed(&[&COMPARE[..], &["--json"]].concat()).json()["rows"][1]["classes"]["agreement"].clone();
    assert_eq!(
        (&row["same_label"], &row["mean_divergence"]),
        (&Value::Null, &Value::Null)
    );
    assert!(row["largest_logit_difference"].as_f64() > Some(0.0));
    // Other heads are compared as before, by their embeddings.
    let tagger = Workspace::predicting("bert-token-classification");
    tagger.write(
        "texts.jsonl",
        "{\"text\": \"a\"}\n{\"text\": \"the cat\"}\n",
    );
    let comparison = tagger.succeed(&[&COMPARE[..], &["--json"]].concat()).json();
    assert_eq!(comparison["output"], "embeddings");
}
