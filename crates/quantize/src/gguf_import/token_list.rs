//! The tokens of a file, with their types.

use fewbit_checkpoint::CheckpointError;
use fewbit_checkpoint::gguf::{GgufFile, Metadata};
use fewbit_model::EncoderSpec;
use serde_json::{Value, json};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Types of tokens, as [`fewbit_model::byte_pairs::TokenType`] has them.
pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;

/// Tokens by id.
pub(super) struct TokenList<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) tokens: &'a [String],
    /// A type for each.
    pub(super) types: Vec<i32>,
}

impl<'a> TokenList<'a> {
    /// Reads them.
    ///
    /// # Errors
    /// There are none, more than the model has rows for, or not as many types.
    pub(super) fn read(spec: &EncoderSpec, file: &'a GgufFile) -> Result<Self, CheckpointError> {
        let metadata = file.metadata();
        let tokens = metadata.strings(TOKENS)?;
        let tokens = tokens.ok_or_else(|| metadata.missing(TOKENS))?;
        if tokens.len() > spec.vocab_size {
            let message = format!(
                "expected at most {}, as many as the word embeddings have rows, found {}",
                spec.vocab_size,
                tokens.len()
            );
            return Err(metadata.error(TOKENS, message));
        }
        let types = metadata.integers(TYPES)?;
        let types = types.unwrap_or_else(|| vec![NORMAL; tokens.len()]);
        if types.len() != tokens.len() {
            let message = format!("expected {} of them, found {}", tokens.len(), types.len());
            return Err(metadata.error(TYPES, message));
        }
        Ok(Self {
            metadata,
            tokens,
            types,
        })
    }

    /// Id, token and type of each that is one.
    pub(super) fn used(&self) -> impl Iterator<Item = (u32, &str, i32)> {
        let all = (0..).zip(self.tokens).zip(&self.types);
        let all = all.map(|((id, token), kind)| (id, token.as_str(), *kind));
        all.filter(|(.., kind)| *kind != UNUSED)
    }

    /// The id of `tokenizer.ggml.NAME_token_id` and its token, if the file says it.
    ///
    /// # Errors
    /// There is no such token.
    pub(super) fn named(&self, name: &str) -> Result<Option<(u32, &str)>, CheckpointError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = self.metadata.size(&key)? else {
            return Ok(None);
        };
        match self.tokens.get(id as usize) {
            Some(token) => Ok(Some((id, token))),
            None => {
                let message = format!("expected one of {} tokens, found {id}", self.tokens.len());
                Err(self.metadata.error(&key, message))
            }
        }
    }

    /// An error about the tokens.
    pub(super) fn error(&self, message: impl Into<String>) -> CheckpointError {
        self.metadata.error(TOKENS, message)
    }
}

/// An entry of tokenizer.json's `added_tokens`.
pub(super) fn added_token(id: u32, token: &str, is_special: bool) -> Value {
    json!({
        "id": id,
        "content": token,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": is_special,
    })
}

/// tokenizer.json's `post_processor` that puts tokens around a text.
pub(super) fn template(before: Option<(u32, &str)>, after: Option<(u32, &str)>) -> Value {
    let special = |token: Option<(u32, &str)>, kind: u32| {
        token.map(|(_, token)| json!({"SpecialToken": {"id": token, "type_id": kind}}))
    };
    let sequence = |name: &str, kind: u32| Some(json!({"Sequence": {"id": name, "type_id": kind}}));
    let around = |name: &str, kind: u32, with_before: bool| {
        let before = special(before, kind).filter(|_| with_before);
        [before, sequence(name, kind), special(after, kind)]
    };
    let listed = |parts: &[Option<Value>]| parts.iter().flatten().cloned().collect::<Vec<_>>();
    let single = around("A", 0, true);
    // A class token stands before both texts once, a token that begins a text before each.
    let is_class = before.is_some() && after.is_some();
    let pair = [around("A", 0, true), around("B", 1, !is_class)].concat();
    let mut tokens = serde_json::Map::new();
    for (id, token) in before.into_iter().chain(after) {
        let entry = json!({"id": token, "ids": [id], "tokens": [token]});
        tokens.insert(token.to_owned(), entry);
    }
    json!({
        "type": "TemplateProcessing",
        "single": listed(&single),
        "pair": listed(&pair),
        "special_tokens": tokens,
    })
}
