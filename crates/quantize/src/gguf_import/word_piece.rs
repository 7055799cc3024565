//! BERT's tokenizer, from the tokens of a file.

use std::collections::BTreeSet;

use fewbit_checkpoint::CheckpointError;
use fewbit_checkpoint::gguf::GgufFile;
use fewbit_model::EncoderSpec;
use serde_json::{Map, Value, json};

use super::token_list::{CONTROL, TokenList, added_token, template};

/// What llama.cpp takes where a file does not say it (`llama_vocab::impl::load`).
const DEFAULT_IDS: [(&str, &str, u32); 5] = [
    ("unk_token", "unknown", 100),
    ("sep_token", "seperator", 102),
    ("pad_token", "padding", 0),
    ("cls_token", "cls", 101),
    ("mask_token", "mask", 103),
];
/// tokenizer.json and tokenizer_config.json.
///
/// # Errors
/// No tokens, more than the model has rows for, two that are the same; special tokens that are none.
pub(super) fn tokenizer(
    spec: &EncoderSpec,
    file: &GgufFile,
    notes: &mut Vec<String>,
) -> Result<(Value, Value), CheckpointError> {
    let list = TokenList::read(spec, file)?;
    let mut vocabulary = Map::new();
    for (id, token, kind) in list.used() {
        let token = piece(token, kind);
        if vocabulary.insert(token.clone(), id.into()).is_some() {
            return Err(list.error(format!("expected every token once, found `{token}` twice")));
        }
    }
    let mut special = special_tokens(&list)?;
    special.retain(|(_, _, token)| vocabulary.contains_key(token));
    let required = |field: &'static str| {
        let found = special.iter().find(|(known, ..)| *known == field);
        let found = found.map(|(_, id, token)| (*id, token.as_str()));
        found.ok_or_else(|| list.error(format!("expected a token that is `{field}`, found none")))
    };
    let (cls, sep) = (required("cls_token")?, required("sep_token")?);
    let (_, unknown) = required("unk_token")?;
    let (lowercase, strip_accents) = normalization(&list, notes)?;
    let special_ids = special.iter().map(|(_, id, token)| (*id, token.as_str()));
    let control = list.used().filter(|(.., kind)| *kind == CONTROL);
    let control = control.map(|(id, token, _)| (id, token));
    let added: BTreeSet<(u32, &str)> = special_ids.chain(control).collect();
    let added = added
        .into_iter()
        .map(|(id, token)| added_token(id, token, true));
    let added: Vec<Value> = added.collect();
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
        "post_processor": template(Some(cls), Some(sep)),
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
    list: &TokenList<'_>,
) -> Result<Vec<(&'static str, u32, String)>, CheckpointError> {
    let mut special = Vec::new();
    for (field, name, default) in DEFAULT_IDS {
        let said = match list.named(name)? {
            None if field == "cls_token" => list.named("bos")?,
            said => said,
        };
        let id = said.map_or(default, |(id, _)| id);
        let token = list
            .tokens
            .get(id as usize)
            .zip(list.types.get(id as usize));
        if let Some((token, kind)) = token {
            special.push((field, id, piece(token, *kind)));
        }
    }
    Ok(special)
}

/// Whether texts are lowercased, and whether accents are taken away.
fn normalization(
    list: &TokenList<'_>,
    notes: &mut Vec<String>,
) -> Result<(bool, bool), CheckpointError> {
    const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";
    let metadata = list.metadata;
    let lowercase = match metadata.flag(LOWERCASE)? {
        Some(lowercase) => lowercase,
        None => {
            let has_capitals = |token: &String| {
                let begins = token.strip_prefix('\u{2581}');
                begins.is_some_and(|begins| {
                    !begins.starts_with('[') && begins.chars().any(char::is_uppercase)
                })
            };
            let lowercase = !list.tokens.iter().any(has_capitals);
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
