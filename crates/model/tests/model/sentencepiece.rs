//! Sentencepiece's own files without tokenizer.json, against the ids that transformers 5 gives.

use crate::golden_files::golden;
use fewbit_model::tokenization::{TextSettings, TextTokenizer};
use fewbit_model::{EncoderSpec, ModelError};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn cases() -> Value {
    let file = golden("sentencepiece").join("cases.json");
    serde_json::from_slice(&fs::read(file).expect("golden file")).expect("JSON")
}

/// A directory with the files of a case; of tokenizer.json a case says the changes.
fn directory(golden_cases: &Value, case: &Value) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = |key: &str| case[key].as_str().expect("a text");
    let model = golden("sentencepiece").join(format!("{}.model", text("model")));
    fs::copy(model, directory.path().join(text("file"))).expect("copied");
    for (name, content) in case["files"].as_object().expect("files") {
        let content = match content.as_array() {
            Some(changes) if name == "tokenizer.json" => {
                let mut tokenizer = golden_cases["tokenizer.json"].clone();
                for change in changes {
                    let path = change[0].as_str().expect("a path").split('.');
                    *path.fold(&mut tokenizer, |part, key| &mut part[key]) = change[1].clone();
                }
                tokenizer
            }
            _ => content.clone(),
        };
        fs::write(directory.path().join(name), content.to_string()).expect("written");
    }
    directory
}

