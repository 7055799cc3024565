//! Tokenizers of byte pairs, from the tokens of a file.

use fewbit_checkpoint::CheckpointError;
use fewbit_checkpoint::gguf::GgufFile;
use fewbit_model::byte_pairs::ByteLevelRule;
use fewbit_model::{EncoderSpec, tokenization};
use serde_json::{Map, Value, json};

use super::token_list::{CONTROL, NORMAL, TokenList, UNKNOWN, USER_DEFINED, added_token, template};
use crate::gguf_architecture::GgufArchitecture;

const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const RULE: &str = "tokenizer.ggml.pre";

/// tokenizer.json and tokenizer_config.json of byte-level byte pairs.
///
/// # Errors
/// No tokens or merges; a rule that fewbit does not know.
pub(super) fn of_bytes(
    architecture: GgufArchitecture,
    spec: &EncoderSpec,
    file: &GgufFile,
) -> Result<(Value, Value), CheckpointError> {
    let list = TokenList::read(spec, file)?;
    let metadata = list.metadata;
    let name = metadata.text(RULE)?.ok_or_else(|| metadata.missing(RULE))?;
    // llama.cpp's other names of the rule.
    let known = match name {
        "llama3" | "llama-v3" => "llama-bpe",
        name => name,
    };
    let mut rules = ByteLevelRule::ALL.into_iter();
    let rule = rules.find(|rule| rule.name == known).ok_or_else(|| {
        let names = ByteLevelRule::ALL.map(|rule| rule.name).join(", ");
        let message = format!("expected one of {names}, found `{name}`");
        metadata.error(RULE, message).hint(
            "other rules cut texts otherwise: use the safetensors checkpoint that the file was made from",
        )
    })?;
    let merges = metadata.strings(MERGES)?;
    let merges = merges.ok_or_else(|| metadata.missing(MERGES))?;
    let pairs = merges.iter().map(|merge| {
        let pair = merge
            .char_indices()
            .skip(1)
            .find(|(_, letter)| *letter == ' ');
        pair.map(|(at, _)| json!([merge[..at], merge[at + 1..]]))
    });
    let pairs: Option<Vec<Value>> = pairs.collect();
    let pairs = pairs.ok_or_else(|| {
        metadata.error(
            MERGES,
            "expected two tokens with a space between, found less",
        )
    })?;
    let around = Around::read(&list, rule.name == "llama-bpe")?;
    // Qwen's tokenizers compose, whatever a file says.
    let composes = matches!(
        architecture,
        GgufArchitecture::Qwen2 | GgufArchitecture::Qwen3
    );
    let level = |own_words: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": own_words});
    let pre_tokenizer = match rule.words {
        None => level(true),
        Some(words) => json!({
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": false},
                level(false),
            ],
        }),
    };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(&list),
        "normalizer": composes.then(|| json!({"type": "NFC"})),
        "pre_tokenizer": pre_tokenizer,
        "post_processor": around.processor().unwrap_or_else(|| level(false)),
        "decoder": level(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": rule.ignores_merges,
            "vocab": vocabulary(&list)?,
            "merges": pairs,
        },
    });
    let config = around.config("PreTrainedTokenizerFast", spec, &list)?;
    Ok((tokenizer, config))
}

