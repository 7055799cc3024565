//! Tokenizers: vocab.txt as transformers reads it, and what is refused.

use crate::golden_files::{cases, expected_texts, golden};
use fewbit_model::tokenization::{TextSettings, TextTokenizer};
use fewbit_model::{EncoderSpec, ModelError};
use serde_json::{Value, json};
use std::path::Path;

fn spec(vocab_size: usize) -> EncoderSpec {
    let config = json!({"model_type": "bert", "vocab_size": vocab_size});
    EncoderSpec::from_config(&config, Path::new("config.json")).expect("valid")
}

#[test]
fn word_piece_agrees_with_transformers() {
    for case in cases("wordpiece") {
        let folder = golden("wordpiece").join(&case);
        let tokenizer =
            TextTokenizer::open(&folder, &spec(30522), TextSettings::default()).expect("opens");
        for text in expected_texts(&folder.join("expected.jsonl")) {
            let found = tokenizer.tokenize(&text.text).expect("tokenizes");
            assert_eq!(found.token_ids, text.token_ids, "{case}: {:?}", text.text);
            assert_eq!(found.token_type_ids, vec![0; found.token_ids.len()]);
        }
    }
}

/// A directory with a vocabulary of ten lines and other files.
fn directory(files: &[(&str, Value)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\n##s\nsat\n.\n";
    std::fs::write(directory.path().join("vocab.txt"), vocabulary).expect("written");
    for (name, value) in files {
        std::fs::write(directory.path().join(name), value.to_string()).expect("written");
    }
    directory
}

fn open(
    directory: &tempfile::TempDir,
    settings: TextSettings,
) -> Result<TextTokenizer, ModelError> {
    TextTokenizer::open(directory.path(), &spec(10), settings)
}

fn error(directory: &tempfile::TempDir, vocab_size: usize, settings: TextSettings) -> String {
    let error =
        TextTokenizer::open(directory.path(), &spec(vocab_size), settings).expect_err("refused");
    error
        .to_string()
        .replace(&directory.path().display().to_string(), "DIR")
}

#[test]
fn the_limit_is_the_settings_or_the_tokenizers_within_the_models() {
    let limit = |config: Value, max_seq_length: Option<usize>| {
        let directory = directory(&[("tokenizer_config.json", config)]);
        let settings = TextSettings {
            max_seq_length,
            lowercase: false,
        };
        open(&directory, settings).expect("opens").max_tokens()
    };
    assert_eq!(limit(json!({}), None), 512);
    assert_eq!(limit(json!({"model_max_length": 100}), None), 100);
    assert_eq!(limit(json!({"model_max_length": 100}), Some(200)), 200);
    assert_eq!(limit(json!({"model_max_length": 1e30}), None), 512);
    assert_eq!(
        limit(
            json!({"model_max_length": 1_000_000_000_000_000_019_884_624_838_656.0}),
            None
        ),
        512
    );
    assert_eq!(limit(json!({"model_max_length": 4096}), Some(9999)), 512);
}

#[test]
fn cuts_on_the_side_that_the_configuration_names() {
    let settings = TextSettings {
        max_seq_length: Some(4),
        lowercase: false,
    };
    for (side, expected) in [("right", [2, 5, 6, 3]), ("left", [2, 8, 9, 3])] {
        let directory = directory(&[("tokenizer_config.json", json!({"truncation_side": side}))]);
        let tokenizer = open(&directory, settings).expect("opens");
        let found = tokenizer.tokenize("the cat sat.").expect("tokenizes");
        assert_eq!(
            (found.token_ids.as_slice(), found.truncated),
            (&expected[..], true),
            "{side}"
        );
        let whole = tokenizer.tokenize("the cat").expect("tokenizes");
        assert_eq!(
            (whole.token_ids.as_slice(), whole.truncated),
            (&[2, 5, 6, 3][..], false),
            "{side}"
        );
    }
}

#[test]
fn refused() {
    let none = TextSettings::default();
    let empty = tempfile::tempdir().expect("a temporary directory");
    let no_room = TextSettings {
        max_seq_length: Some(2),
        lowercase: false,
    };
    let broken = directory(&[("tokenizer.json", json!({"model": 1}))]);
    let not_utf8 = directory(&[]);
    std::fs::write(not_utf8.path().join("vocab.txt"), [0xff, 0xfe, b'\n']).expect("written");
    let texts = [
        error(&empty, 10, none),
        error(&directory(&[]), 9, none),
        error(&directory(&[]), 10, no_room),
        error(
            &directory(&[(
                "tokenizer_config.json",
                json!({"tokenizer_class": "BertJapaneseTokenizer"}),
            )]),
            10,
            none,
        ),
        error(
            &directory(&[("special_tokens_map.json", json!({"cls_token": "<s>"}))]),
            10,
            none,
        ),
        error(
            &directory(&[("special_tokens_map.json", json!({"cls_token": 4}))]),
            10,
            none,
        ),
        error(
            &directory(&[("added_tokens.json", json!({"<new>": 10}))]),
            11,
            none,
        ),
        error(
            &directory(&[("tokenizer_config.json", json!({"do_lower_case": "yes"}))]),
            10,
            none,
        ),
        error(&broken, 10, none),
        error(&not_utf8, 10, none),
    ];
    insta::assert_snapshot!(texts.join("\n\n"), @r#"
    DIR: expected tokenizer.json, or a WordPiece vocab.txt, found neither
      hint: `AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes tokenizer.json

    DIR/vocab.txt: expected token ids below the model's vocabulary size 9, found 9 for token `.`
      hint: tokenizer and weights belong to different models, or tokens were added without resizing the embeddings

    DIR/vocab.txt: expected room for text beside 2 special tokens, found a limit of 2 tokens
      hint: raise `max_seq_length` or `model_max_length`

    DIR/tokenizer_config.json: `tokenizer_class`: supported is BERT's WordPiece where there is no tokenizer.json, found "BertJapaneseTokenizer"
      hint: save the tokenizer as tokenizer.json with transformers

    DIR/vocab.txt: expected the token `<s>` (`cls_token`), found no such line
      hint: the special tokens come from special_tokens_map.json or tokenizer_config.json

    DIR/special_tokens_map.json: `cls_token`: expected a token, or an object with `content`, found 4
      hint: correct the value or fetch the file again

    DIR/added_tokens.json: expected only tokens of vocab.txt, found `<new>`
      hint: save the tokenizer as tokenizer.json with transformers

    DIR/tokenizer_config.json: `do_lower_case`: expected true or false, found "yes"
      hint: correct the value or fetch the file again

    DIR/tokenizer.json: expected a tokenizer, found something else: data did not match any variant of untagged enum ModelUntagged at line 1 column 11
      hint: fetch the file again, or write it with a recent version of transformers

    DIR/vocab.txt: expected UTF-8 text: invalid utf-8 sequence of 1 bytes from index 0
      hint: fetch the file again
    "#);
}

/// tokenizer_config.json overrules the normalizer of tokenizer.json, as transformers does.
#[test]
fn settings_beside_tokenizer_json_count() {
    let cased = json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": false},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "the": 4, "cat": 5}},
    });
    let ids = |config: Value, lowercase: bool| {
        let directory = directory(&[
            ("tokenizer.json", cased.clone()),
            ("tokenizer_config.json", config),
        ]);
        let settings = TextSettings {
            max_seq_length: None,
            lowercase,
        };
        open(&directory, settings)
            .expect("opens")
            .tokenize("The cat")
            .expect("tokenizes")
            .token_ids
    };
    assert_eq!(ids(json!({}), false), [2, 1, 5, 3]);
    assert_eq!(ids(json!({}), true), [2, 4, 5, 3]);
    assert_eq!(
        ids(
            json!({"tokenizer_class": "BertTokenizer", "do_lower_case": true}),
            false
        ),
        [2, 4, 5, 3]
    );
}