fn open(directory: &Path) -> Result<TextTokenizer, ModelError> {
    let config = fs::read(directory.join("config.json")).expect("config.json");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    config["vocab_size"] = json!(10_000);
    config["max_position_embeddings"] = json!(2000);
    // Models that are no encoders lend their name, which decides about the class, to one.
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

/// What is opened gives the ids of transformers. The snapshot has what only fewbit refuses, with the beginning of its message.
#[test]
fn sentencepiece_files_give_the_ids_of_transformers_5() {
    let golden = cases();
    let texts: Vec<&str> = golden["texts"]
        .as_array()
        .expect("texts")
        .iter()
        .map(|text| text.as_str().expect("a text"))
        .collect();
    let (mut refused, mut wrong, mut compared) = (Vec::new(), Vec::new(), 0);
    for case in golden["cases"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        let directory = directory(&golden, case);
        let at = |index: &Value| Some(usize::try_from(index.as_u64()?).expect("an index"));
        let expected = at(&case["result"]).map(|index| &golden["results"][index]);
        match (open(directory.path()), expected) {
            (Err(_), None) => {}
            (Err(error), Some(_)) => {
                let error = error.to_string();
                let error = error.lines().next().expect("a line");
                let error = error.replace(directory.path().to_str().expect("UTF-8"), "DIR");
                refused.push(format!("{name}: {error}"));
            }
            (Ok(_), None) => wrong.push(format!("{name}: transformers refuses it")),
            (Ok(tokenizer), Some(expected)) => {
                for (text, expected) in texts.iter().zip(expected.as_array().expect("lists")) {
                    compared += 1;
                    // Null where transformers fails at the text.
                    let expected =
                        at(expected).map_or(&Value::Null, |index| &golden["lists"][index]);
                    match tokenizer.tokenize(text) {
                        Ok(found) if json!(found.token_ids) == *expected => {}
                        Err(error)
                            if expected.is_null()
                                && error.to_string().contains("the tokenizer failed") => {}
                        // A text of no tokens cannot be run.
                        Err(error)
                            if *expected == json!([])
                                && error
                                    .to_string()
                                    .contains("expected at least one token, found none") => {}
                        found => wrong.push(format!("{name}: {text:?}: {found:?}, not {expected}")),
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
    assert!(compared > 18_000, "{compared}");
    insta::assert_snapshot!(refused.join("\n"), @r#"
    xlm-roberta/bpe: DIR/sentencepiece.bpe.model: expected a Unigram model, which XLMRobertaTokenizer is built from, found a BPE model of sentencepiece
    xlm-roberta/word: DIR/sentencepiece.bpe.model: expected a Unigram model, which XLMRobertaTokenizer is built from, found a model of whole words of sentencepiece
    xlm-roberta/char: DIR/sentencepiece.bpe.model: expected a Unigram model, which XLMRobertaTokenizer is built from, found a model of characters of sentencepiece
    xlm-roberta/spiece.model: DIR: expected tokenizer.json, or sentencepiece.bpe.model of sentencepiece, found neither
    xlm-roberta/added_tokens-far: DIR/added_tokens.json: `[NEW]`: expected the id 1000 for the token `[NEW]` to be the next free one or the vocabulary's, found 137
    xlm-roberta/added_tokens-known: DIR/added_tokens.json: `<mask>`: expected the id 0 for the token `<mask>` to be the next free one or the vocabulary's, found 136
    camembert/spiece.model: DIR: expected tokenizer.json, or sentencepiece.bpe.model of sentencepiece, found neither
    camembert/added_tokens-far: DIR/added_tokens.json: `[NEW]`: expected the id 1000 for the token `[NEW]` to be the next free one or the vocabulary's, found 140
    camembert/added_tokens-known: DIR/added_tokens.json: `<mask>`: expected the id 0 for the token `<mask>` to be the next free one or the vocabulary's, found 139
    llama/rules: DIR/tokenizer.model: expected a BPE model, which LlamaTokenizer is built from, found a Unigram model of sentencepiece
    llama/byte-pieces: DIR/tokenizer.model: expected a BPE model, which LlamaTokenizer is built from, found a Unigram model of sentencepiece
    llama/unigram-names: DIR/tokenizer.model: expected a BPE model, which LlamaTokenizer is built from, found a Unigram model of sentencepiece
    llama/word: DIR/tokenizer.model: expected a BPE model, which LlamaTokenizer is built from, found a model of whole words of sentencepiece
    llama/char: DIR/tokenizer.model: expected a BPE model, which LlamaTokenizer is built from, found a model of characters of sentencepiece
    llama/sentencepiece.bpe.model: DIR: expected tokenizer.json, or tokenizer.model of sentencepiece, found neither
    llama/around-unigram: DIR/tokenizer.model: expected a BPE model, which LlamaTokenizer is built from, found a Unigram model of sentencepiece
    llama/around-unigram-names: DIR/tokenizer.model: expected a BPE model, which LlamaTokenizer is built from, found a Unigram model of sentencepiece
    llama/decoder-around-unigram: DIR/tokenizer.model: expected a BPE model, which LlamaTokenizer is built from, found a Unigram model of sentencepiece
    llama/decoder-renames: DIR/tokenizer_config.json: `added_tokens_decoder.9`: expected the id 9 for the token `[NEW]` to be the next free one or the vocabulary's, found 460
    llama/decoder-renames-part: DIR/tokenizer_config.json: `added_tokens_decoder.9`: expected the id 9 for the token `[NEW]` to be the next free one or the vocabulary's, found 200
    llama/added_tokens-far: DIR/added_tokens.json: `[NEW]`: expected the id 1000 for the token `[NEW]` to be the next free one or the vocabulary's, found 180
    llama/stored-unigram: DIR/tokenizer.json: expected a BPE model, which LlamaTokenizer is built from, found a Unigram model
    gemma/rules: DIR/tokenizer.model: expected a BPE model, which GemmaTokenizer is built from, found a Unigram model of sentencepiece
    gemma/byte-pieces: DIR/tokenizer.model: expected a BPE model, which GemmaTokenizer is built from, found a Unigram model of sentencepiece
    gemma/unigram-names: DIR/tokenizer.model: expected a BPE model, which GemmaTokenizer is built from, found a Unigram model of sentencepiece
    gemma/word: DIR/tokenizer.model: expected a BPE model, which GemmaTokenizer is built from, found a model of whole words of sentencepiece
    gemma/char: DIR/tokenizer.model: expected a BPE model, which GemmaTokenizer is built from, found a model of characters of sentencepiece
    gemma/sentencepiece.bpe.model: DIR: expected tokenizer.json, or tokenizer.model of sentencepiece, found neither
    gemma/around-unigram: DIR/tokenizer.model: expected a BPE model, which GemmaTokenizer is built from, found a Unigram model of sentencepiece
    gemma/around-unigram-names: DIR/tokenizer.model: expected a BPE model, which GemmaTokenizer is built from, found a Unigram model of sentencepiece
    gemma/decoder-around-unigram: DIR/tokenizer.model: expected a BPE model, which GemmaTokenizer is built from, found a Unigram model of sentencepiece
    gemma/decoder-renames: DIR/tokenizer_config.json: `added_tokens_decoder.9`: expected the id 9 for the token `[NEW]` to be the next free one or the vocabulary's, found 460
    gemma/decoder-renames-part: DIR/tokenizer_config.json: `added_tokens_decoder.9`: expected the id 9 for the token `[NEW]` to be the next free one or the vocabulary's, found 200
    gemma/added_tokens-far: DIR/added_tokens.json: `[NEW]`: expected the id 1000 for the token `[NEW]` to be the next free one or the vocabulary's, found 180
    gemma/stored-unigram: DIR/tokenizer.json: expected a BPE model, which GemmaTokenizer is built from, found a Unigram model
    backend/word: DIR/tokenizer.model: expected a Unigram or a BPE model, which TokenizersBackend is built from, found a model of whole words of sentencepiece
    backend/char: DIR/tokenizer.model: expected a Unigram or a BPE model, which TokenizersBackend is built from, found a model of characters of sentencepiece
    backend/added_tokens-far: DIR/added_tokens.json: `[NEW]`: expected the id 1000 for the token `[NEW]` to be the next free one or the vocabulary's, found 180
    backend/stored-by-model-type: DIR/tokenizer.json: expected a WordPiece model, which BertTokenizer is built from, found a BPE model
    backend/stored-unigram: DIR/tokenizer.json: `added_tokens`: expected the id 1 for the token `<s>` to be the next free one or the vocabulary's, found 2
    albert/spm.model: DIR: expected tokenizer.json, or spiece.model of sentencepiece, found neither
    albert/sentencepiece.bpe.model: DIR: expected tokenizer.json, or spiece.model of sentencepiece, found neither
    albert/decoder: DIR/tokenizer_config.json: `added_tokens_decoder.0`: expected the id 0 for the token `[PAD]` to be the next free one or the vocabulary's, found 139
    deberta-v2/bpe: DIR/spm.model: expected a Unigram model, which DebertaV2Tokenizer is built from, found a BPE model of sentencepiece
    deberta-v2/word: DIR/spm.model: expected a Unigram model, which DebertaV2Tokenizer is built from, found a model of whole words of sentencepiece
    deberta-v2/spiece.model: DIR: expected tokenizer.json, or spm.model of sentencepiece, found neither
    deberta-v2/sentencepiece.bpe.model: DIR: expected tokenizer.json, or spm.model of sentencepiece, found neither
    bert/sentencepiece.bpe.model: DIR: expected tokenizer.json, or a WordPiece vocab.txt, found neither
    "#);
}

/// A family that has no tokenizer here is refused by its class, whatever lies in the directory.
#[test]
fn other_classes_of_sentencepiece_are_named() {
    let golden = cases();
    let cases = golden["cases"].as_array().expect("cases");
    let mut case = cases
        .iter()
        .find(|case| case["name"] == "xlm-roberta/rules")
        .expect("the case")
        .clone();
    for class in ["XLNetTokenizer", "T5Tokenizer", "BigBirdTokenizer"] {
        case["files"]["tokenizer_config.json"]["tokenizer_class"] = json!(class);
        let directory = directory(&golden, &case);
        let error = open(directory.path()).expect_err("refused").to_string();
        assert!(
            error.contains("`tokenizer_class`") && error.contains(class) && error.contains("hint:"),
            "{error}"
        );
    }
}

/// Every beginning of a file, and the file with every byte changed, is read or refused with the file's name, and never a panic.
#[test]
fn damaged_files_are_refused_with_their_names() {
    for name in [
        "camembert/symbols",
        "llama/bpe-symbols",
        "backend/bpe-names",
    ] {
        damaged_files(name);
    }
}

fn damaged_files(name: &str) {
    let golden = cases();
    let cases = golden["cases"].as_array().expect("cases");
    let case = cases
        .iter()
        .find(|case| case["name"] == name)
        .expect("the case");
    let directory = directory(&golden, case);
    let file = directory
        .path()
        .join(case["file"].as_str().expect("a name"));
    let whole = fs::read(&file).expect("the model");
    let refusal = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("written");
        let text = open(directory.path()).err()?.to_string();
        assert!(text.starts_with(file.to_str().expect("UTF-8")), "{text}");
        Some(text)
    };
    for length in (0..whole.len()).step_by(7) {
        refusal(&whole[..length]);
    }
    for at in (0..whole.len()).step_by(7) {
        let mut changed = whole.clone();
        changed[at] ^= if at % 2 == 0 { 0x80 } else { 0x07 };
        if refusal(&changed).is_none() {
            let tokenizer = open(directory.path()).expect("opens");
            // Its normalizer may fail at a text; that is an error, too.
            tokenizer.tokenize("the dog \u{fb01}\u{3000}½ আমি").ok();
        }
    }
    for (bytes, expected) in [
        (
            &b""[..],
            "expected a model of sentencepiece, found something else: expected pieces of a vocabulary, found none in 0 bytes",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "byte 0: expected a field",
        ),
        (
            &whole[..whole.len() - 1],
            "the file is incomplete or damaged",
        ),
        (
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\x7f",
            "more bytes, found 0",
        ),
        (b"\x0a\x03\x0a\x01a\x1a\x03\x12\x01x", "expected a "),
    ] {
        let text = refusal(bytes).expect("refused");
        assert!(text.contains(expected), "{text}\nexpected {expected}");
    }
}

/// A sentencepiece file with these pieces, of a kind that the file says by its number.
fn model(pieces: &[&str], kind: u8) -> Vec<u8> {
    let field = |number: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).expect("short");
        [&[(number << 3) | 2, length], content].concat()
    };
    let pieces = pieces
        .iter()
        .flat_map(|piece| field(1, &field(1, piece.as_bytes())));
    pieces.chain(field(2, &[0x18, kind])).collect()
}

#[test]
fn byte_pairs_that_cannot_be_are_refused_with_a_hint() {
    let golden = cases();
    let cases = golden["cases"].as_array().expect("cases");
    let case = |name: &str| {
        cases
            .iter()
            .find(|case| case["name"] == name)
            .expect("the case")
    };
    let pieces = ["<unk>", "<s>", "</s>", "▁", "a", "▁a"];
    let twice = ["<unk>", "<s>", "</s>", "a", "b", "a"];
    for (name, pieces, kind, expected) in [
        (
            "llama/bpe",
            pieces,
            1,
            "expected a BPE model, which LlamaTokenizer is built from, found a Unigram model of sentencepiece",
        ),
        (
            "llama/bpe",
            pieces,
            3,
            "found a model of whole words of sentencepiece",
        ),
        (
            "gemma/bpe",
            pieces,
            4,
            "expected a BPE model, which GemmaTokenizer is built from, found a model of characters of sentencepiece",
        ),
        (
            "gemma/bpe",
            pieces,
            9,
            "found a model of sentencepiece of an unknown type",
        ),
        (
            "backend/bpe",
            pieces,
            0,
            "expected a Unigram or a BPE model, which TokenizersBackend is built from, found a model of sentencepiece of an unknown type",
        ),
        (
            "backend/bpe",
            pieces,
            3,
            "found a model of whole words of sentencepiece",
        ),
        (
            "xlm-roberta/bpe",
            pieces,
            2,
            "expected a Unigram model, which XLMRobertaTokenizer is built from, found a BPE model of sentencepiece",
        ),
        (
            "camembert/bpe",
            pieces,
            2,
            "expected a Unigram model, which CamembertTokenizer is built from, found a BPE model of sentencepiece",
        ),
        (
            "llama/bpe",
            twice,
            2,
            "expected pieces of which no two are the same, found `a` as piece 3 and as piece 5",
        ),
        ("gemma/bpe", twice, 2, "found `a` as piece 3 and as piece 5"),
        (
            "backend/bpe",
            twice,
            2,
            "found `a` as piece 3 and as piece 5",
        ),
    ] {
        let directory = directory(&golden, case(name));
        let file = directory
            .path()
            .join(case(name)["file"].as_str().expect("a name"));
        fs::write(&file, model(&pieces, kind)).expect("written");
        let error = open(directory.path()).expect_err("refused").to_string();
        assert!(error.starts_with(file.to_str().expect("UTF-8")), "{error}");
        assert!(
            error.contains(expected) && error.contains("hint:"),
            "{name}: {error}\nexpected {expected}"
        );
    }
    // The same pieces make a tokenizer otherwise.
    let directory = directory(&golden, case("llama/bpe"));
    fs::write(directory.path().join("tokenizer.model"), model(&pieces, 2)).expect("written");
    let tokenizer = open(directory.path()).expect("opens");
    assert_eq!(tokenizer.tokenize("a a").expect("tokens").token_ids, [5, 5]);
}

/// transformers may take another library's vocabulary for the model's, depending on the order in which the directory lists its files.
#[test]
fn vocabularies_of_other_libraries_are_not_passed_over() {
    let golden = cases();
    let cases = golden["cases"].as_array().expect("cases");
    for (name, other) in [
        ("llama/bpe", "tekken.json"),
        ("backend/bpe", "tiktoken.model"),
    ] {
        let case = cases.iter().find(|case| case["name"] == name);
        let directory = directory(&golden, case.expect("the case"));
        let file = directory.path().join(other);
        fs::write(&file, "{}").expect("written");
        let error = open(directory.path()).expect_err("refused").to_string();
        assert!(
            error.starts_with(file.to_str().expect("UTF-8")) && error.contains("hint:"),
            "{error}"
        );
    }
}
