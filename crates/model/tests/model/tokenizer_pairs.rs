//! Pairs of texts, windows, offsets and classes of more families, against what transformers 5 gives.

use crate::golden_files::golden;
use crate::tokenizer_settings::{compare, directory, open};
use fewbit_model::ModelError;
use fewbit_model::tokenization::{AlignedTokens, PairTruncation, TextTokenizer, Window};
use serde_json::{Value, json};

/// `aligned.json`, with the content of every list in the place of its number.
struct Golden(Value);

impl Golden {
    fn read() -> Self {
        let file = golden("tokenizer_pairs").join("aligned.json");
        Self(serde_json::from_slice(&std::fs::read(file).expect("golden file")).expect("JSON"))
    }

    fn list(&self, number: &Value) -> &Value {
        &self.0["lists"][usize::try_from(number.as_u64().expect("a number")).expect("an index")]
    }

    fn kinds(&self) -> impl Iterator<Item = (&str, &Value)> {
        let kinds = self.0["kinds"].as_array().expect("kinds").iter();
        kinds.map(|kind| (kind["kind"].as_str().expect("a name"), kind))
    }

    fn kind(&self, name: &str) -> &Value {
        let found = self.kinds().find(|(kind, _)| *kind == name);
        found.expect("a kind").1
    }

    /// The pairs of texts.
    fn pairs(&self) -> Vec<(&str, &str)> {
        let pairs = self.0["pairs"].as_array().expect("pairs").iter();
        pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
    }

    /// The files of a kind of tokenizer, by name.
    fn files(&self, kind: &Value) -> Value {
        let files = kind["files"].as_object().expect("files").iter();
        Value::Object(
            files
                .map(|(name, number)| (name.clone(), self.list(number).clone()))
                .collect(),
        )
    }

    fn tokenizer(&self, kind: &Value, limit: Option<u64>) -> (tempfile::TempDir, TextTokenizer) {
        let mut files = self.files(kind);
        if let Some(limit) = limit {
            files["tokenizer_config.json"]["model_max_length"] = json!(limit);
        }
        let directory = directory(&files, &json!({}));
        let tokenizer = open(directory.path(), &files).expect("opens");
        (directory, tokenizer)
    }

