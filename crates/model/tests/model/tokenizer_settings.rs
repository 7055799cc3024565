//! Settings of tokenizers, class by class, against the ids that transformers 5 gives.

use crate::golden_files::{Expected, golden, largest_difference};
use fewbit_model::tokenization::{TextSettings, TextTokenizer};
use fewbit_model::{EncodeOptions, Encoder, EncoderSpec, ModelError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The file of one class: base files, texts, and cases with changed files.
fn read(folder: &str, kind: &str) -> Value {
    let file = golden(folder).join(format!("{kind}.json"));
    serde_json::from_slice(&std::fs::read(&file).expect("golden file")).expect("JSON")
}

fn write(directory: &Path, name: &str, content: &Value) {
    let text = match content {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    std::fs::write(directory.join(name), text).expect("written");
}

/// The base directory with the files of a case in place of its own; null takes one away, and `change` replaces a value of
/// tokenizer.json.
pub(crate) fn directory(base: &Value, case: &Value) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, content) in base.as_object().expect("files") {
        write(directory.path(), name, content);
    }
    for (name, content) in case.as_object().expect("files") {
        if content.is_null() {
            std::fs::remove_file(directory.path().join(name)).ok();
        } else if let Some(path) = content["change"].as_str() {
            let mut tokenizer = base["tokenizer.json"].clone();
            let part = path
                .split('.')
                .fold(&mut tokenizer, |part, key| &mut part[key]);
            part.clone_from(&content["to"]);
            write(directory.path(), name, &tokenizer);
        } else {
            write(directory.path(), name, content);
        }
    }
    directory
}

pub(crate) fn open(directory: &Path, base: &Value) -> Result<TextTokenizer, ModelError> {
    let mut config = base["config.json"].clone();
    config["vocab_size"] = json!(10_000);
    // Models that are no encoders here lend their name, which decides about the class, to one.
    let model_type = config["model_type"].as_str().expect("a name").to_owned();
    if !fewbit_model::architectures::MODEL_TYPES.contains(&model_type.as_str()) {
        config["model_type"] = json!("bert");
    }
    let spec = EncoderSpec {
        model_type,
        ..EncoderSpec::from_config(&config, Path::new("config.json")).expect("valid")
    };
    TextTokenizer::open(directory, &spec, TextSettings::default())
}

/// Whether ids and types are those of `expected`; an error is right where transformers has one for this text.
fn agrees(tokenizer: &TextTokenizer, texts: &Value, expected: &Value) -> Result<(), String> {
    for (index, text) in texts.as_array().expect("texts").iter().enumerate() {
        let text = text.as_str().expect("a text");
        let (ids, types) = (&expected["ids"][index], &expected["types"][index]);
        let found = match tokenizer.tokenize(text) {
            // An empty result is an error here: it has no embedding.
            Err(_) if ids.is_null() || *ids == json!([]) => continue,
            Err(error) => return Err(format!("{text:?}: {error}")),
            Ok(found) => found,
        };
        if json!(found.token_ids) != *ids {
            return Err(format!(
                "{text:?}: expected {ids}, found {:?}",
                found.token_ids
            ));
        }
        let zeros = found.token_type_ids.iter().all(|&kind| kind == 0);
        if !(json!(found.token_type_ids) == *types || types.is_null() && zeros) {
            return Err(format!(
                "{text:?}: expected types {types}, found {:?}",
                found.token_type_ids
            ));
        }
    }
    Ok(())
}

const KINDS: [&str; 11] = [
    "bert",
    "bert-by-model",
    "distilbert",
    "electra",
    "mpnet",
    "roberta",
    "xlm-roberta",
    "camembert",
    "backend-word-piece",
    "backend-byte-level",
    "backend-unigram",
];

