//! BERT's WordPiece tokenizer from vocab.txt and tokenizer_config.json, as transformers builds it.

use crate::json_file::read_object;
use crate::spec::config_fields::ConfigFields;
use crate::{EncoderSpec, ModelError};
use serde_json::{Map, Value, json};
use std::path::Path;
use tokenizers::Tokenizer;
use tokenizers::normalizers::NormalizerWrapper;

/// Values of `tokenizer_class` that mean BERT's WordPiece.
const CLASSES: &[&str] = &[
    "BertTokenizer",
    "BertTokenizerFast",
    "DistilBertTokenizer",
    "DistilBertTokenizerFast",
    "ElectraTokenizer",
    "ElectraTokenizerFast",
    "MPNetTokenizer",
    "MPNetTokenizerFast",
];

/// A tokenizer.json for the words of `vocab`, one token a line, id = line number.
pub(super) fn tokenizer_json(
    directory: &Path,
    vocab: &Path,
    spec: &EncoderSpec,
    config: &ConfigFields<'_>,
) -> Result<Value, ModelError> {
    if let Some(class) = config
        .get("tokenizer_class")
        .filter(|class| !class.is_null())
        && !class.as_str().is_some_and(|class| CLASSES.contains(&class))
    {
        let hint = "save the tokenizer as tokenizer.json with transformers";
        return Err(config.unsupported(
            "tokenizer_class",
            "BERT's WordPiece where there is no tokenizer.json",
            class,
            hint,
        ));
    }
    let vocabulary = read_vocabulary(vocab)?;
    let special = special_tokens(directory, spec, config)?;
    let mut added: Vec<(u64, Value)> = Vec::new();
    for token in &special {
        match vocabulary.get(&token.content).and_then(Value::as_u64) {
            Some(id) => added.push((id, token.added(id))),
            None if matches!(token.role, "cls_token" | "sep_token" | "unk_token") => {
                return Err(ModelError::Tokenizer {
                    file: vocab.to_owned(),
                    message: format!("expected the token `{}` (`{}`), found no such line", token.content, token.role),
                    hint: "the special tokens come from special_tokens_map.json or tokenizer_config.json".to_owned(),
                });
            }
            None => {}
        }
    }
    refuse_added_tokens(directory, &vocabulary)?;
    added.sort_by_key(|(id, _)| *id);
    added.dedup_by_key(|(id, _)| *id);
    let added: Vec<Value> = added.into_iter().map(|(_, token)| token).collect();
    let content = |role: &str| {
        special
            .iter()
            .find(|token| token.role == role)
            .map_or("", |token| token.content.as_str())
    };
    let pair = |role: &str| json!([content(role), vocabulary[content(role)]]);
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": config.flag("tokenize_chinese_chars", true)?,
            "strip_accents": strip_accents(config)?.flatten(),
            "lowercase": config.flag("do_lower_case", true)?,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "cls": pair("cls_token"), "sep": pair("sep_token")},
        "decoder": null,
        "model": {
            "type": "WordPiece",
            "unk_token": content("unk_token"),
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }))
}

/// Lets the settings of tokenizer_config.json overrule those of a BERT tokenizer.json, as transformers does.
pub(super) fn follow_config(
    tokenizer: &mut Tokenizer,
    config: &ConfigFields<'_>,
) -> Result<(), ModelError> {
    let class = config.get("tokenizer_class").and_then(Value::as_str);
    if !class.is_some_and(|class| CLASSES.contains(&class)) {
        return Ok(());
    }
    let Some(NormalizerWrapper::BertNormalizer(mut normalizer)) =
        tokenizer.get_normalizer().cloned()
    else {
        return Ok(());
    };
    normalizer.lowercase = config.flag("do_lower_case", normalizer.lowercase)?;
    normalizer.handle_chinese_chars =
        config.flag("tokenize_chinese_chars", normalizer.handle_chinese_chars)?;
    normalizer.strip_accents = strip_accents(config)?.unwrap_or(normalizer.strip_accents);
    tokenizer.with_normalizer(Some(normalizer));
    Ok(())
}

