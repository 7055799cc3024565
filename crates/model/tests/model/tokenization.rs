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
    assert_eq!(limit(json!({"model_max_length": null}), None), 512);
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
    let setting = |config: Value| error(&directory(&[("tokenizer_config.json", config)]), 10, none);
    let texts = [
        error(&empty, 10, none),
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
            &directory(&[("added_tokens.json", json!({"<new>": 12}))]),
            13,
            none,
        ),
        error(
            &directory(&[("tokenizer_config.json", json!({"do_lower_case": "yes"}))]),
            10,
            none,
        ),
        setting(json!({"truncation_side": "middle"})),
        setting(json!({"truncation_side": null})),
        setting(json!({"model_max_length": "512"})),
        setting(json!({"model_max_length": 0})),
        setting(json!({"model_max_length": 511.5})),
        setting(json!([])),
        error(
            &directory(&[("special_tokens_map.json", json!("[CLS]"))]),
            10,
            none,
        ),
        error(
            &directory(&[(
                "special_tokens_map.json",
                json!({"cls_token": {"content": "[CLS]", "lstrip": 1}}),
            )]),
            10,
            none,
        ),
        error(
            &directory(&[("added_tokens.json", json!(["<new>"]))]),
            10,
            none,
        ),
        error(&broken, 10, none),
        error(&not_utf8, 10, none),
    ];
    insta::assert_snapshot!(texts.join("\n\n"), @r#"
    DIR: expected tokenizer.json, or a WordPiece vocab.txt, found neither
      hint: `AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes tokenizer.json

    DIR/vocab.txt: expected room for text beside 2 special tokens, found a limit of 2 tokens
      hint: raise `max_seq_length` or `model_max_length`

    DIR/tokenizer_config.json: `tokenizer_class`: supported is a tokenizer class of BERT, DistilBERT, ELECTRA, MPNet, RoBERTa, XLM-RoBERTa, CamemBERT, ALBERT, DeBERTa, GPT-2, Qwen2, Llama or Gemma, or "PreTrainedTokenizerFast", found "BertJapaneseTokenizer"
      hint: if tokenizer.json holds all that this class does, name the class "PreTrainedTokenizerFast": the file is then taken as it stands

    DIR/vocab.txt: expected token ids below the model's vocabulary size 10, found 10 for token `<s>`
      hint: tokenizer and weights belong to different models, or tokens were added without resizing the embeddings

    DIR/special_tokens_map.json: `cls_token`: expected a token, or an object with `content` and with `__type` "AddedToken", found 4
      hint: correct the value or fetch the file again

    DIR/added_tokens.json: `<new>`: expected the id 12 for the token `<new>` to be the next free one or the vocabulary's, found 10
      hint: transformers would give the token another id than the file says; add it again with `add_tokens` and save the tokenizer

    DIR/tokenizer_config.json: `do_lower_case`: expected true or false, found "yes"
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `truncation_side`: expected "left" or "right", found "middle"
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `truncation_side`: expected "left" or "right", found null
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `model_max_length`: expected a whole number from 1 to 16777215, found "512"
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `model_max_length`: expected a whole number from 1 to 16777215, found 0
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `model_max_length`: expected a whole number from 1 to 16777215, found 511.5
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: expected a JSON object, found a list
      hint: fetch the file again

    DIR/special_tokens_map.json: expected a JSON object, found a string
      hint: fetch the file again

    DIR/special_tokens_map.json: `cls_token.lstrip`: expected true or false, found 1
      hint: correct the value or fetch the file again

    DIR/added_tokens.json: expected a JSON object, found a list
      hint: fetch the file again

    DIR/tokenizer.json: expected a tokenizer, found something else: invalid type: integer `1`, expected a model at line 1 column 10
      hint: fetch the file again, or write it with a recent version of transformers

    DIR/vocab.txt: expected a tokenizer, found something else: stream did not contain valid UTF-8
      hint: fetch the file again, or write it with a recent version of transformers
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
    // Without a class it is the model's, and lower case its default, whatever tokenizer.json says.
    assert_eq!(ids(json!({}), false), [2, 4, 5, 3]);
    let cased = json!({"do_lower_case": false});
    assert_eq!(ids(cased.clone(), false), [2, 1, 5, 3]);
    assert_eq!(ids(cased, true), [2, 4, 5, 3]);
    let as_stored = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
    assert_eq!(ids(as_stored.clone(), false), [2, 1, 5, 3]);
    assert_eq!(ids(as_stored, true), [2, 4, 5, 3]);
    assert_eq!(
        ids(
            json!({"tokenizer_class": "BertTokenizer", "do_lower_case": true}),
            false
        ),
        [2, 4, 5, 3]
    );
}

/// A tokenizer.json that knows "the" and "cat", with some of its parts replaced.
fn tokenizer_json(parts: &Value) -> Value {
    let mut tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "the": 4, "cat": 5}},
    });
    for (name, part) in parts.as_object().expect("parts") {
        tokenizer[name] = part.clone();
    }
    tokenizer
}

/// The class that takes tokenizer.json as it stands, with its types.
fn as_stored() -> Value {
    json!({"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "token_type_ids"]})
}

/// Where the tokenizers crate panics, and where a template adds what the model does not have, opening is an error.
#[test]
fn damaged_tokenizer_files_are_refused_when_they_are_opened() {
    let refused = |parts: Value| {
        let directory = directory(&[
            ("tokenizer.json", tokenizer_json(&parts)),
            ("tokenizer_config.json", as_stored()),
        ]);
        error(&directory, 10, TextSettings::default())
    };
    let template = |pieces: Value, ids: &[u32]| {
        json!({"post_processor": {
            "type": "TemplateProcessing", "single": pieces,
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": ids, "tokens": ["[CLS]"]}},
        }})
    };
    let special = json!({"SpecialToken": {"id": "[CLS]", "type_id": 0}});
    let sequence = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    let charsmap =
        |table: &str| json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": table}});
    let texts = [
        refused(charsmap("/////w==")),
        refused(charsmap("AAAAAA==")),
        refused(json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}})),
        refused(template(json!([sequence("B", 0)]), &[2])),
        refused(template(json!([special, sequence("A", 0)]), &[2, 999_999])),
        refused(template(json!([special, sequence("A", 7)]), &[2])),
        refused(json!({
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 4_000_000_000u32], "cls": ["[CLS]", 2]}
        })),
    ];
    insta::assert_snapshot!(texts.join("\n\n"), @r#"
    DIR/tokenizer.json: expected a tokenizer that works, found one that fails: Precompiled: Error("Cannot parse precompiled_charsmap", line: 0, column: 0)
      hint: the file is damaged; fetch it again, or write it with a recent version of transformers

    DIR/tokenizer.json: expected a tokenizer that works, found one that fails: index out of bounds: the len is 0 but the index is 0
      hint: the file is damaged; fetch it again, or write it with a recent version of transformers

    DIR/tokenizer.json: expected a tokenizer that works, found one that fails: chunk size must be non-zero
      hint: the file is damaged; fetch it again, or write it with a recent version of transformers

    DIR/tokenizer.json: expected a tokenizer that works, found one that fails: index out of bounds: the len is 1 but the index is 1
      hint: the file is damaged; fetch it again, or write it with a recent version of transformers

    DIR/tokenizer.json: expected token ids below the model's vocabulary size 10, found 999999 for token ``
      hint: tokenizer and weights belong to different models, or tokens were added without resizing the embeddings

    DIR/tokenizer.json: expected token types below the model's 2, found 7 for token `[UNK]`
      hint: tokenizer and weights belong to different models, or tokens were added without resizing the embeddings

    DIR/tokenizer.json: expected token ids below the model's vocabulary size 10, found 4000000000 for token `[SEP]`
      hint: tokenizer and weights belong to different models, or tokens were added without resizing the embeddings
    "#);
}

/// A tokenizer may have tokens that the model has no row for; only texts with one of them cannot be run.
#[test]
fn a_token_without_a_row_is_an_error_of_the_text_that_has_it() {
    let directory = directory(&[]);
    let tokenizer =
        TextTokenizer::open(directory.path(), &spec(9), TextSettings::default()).expect("opens");
    assert_eq!(
        tokenizer.tokenize("the cat sat").expect("fits").token_ids,
        [2, 5, 6, 8, 3]
    );
    let error = tokenizer.tokenize("the cat sat.").expect_err("no row");
    insta::assert_snapshot!(error, @r#"
    text "the cat sat.": expected token ids below the model's vocabulary size 9, found 9 for token `.`
      hint: the tokenizer has more tokens than the model has rows of word embeddings: leave out such texts, or use the tokenizer of the model
    "#);
}

/// Without an unknown token some texts cannot be tokenized; the others can.
#[test]
fn a_tokenizer_without_an_unknown_token_opens() {
    let mut file = tokenizer_json(&json!({}));
    file["model"]["vocab"] = json!({"the": 4, "cat": 5});
    let tokenizer = open(
        &directory(&[
            ("tokenizer.json", file),
            ("tokenizer_config.json", as_stored()),
        ]),
        TextSettings::default(),
    )
    .expect("opens");
    let found = tokenizer.tokenize("the cat").expect("tokenizes");
    assert_eq!(found.token_ids, [4, 5]);
    let error = tokenizer.tokenize("the dog").expect_err("unknown");
    insta::assert_snapshot!(
        error,
        @r#"text "the dog": the tokenizer failed: WordPiece error: Missing [UNK] token from the vocabulary"#
    );
}

/// Files that contradict themselves or are broken, and what is said about them.
#[test]
fn settings_that_cannot_be_followed_are_refused() {
    let tokenizer = || tokenizer_json(&json!({}));
    let refused = |files: &[(&str, Value)]| error(&directory(files), 20, TextSettings::default());
    let config = |config: Value| {
        refused(&[
            ("tokenizer.json", tokenizer()),
            ("tokenizer_config.json", config),
        ])
    };
    let added = |id: &str, content: &str| {
        config(json!({"added_tokens_decoder": {id: {"content": content}}}))
    };
    let truncated = directory(&[("tokenizer.json", tokenizer())]);
    let mut text = tokenizer().to_string();
    text.truncate(text.len() / 2);
    std::fs::write(truncated.path().join("tokenizer.json"), text).expect("written");
    let half = directory(&[]);
    std::fs::write(half.path().join("added_tokens.json"), "{\"<new>\": 1").expect("written");
    let texts = [
        config(json!({"tokenizer_class": "NoSuchTokenizer"})),
        config(json!({"tokenizer_class": "RobertaTokenizer"})),
        config(json!({"tokenizer_class": 7})),
        added("9", "<new>"),
        added("2", "<new>"),
        added("x", "<new>"),
        config(json!({"added_tokens_decoder": {"6": {"content": "<new>", "lstrip": "no"}}})),
        config(json!({"cls_token": {"content": "[CLS]"}})),
        config(json!({"extra_special_tokens": "<new>"})),
        config(json!({"padding_side": "both"})),
        config(json!({"split_special_tokens": null})),
        config(json!({"init_inputs": ["vocab.txt"]})),
        config(json!({"fast_tokenizer_files": ["tokenizer.4.0.0.json"]})),
        refused(&[
            ("tokenizer.json", tokenizer()),
            ("added_tokens.json", json!({"<new>": -1})),
        ]),
        refused(&[("tokenizer_config.json", json!({"vocab": {"the": 0}}))]),
        refused(&[("tokenizer_config.json", as_stored())]),
        refused(&[(
            "config.json",
            json!({"tokenizer_class": "XLMRobertaTokenizer"}),
        )]),
        refused(&[(
            "config.json",
            json!({"tokenizer_class": "RobertaTokenizer"}),
        )]),
        error(&truncated, 20, TextSettings::default()),
        error(&half, 20, TextSettings::default()),
    ];
    insta::assert_snapshot!(texts.join("\n\n"), @r#"
    DIR/tokenizer_config.json: `tokenizer_class`: supported is a tokenizer class of BERT, DistilBERT, ELECTRA, MPNet, RoBERTa, XLM-RoBERTa, CamemBERT, ALBERT, DeBERTa, GPT-2, Qwen2, Llama or Gemma, or "PreTrainedTokenizerFast", found "NoSuchTokenizer"
      hint: if tokenizer.json holds all that this class does, name the class "PreTrainedTokenizerFast": the file is then taken as it stands

    DIR/tokenizer.json: expected a BPE model, which RobertaTokenizer is built from, found a WordPiece model
      hint: name the class of this tokenizer in `tokenizer_class` of tokenizer_config.json; "PreTrainedTokenizerFast" takes tokenizer.json as it stands

    DIR/tokenizer_config.json: `tokenizer_class`: expected the name of a class, found 7
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `added_tokens_decoder.9`: expected the id 9 for the token `<new>` to be the next free one or the vocabulary's, found 6
      hint: transformers would give the token another id than the file says; add it again with `add_tokens` and save the tokenizer

    DIR/tokenizer_config.json: `added_tokens_decoder.2`: expected the id 2 for the token `<new>` to be the next free one or the vocabulary's, found 6
      hint: transformers would give the token another id than the file says; add it again with `add_tokens` and save the tokenizer

    DIR/tokenizer_config.json: `added_tokens_decoder.x`: expected a token id, found "x"
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `added_tokens_decoder.6.lstrip`: expected true or false, found "no"
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `cls_token`: expected a token, or an object with `content` and with `__type` "AddedToken", found {"content":"[CLS]"}
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `extra_special_tokens`: expected a list of tokens, found "<new>"
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `padding_side`: expected "left" or "right", found "both"
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `split_special_tokens`: expected true or false, found null
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `init_inputs`: supported is an empty list, found ["vocab.txt"]
      hint: remove the field, or save the tokenizer with a recent version of transformers

    DIR/tokenizer_config.json: `fast_tokenizer_files`: supported is ["tokenizer.json"], found ["tokenizer.4.0.0.json"]
      hint: remove the field, or save the tokenizer with a recent version of transformers

    DIR/added_tokens.json: `<new>`: expected a token id, found -1
      hint: correct the value or fetch the file again

    DIR/tokenizer_config.json: `vocab`: supported is a vocabulary in a file of its own, found {"the":0}
      hint: save the tokenizer as tokenizer.json with transformers

    DIR: expected tokenizer.json, or tokenizer.model of sentencepiece, which `tokenizer_class` "PreTrainedTokenizerFast" reads, found neither
      hint: `AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes tokenizer.json

    DIR: expected tokenizer.json, or sentencepiece.bpe.model of sentencepiece, found neither
      hint: `AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes tokenizer.json

    DIR: expected tokenizer.json, or vocab.json and merges.txt of a BPE, found neither
      hint: `AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes tokenizer.json

    DIR/tokenizer.json: expected a tokenizer, found something else: EOF while parsing a string at line 1 column 173
      hint: fetch the file again, or write it with a recent version of transformers

    DIR/added_tokens.json: expected JSON: EOF while parsing an object at line 1 column 11
      hint: fetch the file again
    "#);
}