/// Compares every case of `kinds`: the ids are those of transformers 5, or it is refused. Returns the names of the cases that only fewbit
/// refuses, with the kinds where it is so, and of those that only transformers refuses.
pub(crate) fn compare(folder: &str, kinds: &[&str]) -> (String, String) {
    let mut refused: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut taken: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for &kind in kinds {
        let golden = read(folder, kind);
        for case in golden["cases"].as_array().expect("cases") {
            let name = case["name"].as_str().expect("a name");
            let directory = directory(&golden["files"], &case["files"]);
            let opened = open(directory.path(), &golden["files"]);
            let expected = case["transformers5"]
                .as_u64()
                .map(|index| &golden["results"][usize::try_from(index).expect("an index")]);
            // It may open and fail for every text.
            let expected = expected.filter(|expected| {
                expected["ids"]
                    .as_array()
                    .is_some_and(|ids| ids.iter().any(|ids| !ids.is_null()))
            });
            match (opened, expected) {
                (Err(_), None) => {}
                (Err(_), Some(_)) => refused.entry(name.to_owned()).or_default().push(kind),
                (Ok(_), None) => taken.entry(name.to_owned()).or_default().push(kind),
                (Ok(tokenizer), Some(expected)) => {
                    compared += 1;
                    if let Err(error) = agrees(&tokenizer, &golden["texts"], expected) {
                        wrong.push(format!("{kind}/{name}: {error}"));
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {compared}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let list = |names: &BTreeMap<String, Vec<&str>>| {
        let lines = names
            .iter()
            .map(|(name, kinds)| format!("{name}: {}", kinds.join(", ")));
        lines.collect::<Vec<_>>().join("\n")
    };
    (list(&refused), list(&taken))
}

/// Every case gives the ids of transformers 5, or is refused. The first snapshot has the cases that only fewbit refuses, with
/// the classes where it is so; the second has those that only transformers refuses.
#[test]
fn settings_count_as_in_transformers_5() {
    let (refused, taken) = compare("tokenizer_settings", &KINDS);
    insta::assert_snapshot!(refused, @r#"
    add_prefix_space-list: xlm-roberta, camembert
    add_prefix_space-one: xlm-roberta, camembert
    add_prefix_space-text: xlm-roberta, camembert
    add_prefix_space-zero: xlm-roberta, camembert
    added_tokens-collision: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens-collision-no-tokenizer-json: bert, mpnet, roberta, xlm-roberta, camembert
    added_tokens-collision-none-in-the-file: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens-empty-no-tokenizer-json: xlm-roberta, camembert
    added_tokens-fraction: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens-fraction-no-tokenizer-json: bert, mpnet, roberta, xlm-roberta, camembert
    added_tokens-fraction-none-in-the-file: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens-gap: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens-gap-no-tokenizer-json: bert, mpnet, roberta, xlm-roberta, camembert
    added_tokens-gap-none-in-the-file: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens-negative: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens-negative-no-tokenizer-json: bert, mpnet, roberta, xlm-roberta, camembert
    added_tokens-negative-none-in-the-file: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens-new-no-tokenizer-json: xlm-roberta, camembert
    added_tokens-null-no-tokenizer-json: bert, mpnet, roberta, xlm-roberta, camembert
    added_tokens-null-none-in-the-file: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens-own-no-tokenizer-json: xlm-roberta, camembert
    added_tokens-text-no-tokenizer-json: bert, mpnet, roberta, xlm-roberta, camembert
    added_tokens-text-none-in-the-file: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens-two-no-tokenizer-json: xlm-roberta, camembert
    added_tokens_decoder-collision: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens_decoder-gap: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens_decoder-known-word: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens_decoder-left-no-tokenizer-json: xlm-roberta, camembert
    added_tokens_decoder-negative: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens_decoder-new-alone-no-tokenizer-json: xlm-roberta, camembert
    added_tokens_decoder-no-content: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    added_tokens_decoder-normalized-no-tokenizer-json: xlm-roberta, camembert
    class-: bert, bert-by-model, distilbert, electra, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    class-BertJapaneseTokenizer: bert, bert-by-model, distilbert, electra, mpnet
    class-BertTokenizer: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    class-BertTokenizerFast: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    class-DistilBertTokenizer: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    class-DistilBertTokenizerFast: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    class-ElectraTokenizer: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    class-ElectraTokenizerFast: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    class-HerbertTokenizer: bert, bert-by-model, distilbert, electra, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    class-LongformerTokenizer: bert, bert-by-model, distilbert, electra, mpnet, xlm-roberta, camembert, backend-word-piece, backend-unigram
    class-MPNetTokenizer: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    class-MPNetTokenizerFast: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    class-MobileBertTokenizer: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    class-NoSuchTokenizer: bert, bert-by-model, distilbert, electra, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    class-None: backend-unigram
    class-RobertaTokenizer: bert, bert-by-model, distilbert, electra, mpnet, xlm-roberta, camembert, backend-word-piece, backend-unigram
    class-RobertaTokenizerFast: bert, bert-by-model, distilbert, electra, mpnet, xlm-roberta, camembert, backend-word-piece, backend-unigram
    class-of-the-tokenizer-before-the-models: bert-by-model
    fast_tokenizer_files-set: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    file-gap: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    init_inputs-set: camembert, backend-word-piece, backend-byte-level, backend-unigram
    max_len-true: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    model-class-: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    model-class-BertJapaneseTokenizer: bert, mpnet
    model-class-BertTokenizer: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    model-class-BertTokenizerFast: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    model-class-DistilBertTokenizer: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    model-class-DistilBertTokenizerFast: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    model-class-ElectraTokenizer: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    model-class-ElectraTokenizerFast: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    model-class-HerbertTokenizer: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    model-class-LongformerTokenizer: bert, mpnet, xlm-roberta, camembert, backend-word-piece, backend-unigram
    model-class-MPNetTokenizer: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    model-class-MPNetTokenizerFast: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    model-class-MobileBertTokenizer: roberta, xlm-roberta, camembert, backend-byte-level, backend-unigram
    model-class-NoSuchTokenizer: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    model-class-RobertaTokenizer: bert, mpnet, xlm-roberta, camembert, backend-word-piece, backend-unigram
    model-class-RobertaTokenizerFast: bert, mpnet, xlm-roberta, camembert, backend-word-piece, backend-unigram
    model_max_length-true: bert, mpnet, roberta, xlm-roberta, camembert, backend-word-piece, backend-byte-level, backend-unigram
    no-config: backend-unigram
    no-tokenizer-json: xlm-roberta, camembert
    "#);
    insta::assert_snapshot!(taken, @"");
}

/// Hidden states agree within 2e-5, and so does their mean.
const TOLERANCE: f32 = 2e-5;

/// What the kinds of settings do to embeddings, with weights of a tiny BERT and a tiny RoBERTa.
#[test]
fn embeddings_follow_the_settings() {
    let folder = golden("tokenizer_settings/embeddings");
    let expected = Expected::read(&folder.join("expected.safetensors"));
    let mut compared = 0;
    for (kind, family) in [
        ("bert", "bert"),
        ("bert-by-model", "bert"),
        ("roberta", "roberta"),
    ] {
        let golden = read("tokenizer_settings", kind);
        let texts: Vec<&str> = golden["texts"]
            .as_array()
            .expect("texts")
            .iter()
            .map(|text| text.as_str().expect("a text"))
            .collect();
        for case in golden["cases"].as_array().expect("cases") {
            let name = case["name"].as_str().expect("a name");
            let Some(expected) = expected.f32(&format!("{kind}/{name}")) else {
                continue;
            };
            let directory = directory(&golden["files"], &case["files"]);
            for file in ["config.json", "model.safetensors"] {
                std::fs::copy(folder.join(family).join(file), directory.path().join(file))
                    .expect("copied");
            }
            let encoder = Encoder::open(directory.path()).expect("opens");
            let found = encoder
                .encode(&texts, &EncodeOptions::default())
                .expect("encodes");
            let difference = largest_difference(&found.values, &expected);
            assert!(difference <= TOLERANCE, "{kind}/{name}: {difference}");
            compared += 1;
        }
    }
    assert_eq!(compared, 19);
}
