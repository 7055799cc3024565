//! The vocabulary of a WordPiece tokenizer, for other runtimes.

use super::TextTokenizer;
use crate::ModelError;
use crate::pooling::PoolingMode;
use crate::word_piece::WordPiecePipeline;
use tokenizers::{ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

impl TextTokenizer {
    /// The tokenizer as other runtimes have it, which is BERT's.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`]: it is another.
    pub(crate) fn word_piece(&self, pooling: PoolingMode) -> Result<WordPiecePipeline, ModelError> {
        let refused = |expected: &str| {
            Err(ModelError::Tokenizer {
                file: self.file.clone(),
                message: format!("expected {expected}, found another"),
                hint: "only BERT's own tokenizer has a place in the file: convert to a directory instead".to_owned(),
            })
        };
        let ModelWrapper::WordPiece(model) = self.tokenizer.get_model() else {
            return refused("a WordPiece vocabulary");
        };
        if model.continuing_subword_prefix != "##" {
            return refused("`##` before what continues a word");
        }
        let Some(PreTokenizerWrapper::BertPreTokenizer(_)) = self.tokenizer.get_pre_tokenizer()
        else {
            return refused("BERT's pre-tokenizer");
        };
        let Some(NormalizerWrapper::BertNormalizer(normalizer)) = self.tokenizer.get_normalizer()
        else {
            return refused("BERT's normalizer alone");
        };
        let [cls, sep] = self.tokenize("")?.token_ids[..] else {
            return refused("one special token before a text and one after it");
        };
        let mut tokens = vec![None; self.vocab_size];
        for (token, id) in self.tokenizer.get_vocab(true) {
            // What has no row in the table has been warned of.
            if let Some(place) = tokens.get_mut(id as usize) {
                *place = Some(token);
            }
        }
        let mut special = vec![false; self.vocab_size];
        for (id, token) in self.tokenizer.get_added_tokens_decoder() {
            if let Some(place) = special.get_mut(id as usize) {
                *place = token.special;
            }
        }
        let id_of = |token: &str| self.tokenizer.token_to_id(token);
        Ok(WordPiecePipeline {
            tokens,
            special,
            cls,
            sep,
            unknown: id_of(&model.unk_token),
            padding: id_of("[PAD]"),
            mask: id_of("[MASK]"),
            lowercase: normalizer.lowercase,
            // As the normalizer does where nothing is said.
            strip_accents: normalizer.strip_accents.unwrap_or(normalizer.lowercase),
            pooling,
            max_tokens: self.max_tokens(),
        })
    }
}
