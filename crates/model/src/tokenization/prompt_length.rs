//! How many tokens a prompt makes at the start of a text.

use super::{Offsets, TextTokenizer};
use crate::ModelError;

impl TextTokenizer {
    /// The tokens that sentence-transformers takes for those of `prompt` where pooling leaves them out: the prompt's own, special
    /// tokens included but for one at the end, whatever the first words of a text make of its last.
    ///
    /// # Errors
    /// As [`TextTokenizer::tokenize`]; but a prompt may be no token.
    pub(crate) fn prompt_length(&self, prompt: &str) -> Result<usize, ModelError> {
        let (encoding, _) = self.one_or_none(prompt, Offsets::None)?;
        let last = encoding.get_ids().last();
        let last = last.and_then(|&id| self.tokenizer.id_to_token(id));
        let added = self.tokenizer.get_added_vocabulary();
        let ends_specially = last.is_some_and(|token| added.is_special_token(&token));
        Ok(encoding.len() - usize::from(ends_specially))
    }
}
