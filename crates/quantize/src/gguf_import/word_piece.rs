//! BERT's tokenizer, from the tokens of a file.

use std::collections::HashSet;

use fewbit_checkpoint::CheckpointError;
use fewbit_checkpoint::gguf::GgufFile;
use fewbit_model::EncoderSpec;
use serde_json::{Map, Value, json};

/// What llama.cpp takes where a file does not say it (`llama_vocab::impl::load`).
const DEFAULT_IDS: [(&str, &str, u32); 5] = [
    ("unk_token", "unknown", 100),
    ("sep_token", "seperator", 102),
    ("pad_token", "padding", 0),
    ("cls_token", "cls", 101),
    ("mask_token", "mask", 103),
];
/// Types of tokens.
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// tokenizer.json and tokenizer_config.json.
///
/// # Errors
/// No tokens, more than the model has rows for, two that are the same; special tokens that are none.
pub(super) fn tokenizer(
    spec: &EncoderSpec,
    file: &GgufFile,
    notes: &mut Vec<String>,
) -> Result<(Value, Value), CheckpointError> {
    let metadata = file.metadata();
    let stored = metadata.strings(TOKENS)?;
    let stored = stored.ok_or_else(|| metadata.missing(TOKENS))?;
    if stored.len() > spec.vocab_size {
        let message = format!(
            "expected at most {}, as many as the word embeddings have rows, found {}",
            spec.vocab_size,
            stored.len()
        );
        return Err(metadata.error(TOKENS, message));
    }
    let types = metadata.integers(TYPES)?;
    let types = types.unwrap_or_else(|| vec![1; stored.len()]);
    if types.len() != stored.len() {
        let message = format!("expected {} of them, found {}", stored.len(), types.len());
        return Err(metadata.error(TYPES, message));
    }
    let mut vocabulary = Map::new();
    let mut written = HashSet::new();
    for (id, (token, kind)) in stored.iter().zip(&types).enumerate() {
        if *kind == UNUSED {
            continue;
        }
        let token = piece(token, *kind);
        if !written.insert(token.clone()) {
            let message = format!("expected every token once, found `{token}` twice");
            return Err(metadata.error(TOKENS, message));
        }
        vocabulary.insert(token, id.into());
    }
    let mut special = special_tokens(file, stored, &types)?;
    special.retain(|(_, _, token)| vocabulary.contains_key(token));
    let token_of = |field: &str| {
        let found = special.iter().find(|(known, ..)| *known == field);
        found.map(|(_, id, token)| (*id, token.clone()))
    };
    let required = |field: &'static str| {
        token_of(field).ok_or_else(|| {
            metadata.error(
                TOKENS,
                format!("expected a token that is `{field}`, found none"),
            )
        })
    };
    let (cls, sep) = (required("cls_token")?, required("sep_token")?);
    let (_, unknown) = required("unk_token")?;
    let (lowercase, strip_accents) = normalization(file, stored, notes)?;
    let mut added: Vec<(u32, String)> = special
        .iter()
        .map(|(_, id, token)| (*id, token.clone()))
        .collect();
    for (id, (token, kind)) in stored.iter().zip(&types).enumerate() {
        if *kind == CONTROL {
            added.push((id as u32, token.clone()));
        }
    }
    added.sort();
    added.dedup();
    let added: Vec<Value> = added.iter().map(|(id, token)| json!({
        "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
    })).collect();
    let special_token =
        |token: &str, kind: u32| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let sequence = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
    let (cls_name, sep_name) = (cls.1.as_str(), sep.1.as_str());
    let entry = |(id, token): &(u32, String)| json!({"id": token, "ids": [id], "tokens": [token]});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": true,
            "strip_accents": strip_accents,
            "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special_token(cls_name, 0), sequence("A", 0), special_token(sep_name, 0)],
            "pair": [
                special_token(cls_name, 0),
                sequence("A", 0),
                special_token(sep_name, 0),
                sequence("B", 1),
                special_token(sep_name, 1),
            ],
            "special_tokens": {cls_name: entry(&cls), sep_name: entry(&sep)},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    });
    let mut config = json!({
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": lowercase,
        "strip_accents": strip_accents,
        "tokenize_chinese_chars": true,
        "model_max_length": spec.positions.max_tokens(),
    });
    for (field, _, token) in &special {
        config[*field] = token.as_str().into();
    }
    Ok((tokenizer, config))
}

/// A token as vocab.txt has it: llama.cpp puts `▁` before what begins a word, and takes `##` from what continues one.
fn piece(token: &str, kind: i32) -> String {
    // Older files have other special tokens as they are, and call them normal.
    let is_bracketed = token.starts_with('[') && token.ends_with(']') && token.len() > 2;
    match token.strip_prefix('\u{2581}') {
        _ if kind == CONTROL => token.to_owned(),
        Some(begins) => begins.to_owned(),
        None if is_bracketed => token.to_owned(),
        None => format!("##{token}"),
    }
}

/// The fields, ids and names of special tokens that the file has.
fn special_tokens(
    file: &GgufFile,
    stored: &[String],
    types: &[i32],
) -> Result<Vec<(&'static str, u32, String)>, CheckpointError> {
    let metadata = file.metadata();
    let mut special = Vec::new();
    for (field, name, default) in DEFAULT_IDS {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let said = match metadata.size(&key)? {
            None if field == "cls_token" => metadata.size("tokenizer.ggml.bos_token_id")?,
            said => said,
        };
        let id = said.unwrap_or(default);
        match stored.get(id as usize).zip(types.get(id as usize)) {
            Some((token, kind)) => special.push((field, id, piece(token, *kind))),
            None if said.is_none() => {}
            None => {
                let message = format!("expected one of {} tokens, found {id}", stored.len());
                return Err(metadata.error(&key, message));
            }
        }
    }
    Ok(special)
}

/// Whether texts are lowercased, and whether accents are taken away.
fn normalization(
    file: &GgufFile,
    stored: &[String],
    notes: &mut Vec<String>,
) -> Result<(bool, bool), CheckpointError> {
    const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";
    let metadata = file.metadata();
    let lowercase = match metadata.flag(LOWERCASE)? {
        Some(lowercase) => lowercase,
        None => {
            let has_capitals = |token: &String| {
                let begins = token.strip_prefix('\u{2581}');
                begins.is_some_and(|begins| {
                    !begins.starts_with('[') && begins.chars().any(char::is_uppercase)
                })
            };
            let lowercase = !stored.iter().any(has_capitals);
            let why = match lowercase {
                true => "no word of its vocabulary has capital letters, so texts are lowercased",
                false => "words of its vocabulary have capital letters, so texts keep theirs",
            };
            notes.push(format!("the file does not say `{LOWERCASE}`: {why}"));
            lowercase
        }
    };
    let strip_accents = metadata.flag("tokenizer.ggml.normalizer.strip_accents")?;
    Ok((lowercase, strip_accents.unwrap_or(lowercase)))
}
