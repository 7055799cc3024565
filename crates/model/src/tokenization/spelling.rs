//! From tokens back to texts.

use super::TextTokenizer;
use super::panics::contain;
use crate::ModelError;
use std::fmt::Display;
use tokenizers::Decoder;
use tokenizers::models::ModelWrapper;

impl TextTokenizer {
    /// The token that stands for what the vocabulary does not have.
    pub fn unknown_token_id(&self) -> Option<u32> {
        self.tokenizer.token_to_id("[UNK]")
    }

    /// Whether tokens that continue a word are spelled otherwise (`##ing`) than those that begin one.
    pub fn marks_continuing_pieces(&self) -> bool {
        match self.tokenizer.get_model() {
            ModelWrapper::WordPiece(model) => !model.continuing_subword_prefix.is_empty(),
            ModelWrapper::BPE(model) => {
                let prefix = model.continuing_subword_prefix.as_deref();
                prefix.is_some_and(|prefix| !prefix.is_empty())
            }
            ModelWrapper::Unigram(_) | ModelWrapper::WordLevel(_) => false,
        }
    }

    /// What `tokens`, as the vocabulary spells them, are as a text. `convert_tokens_to_string` of transformers.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the tokenizer's decoder fails.
    pub fn tokens_to_text(&self, tokens: Vec<String>) -> Result<String, ModelError> {
        let Some(decoder) = self.tokenizer.get_decoder() else {
            return Ok(tokens.join(" "));
        };
        contain(&self.file, || decoder.decode(tokens))?.map_err(|error| self.cannot_decode(&error))
    }

    /// The text of token ids, without the special ones if they are to be skipped. `decode` of transformers.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, ModelError> {
        let decoded = contain(&self.file, || {
            self.tokenizer.decode(ids, skip_special_tokens)
        })?;
        let text = decoded.map_err(|error| self.cannot_decode(&error))?;
        let is_byte_pairs = matches!(self.tokenizer.get_model(), ModelWrapper::BPE(_));
        Ok(match false && !is_byte_pairs {
            true => without_spaces_before_marks(&text),
            false => text,
        })
    }

    fn cannot_decode(&self, error: &dyn Display) -> ModelError {
        ModelError::Tokenizer {
            file: self.file.clone(),
            message: format!(
                "expected a decoder that writes tokens as a text, found one that fails: {error}"
            ),
            hint: "fetch the file again, or write it with a recent version of transformers"
                .to_owned(),
        }
    }
}

/// What `clean_up_tokenization_spaces` of tokenizer_config.json asks for: English written as usual.
fn without_spaces_before_marks(text: &str) -> String {
    [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (spaced, close)| {
        text.replace(spaced, close)
    })
}
