//! Ids of the special tokens that predictions ask for.

use super::special_tokens::SpecialTokens;
use tokenizers::Tokenizer;

/// Ids of special tokens; `None` for one that the tokenizer does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Stands at the beginning of a text; in question answering for "there is no answer".
    pub classification: Option<u32>,
    /// Hides a token that a model is to guess.
    pub mask: Option<u32>,
    /// Fills batches of the same length.
    pub padding: Option<u32>,
    /// Stands for what the vocabulary does not have.
    pub unknown: Option<u32>,
}

impl SpecialIds {
    /// The ids of the roles that settings and class give, in a tokenizer to which their tokens were added.
    pub(super) fn of(special: &SpecialTokens, tokenizer: &Tokenizer) -> Self {
        let id = |role: &str| tokenizer.token_to_id(special.content(role)?);
        Self {
            classification: id("cls_token"),
            mask: id("mask_token"),
            padding: id("pad_token"),
            unknown: id("unk_token"),
        }
    }
}