/// tokenizer.json and tokenizer_config.json of sentencepiece's byte pairs.
///
/// # Errors
/// No tokens or scores; pieces that are too long for their merges to be told.
pub(super) fn of_sentencepiece(
    spec: &EncoderSpec,
    file: &GgufFile,
) -> Result<(Value, Value), CheckpointError> {
    let list = TokenList::read(spec, file)?;
    let metadata = list.metadata;
    let scores = metadata.floats(SCORES)?;
    let scores = scores.ok_or_else(|| metadata.missing(SCORES))?;
    if scores.len() != list.tokens.len() {
        let message = format!(
            "expected {} of them, found {}",
            list.tokens.len(),
            scores.len()
        );
        return Err(metadata.error(SCORES, message));
    }
    let pieces = list.used().filter(|(.., kind)| *kind == NORMAL);
    let mut pieces: Vec<(u32, &str)> = pieces.map(|(id, token, _)| (id, token)).collect();
    // Those with larger scores are put together first.
    let score = |id: u32| scores[id as usize];
    pieces.sort_by(|a, b| score(b.0).total_cmp(&score(a.0)).then(a.0.cmp(&b.0)));
    let pieces: Vec<&str> = pieces.into_iter().map(|(_, token)| token).collect();
    let merges = tokenization::merges(&pieces).map_err(|message| list.error(message))?;
    let merges = merges.into_iter().map(|(left, right)| json!([left, right]));
    let around = Around::read(&list, true)?;
    let adds_space = metadata
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let unknown = list.used().find(|(.., kind)| *kind == UNKNOWN);
    let unknown = unknown.map(|(_, token, _)| token);
    let scheme = if adds_space { "first" } else { "never" };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(&list),
        "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false},
        "post_processor": around.processor(),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": usize::from(adds_space), "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocabulary(&list)?,
            "merges": merges.collect::<Vec<_>>(),
        },
    });
    let mut config = around.config("LlamaTokenizer", spec, &list)?;
    config["add_prefix_space"] = adds_space.into();
    config["legacy"] = false.into();
    Ok((tokenizer, config))
}

fn vocabulary(list: &TokenList<'_>) -> Result<Map<String, Value>, CheckpointError> {
    let mut vocabulary = Map::new();
    for (id, token, _) in list.used() {
        if vocabulary.insert(token.to_owned(), id.into()).is_some() {
            let message = format!("expected every token once, found `{token}` twice");
            return Err(list.error(message));
        }
    }
    Ok(vocabulary)
}

/// Tokens that texts are cut at first.
fn added(list: &TokenList<'_>) -> Vec<Value> {
    let is_added = |kind: i32| [UNKNOWN, CONTROL, USER_DEFINED].contains(&kind);
    let added = list.used().filter(|(.., kind)| is_added(*kind));
    added
        .map(|(id, token, kind)| added_token(id, token, kind != USER_DEFINED))
        .collect()
}

/// Special tokens around a text.
struct Around<'a> {
    before: Option<(u32, &'a str)>,
    after: Option<(u32, &'a str)>,
}

impl<'a> Around<'a> {
    /// `begins` says whether there is one before texts, where the file does not.
    fn read(list: &'a TokenList<'_>, begins: bool) -> Result<Self, CheckpointError> {
        let flag = |name: &str| {
            list.metadata
                .flag(&format!("tokenizer.ggml.add_{name}_token"))
        };
        let token = |name: &str, default: bool| {
            Ok(match flag(name)?.unwrap_or(default) {
                true => list.named(name)?,
                false => None,
            })
        };
        Ok(Self {
            before: token("bos", begins)?,
            after: token("eos", false)?,
        })
    }

    fn processor(&self) -> Option<Value> {
        let any = self.before.is_some() || self.after.is_some();
        any.then(|| template(self.before, self.after))
    }

    fn config(
        &self,
        class: &str,
        spec: &EncoderSpec,
        list: &TokenList<'_>,
    ) -> Result<Value, CheckpointError> {
        let mut config = json!({
            "tokenizer_class": class,
            "model_max_length": spec.positions.max_tokens(),
            "add_bos_token": self.before.is_some(),
            "add_eos_token": self.after.is_some(),
            "clean_up_tokenization_spaces": false,
        });
        let fields = [
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("unk_token", "unknown"),
            ("pad_token", "padding"),
        ];
        for (field, name) in fields {
            if let Some((_, token)) = list.named(name)? {
                config[field] = token.into();
            }
        }
        Ok(config)
    }
}