    /// Compares tokens with those that have the number; offsets of characters become offsets of bytes.
    fn agrees(&self, found: &AlignedTokens, number: &Value, texts: &[&str]) -> Result<(), String> {
        let list = self.list(number);
        let (ids, types, offsets) = (&list[0], &list[1], &list[2]);
        let types = match types {
            Value::Null => json!(vec![0; found.token_ids.len()]),
            types => types.clone(),
        };
        let sequences: Vec<Option<usize>> = found.origins.iter().map(|token| token.text).collect();
        let words: Vec<Option<u32>> = found.origins.iter().map(|token| token.word).collect();
        let special: Vec<u32> = found
            .origins
            .iter()
            .map(|token| token.special.into())
            .collect();
        let offset = |index: usize| {
            usize::try_from(offsets[index].as_u64().expect("an offset")).expect("small")
        };
        let places: Vec<_> = (0..found.origins.len())
            .map(|token| {
                let Some(text) = list[3][token].as_u64() else {
                    return 0..0;
                };
                let text = texts[usize::try_from(text).expect("0 or 1")];
                let byte = |character: usize| {
                    let at = text.char_indices().nth(character);
                    at.map_or(text.len(), |(byte, _)| byte)
                };
                byte(offset(2 * token))..byte(offset(2 * token + 1))
            })
            .collect();
        let bytes: Vec<_> = found
            .origins
            .iter()
            .map(|token| token.bytes.clone())
            .collect();
        for (what, found, expected) in [
            ("ids", json!(found.token_ids), ids),
            ("types", json!(found.token_type_ids), &types),
            ("texts", json!(sequences), &list[3]),
            ("words", json!(words), &list[4]),
            ("special tokens", json!(special), &list[5]),
        ] {
            if found != *expected {
                return Err(format!(
                    "{texts:?}: {what}: expected {expected}, found {found}"
                ));
            }
        }
        match bytes == places {
            true => Ok(()),
            false => Err(format!(
                "{texts:?}: expected the bytes {places:?}, found {bytes:?}"
            )),
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// More than `least` cases were compared, and none of them is `wrong`.
#[track_caller]
fn assert_all_agree(wrong: &[String], compared: usize, least: usize) {
    assert!(
        wrong.is_empty(),
        "{} of {compared}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(compared > least, "{compared}");
}

/// What transformers has no result for, or an empty one, is an error here.
fn is_refused(golden: &Golden, expected: &Value) -> bool {
    expected.is_null() || golden.list(expected)[0] == json!([])
}

#[test]
fn single_texts_have_the_offsets_of_transformers() {
    let golden = Golden::read();
    let pairs = golden.pairs();
    let texts = pairs
        .iter()
        .map(|pair| pair.0)
        .chain(pairs.iter().map(|pair| pair.1));
    let texts: Vec<&str> = texts.collect();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for (name, kind) in golden.kinds() {
        let (_directory, tokenizer) = golden.tokenizer(kind, None);
        for (text, expected) in texts
            .iter()
            .zip(kind["singles"].as_array().expect("singles"))
        {
            match tokenizer.tokenize_aligned(text) {
                Err(_) if is_refused(&golden, expected) => {}
                Err(error) => wrong.push(format!("{name}: {text:?}: {error}")),
                Ok(found) => {
                    compared += 1;
                    let plain = tokenizer.tokenize(text).expect("as with offsets");
                    assert_eq!(plain.token_ids, found.token_ids);
                    assert_eq!(plain.token_type_ids, found.token_type_ids);
                    if let Err(error) = golden.agrees(&found, expected, &[text]) {
                        wrong.push(format!("{name}: {error}"));
                    }
                }
            }
        }
    }
    assert_all_agree(&wrong, compared, 400);
}

#[test]
fn pairs_have_the_ids_types_and_offsets_of_transformers() {
    let golden = Golden::read();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    let cuts = golden.0["cuts"].as_array().expect("cuts");
    for (name, kind) in golden.kinds() {
        for (at, cut) in cuts.iter().enumerate() {
            let (_directory, tokenizer) = golden.tokenizer(kind, cut[1].as_u64());
            let truncation = match text(&cut[0]) {
                "only_first" => PairTruncation::OnlyFirst,
                "only_second" => PairTruncation::OnlySecond,
                _ => PairTruncation::default(),
            };
            for (pair, (first, second)) in golden.pairs().into_iter().enumerate() {
                let expected = &kind["pairs"][pair * cuts.len() + at];
                match tokenizer.tokenize_pair(first, second, truncation) {
                    Err(_) if is_refused(&golden, expected) => {}
                    Err(error) => {
                        wrong.push(format!("{name}: {cut}: {first:?} {second:?}: {error}"));
                    }
                    Ok(_) if expected.is_null() => {
                        wrong.push(format!(
                            "{name}: {cut}: {first:?} {second:?}: transformers fails"
                        ));
                    }
                    Ok(found) => {
                        compared += 1;
                        if let Err(error) = golden.agrees(&found, expected, &[first, second]) {
                            wrong.push(format!("{name}: {cut}: {error}"));
                        }
                        let whole = &kind["pairs"][pair * cuts.len()];
                        assert_eq!(
                            found.truncated,
                            whole != expected,
                            "{name}: {cut}: {first:?}"
                        );
                    }
                }
            }
        }
    }
    assert_all_agree(&wrong, compared, 800);
}

#[test]
fn windows_are_those_of_transformers() {
    let golden = Golden::read();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    let windows = golden.0["windows"].as_array().expect("windows");
    let number = |value: &Value| usize::try_from(value.as_u64().expect("a number")).expect("small");
    for (name, kind) in golden.kinds() {
        let (_directory, tokenizer) = golden.tokenizer(kind, None);
        for (pair, (first, second)) in golden.pairs().into_iter().enumerate() {
            for (at, window) in windows.iter().enumerate() {
                let expected = &kind["windows"][pair * windows.len() + at];
                let window = Window {
                    max_tokens: number(&window[0]),
                    stride: number(&window[1]),
                };
                let case = format!("{name}: {window:?}: {first:?} {second:?}");
                let found = match (tokenizer.tokenize_windows(first, second, window), expected) {
                    (Err(_), Value::Null) => continue,
                    (Err(_), Value::Array(parts)) if is_refused(&golden, &parts[0]) => continue,
                    (Err(error), _) => {
                        wrong.push(format!("{case}: {error}"));
                        continue;
                    }
                    (Ok(found), _) => found,
                };
                let Some(expected) = expected
                    .as_array()
                    .filter(|parts| parts.len() == found.len())
                else {
                    wrong.push(format!("{case}: {} parts, not {expected}", found.len()));
                    continue;
                };
                for (found, expected) in found.iter().zip(expected) {
                    compared += 1;
                    if let Err(error) = golden.agrees(found, expected, &[first, second]) {
                        wrong.push(format!("{case}: {error}"));
                    }
                }
            }
        }
    }
    assert_all_agree(&wrong, compared, 700);
}

#[test]
fn tokens_become_the_text_of_transformers() {
    let golden = Golden::read();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for (name, kind) in golden.kinds() {
        let (_directory, tokenizer) = golden.tokenizer(kind, None);
        let roles = [
            tokenizer.mask_token_id(),
            tokenizer.class_token_id(),
            tokenizer.unknown_token_id(),
        ];
        if json!(roles) != kind["roles"] {
            wrong.push(format!(
                "{name}: expected {}, found {roles:?}",
                kind["roles"]
            ));
        }
        let singles = kind["singles"].as_array().expect("singles").iter();
        for (single, decoded) in singles.zip(kind["decoded"].as_array().expect("texts")) {
            if single.is_null() {
                continue;
            }
            let ids: Vec<u32> =
                serde_json::from_value(golden.list(single)[0].clone()).expect("token ids");
            let tokens = ids.iter().map(|&id| tokenizer.token(id).expect("a token"));
            let found = [
                tokenizer.decode(&ids, false).expect("decodes"),
                tokenizer.decode(&ids, true).expect("decodes"),
                tokenizer.tokens_to_text(tokens.collect()).expect("decodes"),
            ];
            compared += 1;
            if json!(found) != *decoded {
                wrong.push(format!(
                    "{name}: {ids:?}: expected {decoded}, found {found:?}"
                ));
            }
        }
    }
    assert_all_agree(&wrong, compared, 400);
}

#[test]
fn only_word_pieces_mark_what_continues_a_word() {
    let golden = Golden::read();
    for (name, expected) in [
        ("bert", true),
        ("mpnet", true),
        ("roberta", false),
        ("llama", false),
        ("albert", false),
    ] {
        let (_directory, tokenizer) = golden.tokenizer(golden.kind(name), None);
        assert_eq!(tokenizer.marks_continuing_pieces(), expected, "{name}");
    }
}

/// What cannot be cut as asked, or not be told apart, is an error that says what is too long.
#[test]
fn pairs_that_do_not_fit_are_refused() {
    let golden = Golden::read();
    let (_directory, bert) = golden.tokenizer(golden.kind("bert"), Some(12));
    let long = "hello world ".repeat(5);
    let error = |result: Result<AlignedTokens, ModelError>| {
        let error = result.expect_err("refused");
        assert!(matches!(error, ModelError::Input(_)), "{error}");
        error.to_string()
    };
    let first = error(bert.tokenize_pair(&long, "world", PairTruncation::OnlySecond));
    assert!(
        first.starts_with("first text \"hello world hello world hello world hell…\": expected fewer than 9 tokens, which are left beside 3 special tokens and of which it must leave some to the other text, found 10\n  hint: "),
        "{first}"
    );
    let second = error(bert.tokenize_pair("world", &long, PairTruncation::OnlyFirst));
    assert!(second.starts_with("second text "), "{second}");
    let window = |max_tokens, stride| {
        let result = bert.tokenize_windows("hello world", &long, Window { max_tokens, stride });
        result.map(|mut parts| parts.remove(0))
    };
    assert!(window(9, 2).is_ok());
    let wide = error(window(13, 2));
    assert!(
        wide.starts_with(
            "window: expected at most 12 tokens, the model's limit, found 13\n  hint: "
        ),
        "{wide}"
    );
    let stride = error(window(9, 4));
    assert!(
        stride.contains(
            "expected parts that share fewer tokens than the 4 that 2 tokens of the first text"
        ),
        "{stride}"
    );
    let question = error(window(5, 0));
    assert!(question.starts_with("first text "), "{question}");
    let none = error(window(3, 0));
    assert!(
        none.contains(
            "expected room for two texts beside 3 special tokens, found a limit of 3 tokens"
        ),
        "{none}"
    );
    let damaged = error(
        bert.tokenize_pair("hello", "world", PairTruncation::LongestFirst)
            .and_then(|_| window(0, 0)),
    );
    assert!(damaged.contains("found a limit of 0 tokens"), "{damaged}");
}

/// A template that loses the second text is not run, and neither are types that the model has no row for.
#[test]
fn pairs_that_the_tokenizer_or_the_model_does_not_know_are_refused() {
    let golden = Golden::read();
    let (directory, tokenizer) = golden.tokenizer(golden.kind("backend-no-pair"), None);
    assert!(tokenizer.tokenize("hello").is_ok());
    let pair = |tokenizer: &TextTokenizer| {
        let result = tokenizer.tokenize_pair("hello", "world", PairTruncation::default());
        result.map_err(|error| error.to_string())
    };
    let error = pair(&tokenizer).expect_err("refused");
    let file = directory.path().join("tokenizer.json");
    assert!(
        error.starts_with(&format!(
            "{}: expected a `post_processor` with a form for two texts",
            file.display()
        )) && error.contains("hint:"),
        "{error}"
    );

    let bert = golden.kind("bert");
    let files = golden.files(bert);
    let with_types = |types: u64| {
        let mut files = files.clone();
        files["config.json"]["type_vocab_size"] = json!(types);
        let directory = crate::tokenizer_settings::directory(&files, &json!({}));
        let tokenizer = open(directory.path(), &files).expect("opens");
        pair(&tokenizer)
    };
    assert!(with_types(2).is_ok());
    let error = with_types(1).expect_err("refused");
    assert!(
        error.starts_with(
            "texts \"hello\" and \"world\": expected token types below the model's 1, found 1"
        ) && error.contains("type_vocab_size"),
        "{error}"
    );
}

const KINDS: [&str; 10] = [
    "albert",
    "deberta-v2",
    "deberta",
    "qwen2",
    "qwen3",
    "gpt2",
    "llama",
    "gemma",
    "nomic",
    "gte",
];

/// The ids of every setting are those of transformers 5, or it is refused. The first snapshot has the cases that only fewbit refuses; the
/// second has those that only transformers refuses.
#[test]
fn settings_of_more_classes_count_as_in_transformers_5() {
    let (refused, taken) = compare("tokenizer_pairs", &KINDS);
    insta::assert_snapshot!(refused, @r"
    class-BertTokenizer: albert, deberta-v2, deberta, qwen3, gpt2, llama, gemma
    class-GPT2Tokenizer: albert, deberta-v2
    class-Qwen2TokenizerFast: albert, deberta-v2
    unk_id-null-token: deberta-v2
    ");
    insta::assert_snapshot!(taken, @"");
}
