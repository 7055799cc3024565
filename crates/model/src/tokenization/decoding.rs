//! From tokens back to text.

use super::TextTokenizer;
use super::panics::contain;
use crate::ModelError;
use tokenizers::Decoder;
use tokenizers::models::ModelWrapper;

impl TextTokenizer {
    /// The token that stands for a word to be guessed (`mask_token`), if the tokenizer has one.
    pub fn mask_token_id(&self) -> Option<u32> {
        self.tokenizer.token_to_id(self.special.mask.as_deref()?)
    }

    /// The token whose hidden state stands for a whole text (`cls_token`), if the tokenizer has one.
    pub fn class_token_id(&self) -> Option<u32> {
        self.tokenizer.token_to_id(self.special.class.as_deref()?)
    }

    /// The token for what the vocabulary does not have (`unk_token`), if the tokenizer has one.
    pub fn unknown_token_id(&self) -> Option<u32> {
        self.tokenizer.token_to_id(self.special.unknown.as_deref()?)
    }

    /// The text of a token as it stands in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// Whether a token that does not begin a word has a prefix in the vocabulary, as those of BERT have.
    pub fn marks_continuing_pieces(&self) -> bool {
        match self.tokenizer.get_model() {
            ModelWrapper::WordPiece(model) => !model.continuing_subword_prefix.is_empty(),
            ModelWrapper::BPE(model) => {
                let prefix = model.continuing_subword_prefix.as_deref();
                prefix.is_some_and(|prefix| !prefix.is_empty())
            }
            ModelWrapper::WordLevel(_) | ModelWrapper::Unigram(_) => false,
        }
    }

    /// One text of tokens that are written as in the vocabulary (`convert_tokens_to_string` of transformers).
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the tokenizer's decoder fails.
    pub fn tokens_to_text(&self, tokens: Vec<String>) -> Result<String, ModelError> {
        let Some(decoder) = self.tokenizer.get_decoder() else {
            return Ok(tokens.join(" "));
        };
        self.decoded(contain(&self.file, || decoder.decode(tokens))?)
    }

    /// The text of token ids, without special tokens or with them, as `decode` of transformers gives it. Ids without a token are left out.
    ///
    /// # Errors
    /// As [`TextTokenizer::tokens_to_text`].
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, ModelError> {
        let text = contain(&self.file, || {
            self.tokenizer.decode(ids, skip_special_tokens)
        })?;
        let text = self.decoded(text)?;
        // Tokens of byte pairs hold the spaces of the text.
        let is_bpe = matches!(self.tokenizer.get_model(), ModelWrapper::BPE(_));
        Ok(match self.cleans_up_spaces && !is_bpe {
            true => without_spaces_before_marks(&text),
            false => text,
        })
    }

    fn decoded(&self, text: tokenizers::Result<String>) -> Result<String, ModelError> {
        text.map_err(|error| ModelError::Tokenizer {
            file: self.file.clone(),
            message: format!("expected a `decoder` that works, found one that fails: {error}"),
            hint: "fetch the file again, or write it with a recent version of transformers"
                .to_owned(),
        })
    }
}

fn without_spaces_before_marks(text: &str) -> String {
    const MARKS: [(&str, &str); 10] = [
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
    ];
    MARKS
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
