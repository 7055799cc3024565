//! Settings of a model directory one at a time, against sentence-transformers.

use crate::golden_files::{golden, largest_difference};
use fewbit_model::{EncodeOptions, Encoder, EncoderSettings, ModelError, Prompt};
use serde_json::Value;

/// Hidden states agree within 2e-5, and a mean over tokens is no farther away.
const TOLERANCE: f32 = 2e-5;

/// What sentence-transformers takes and fewbit does not: a limit of no token, which it takes for none, or with no room for text; a
/// text for a flag.
const REFUSED: [&str; 3] = [
    "max_seq_length 0",
    "max_seq_length 2, as many as special tokens",
    "do_lower_case text",
];

/// The embedding of `text` by a copy of the model with the settings of `case`.
fn embed(case: &Value, text: &str) -> Result<Vec<f32>, ModelError> {
    let source = golden("pooling/lower-case-in-settings");
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let directory = scratch.path();
    std::fs::create_dir(directory.join("1_Pooling")).expect("created");
    let copy = |name: &str| {
        std::fs::copy(source.join(name), directory.join(name)).expect("copied");
    };
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer_config.json",
        "vocab.txt",
    ] {
        copy(name);
    }
    if case["modules"] == true {
        copy("modules.json");
    }
    let write = |name: &str, value: &Value| {
        std::fs::write(directory.join(name), value.to_string()).expect("written");
    };
    for (name, key) in [
        ("sentence_bert_config.json", "transformer"),
        ("config_sentence_transformers.json", "model"),
    ] {
        if !case[key].is_null() {
            write(name, &case[key]);
        }
    }
    let pooling = "1_Pooling/config.json";
    let bytes = std::fs::read(source.join(pooling)).expect("golden file");
    let mut changed: Value = serde_json::from_slice(&bytes).expect("JSON");
    for (key, value) in case["pooling"].as_object().into_iter().flatten() {
        changed[key] = value.clone();
    }
    write(pooling, &changed);
    let named = |key: &str| case[key].as_str().map(str::to_owned);
    let settings = EncoderSettings {
        prompt: named("prompt_name")
            .map(Prompt::Named)
            .or(named("prompt").map(Prompt::Text)),
        ..EncoderSettings::default()
    };
    let encoder = Encoder::open_with_settings(directory, &settings)?;
    Ok(encoder.encode(&[text], &EncodeOptions::default())?.values)
}

#[test]
fn each_setting_does_what_it_does_in_sentence_transformers() {
    let bytes = std::fs::read(golden("sentence_settings.json")).expect("golden file");
    let golden: Value = serde_json::from_slice(&bytes).expect("JSON");
    let text = golden["text"].as_str().expect("a text");
    let cases = golden["cases"].as_array().expect("cases");
    assert!(cases.len() > 40);
    let mut wrong = Vec::new();
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        let refused = REFUSED.contains(&name) || case.get("error").is_some();
        match embed(case, text) {
            Ok(found) if refused => {
                wrong.push(format!("{name}: expected an error, found {found:?}"));
            }
            Ok(found) => {
                let expected = case["embedding"].as_array().expect("numbers").iter();
                let expected: Vec<f32> = expected
                    .map(|value| value.as_f64().expect("a number") as f32)
                    .collect();
                let difference = largest_difference(&found, &expected);
                if difference > TOLERANCE {
                    wrong.push(format!("{name}: the embedding differs by {difference}"));
                }
            }
            Err(_) if refused => {}
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
