//! A tokenizer that was put together from the files of a directory.

use super::special_tokens::SpecialTokens;
use crate::ModelError;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;
use tokenizers::utils::truncation::TruncationDirection;

/// A tokenizer before limits.
#[derive(Debug)]
pub(super) struct Assembled {
    /// tokenizer.json, or the file with the vocabulary.
    pub(super) file: PathBuf,
    pub(super) tokenizer: Tokenizer,
    /// Of tokenizer.json's truncation, if it has one.
    pub(super) truncation_side: Option<TruncationDirection>,
    /// Whether the model is to be given token types; without them they are all 0.
    pub(super) gives_token_types: bool,
    pub(super) special: KnownTokens,
}

/// Contents of special tokens that results of a model are read by.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownTokens {
    pub(super) mask: Option<String>,
    pub(super) class: Option<String>,
    pub(super) unknown: Option<String>,
    pub(super) padding: Option<String>,
    pub(super) begin: Option<String>,
    pub(super) end: Option<String>,
}

impl KnownTokens {
    pub(super) fn of(special: &SpecialTokens) -> Self {
        let content = |role: &str| special.content(role).map(str::to_owned);
        Self {
            mask: content("mask_token"),
            class: content("cls_token"),
            unknown: content("unk_token"),
            padding: content("pad_token"),
            begin: content("bos_token"),
            end: content("eos_token"),
        }
    }
}

/// The error for a directory without a file that a tokenizer is made of.
pub(super) fn missing(directory: &Path, expected: &str, found: &str) -> ModelError {
    ModelError::Tokenizer {
        file: directory.to_owned(),
        message: format!("expected {expected}, found {found}"),
        hint: "`AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes tokenizer.json".to_owned(),
    }
}