/// `strip_accents`, if the configuration has it: true, false, or null (as lowercasing is).
fn strip_accents(config: &ConfigFields<'_>) -> Result<Option<Option<bool>>, ModelError> {
    match config.get("strip_accents") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(_) => config
            .flag("strip_accents", false)
            .map(|flag| Some(Some(flag))),
    }
}

/// Token -> line number; of a token that stands twice the last line counts.
fn read_vocabulary(file: &Path) -> Result<Map<String, Value>, ModelError> {
    let error = |message: String| ModelError::Tokenizer {
        file: file.to_owned(),
        message,
        hint: "fetch the file again".to_owned(),
    };
    let bytes =
        std::fs::read(file).map_err(|failure| error(format!("cannot be read: {failure}")))?;
    let text = String::from_utf8(bytes)
        .map_err(|failure| error(format!("expected UTF-8 text: {failure}")))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text
        .split('\n')
        .enumerate()
        .map(|(id, line)| {
            (
                line.strip_suffix('\r').unwrap_or(line).to_owned(),
                Value::from(id),
            )
        })
        .collect())
}

struct SpecialToken {
    role: &'static str,
    content: String,
    left_strip: bool,
    right_strip: bool,
}

impl SpecialToken {
    fn added(&self, id: u64) -> Value {
        json!({
            "id": id,
            "content": self.content,
            "single_word": false,
            "lstrip": self.left_strip,
            "rstrip": self.right_strip,
            "normalized": false,
            "special": true,
        })
    }
}

/// The special tokens of special_tokens_map.json, else of tokenizer_config.json, else of the family.
fn special_tokens(
    directory: &Path,
    spec: &EncoderSpec,
    config: &ConfigFields<'_>,
) -> Result<Vec<SpecialToken>, ModelError> {
    let map_file = directory.join("special_tokens_map.json");
    let map = read_object(&map_file)?.unwrap_or(Value::Null);
    let map = ConfigFields::new(&map_file, &map);
    let defaults = if spec.model_type == "mpnet" {
        [
            ("unk_token", "[UNK]"),
            ("cls_token", "<s>"),
            ("sep_token", "</s>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ]
    } else {
        [
            ("unk_token", "[UNK]"),
            ("cls_token", "[CLS]"),
            ("sep_token", "[SEP]"),
            ("pad_token", "[PAD]"),
            ("mask_token", "[MASK]"),
        ]
    };
    let read = |(role, default): (&'static str, &str)| {
        let token = |content: &str| SpecialToken {
            role,
            content: content.to_owned(),
            // The mask of MPNet stands for a word with the space before it.
            left_strip: role == "mask_token" && spec.model_type == "mpnet",
            right_strip: false,
        };
        for fields in [&map, config] {
            match fields.get(role) {
                None | Some(Value::Null) => {}
                Some(Value::String(content)) => return Ok(token(content)),
                Some(object) => {
                    let content = object["content"].as_str();
                    let content = content.ok_or_else(|| {
                        fields.invalid(
                            role,
                            "expected a token, or an object with `content`",
                            object,
                        )
                    })?;
                    let flag = |name: &str| match &object[name] {
                        Value::Null => Ok(false),
                        Value::Bool(flag) => Ok(*flag),
                        other => {
                            let field = format!("{role}.{name}");
                            Err(fields.invalid(&field, "expected true or false", other))
                        }
                    };
                    return Ok(SpecialToken {
                        left_strip: flag("lstrip")?,
                        right_strip: flag("rstrip")?,
                        ..token(content)
                    });
                }
            }
        }
        Ok(token(default))
    };
    defaults.into_iter().map(read).collect()
}

/// Errors if added_tokens.json has tokens that vocab.txt lacks.
fn refuse_added_tokens(
    directory: &Path,
    vocabulary: &Map<String, Value>,
) -> Result<(), ModelError> {
    let file = directory.join("added_tokens.json");
    let added = read_object(&file)?.unwrap_or(Value::Null);
    let unknown = added
        .as_object()
        .and_then(|added| added.keys().find(|token| !vocabulary.contains_key(*token)));
    match unknown {
        None => Ok(()),
        Some(token) => Err(ModelError::Tokenizer {
            file,
            message: format!("expected only tokens of vocab.txt, found `{token}`"),
            hint: "save the tokenizer as tokenizer.json with transformers".to_owned(),
        }),
    }
}
