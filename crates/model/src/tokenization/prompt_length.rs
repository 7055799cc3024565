//! How many tokens a prompt makes at the start of a text.

use super::TextTokenizer;
use super::panics::contain;
use crate::ModelError;

impl TextTokenizer {
    /// The tokens that sentence-transformers takes for those of `prompt` where pooling leaves them out: the prompt's own, special
    /// tokens included but for one at the end, whatever the first words of a text make of its last.
    ///
    /// # Errors
    /// As [`TextTokenizer::tokenize`]; but a prompt may be no token.
    pub(crate) fn prompt_length(&self, prompt: &str) -> Result<usize, ModelError> {
        let encoding = contain(&self.file, || self.tokenizer.encode(prompt, true))?;
        let encoding = encoding.map_err(|error| {
            ModelError::Input(format!("prompt {prompt:?}: the tokenizer failed: {error}"))
        })?;
        let tokens = encoding.len();
        let ends_specially = encoding.get_tokens().last().is_some_and(|token| {
            let added = self.tokenizer.get_added_vocabulary();
            added.is_special_token(token)
        });
        Ok(tokens - usize::from(ends_specially))
    }
}
