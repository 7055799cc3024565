//! What another runtime needs to know of how a model of BERT's kind makes embeddings of texts.

use crate::pooling::PoolingMode;
use crate::sentence_modules::{SentenceModule, SentenceModules};
use crate::tokenization::{TextSettings, TextTokenizer};
use crate::{EncoderSpec, ModelError};
use std::path::Path;

/// A WordPiece vocabulary with its special tokens, and what is done with the hidden states.
#[derive(Debug, Clone, PartialEq)]
pub struct WordPiecePipeline {
    /// Tokens by id, as vocab.txt has them (`##ing`); none at ids that no token has.
    pub tokens: Vec<Option<String>>,
    /// For each id, whether it is a special token, which no text is cut into.
    pub special: Vec<bool>,
    /// Before every text.
    pub cls: u32,
    /// After every text.
    pub sep: u32,
    /// For a word that has no other tokens.
    pub unknown: Option<u32>,
    /// `[PAD]`
    pub padding: Option<u32>,
    /// `[MASK]`
    pub mask: Option<u32>,
    /// Whether texts are lowercased first.
    pub lowercase: bool,
    /// Whether accents are taken away.
    pub strip_accents: bool,
    /// How hidden states become one vector.
    pub pooling: PoolingMode,
    /// Longest input in tokens, special tokens included.
    pub max_tokens: usize,
}

impl WordPiecePipeline {
    /// Reads the tokenizer and the modules of the model directory `directory`.
    ///
    /// # Errors
    /// Those of reading them; a tokenizer that is not BERT's WordPiece; modules other than one pooling, and a normalization after it; a prompt that stands
    /// before every text.
    pub fn read(directory: &Path, spec: &EncoderSpec) -> Result<Self, ModelError> {
        let (tokenizer, pooling) = tokenizer_and_pooling(directory, spec)?;
        tokenizer.word_piece(pooling)
    }
}

/// The tokenizer of a model directory, and the one way in which its modules pool.
///
/// # Errors
/// Those of reading them; modules other than one pooling, and a normalization after it; a prompt that stands before every text.
pub(crate) fn tokenizer_and_pooling(
    directory: &Path,
    spec: &EncoderSpec,
) -> Result<(TextTokenizer, PoolingMode), ModelError> {
    let modules = SentenceModules::read(directory, None)?;
    let settings = TextSettings {
        max_seq_length: modules.max_seq_length,
        lowercase: modules.lowercase,
    };
    let tokenizer = TextTokenizer::open(&modules.transformer, spec, settings)?;
    let refused = |expected: &str| {
        Err(ModelError::Input(format!(
            "{}: expected {expected}\n  hint: files for other runtimes have no place for more: convert to a directory instead",
            directory.display()
        )))
    };
    let pooling = match &modules.after_encoder[..] {
        [SentenceModule::Pooling(settings)]
        | [
            SentenceModule::Pooling(settings),
            SentenceModule::Normalize(_),
        ] => &settings.pooling,
        _ => return refused("one pooling after the encoder, and at most a normalization"),
    };
    let &[pooling] = pooling.modes() else {
        return refused("one way to pool, found several");
    };
    if !modules.prompt.is_empty() || modules.truncate_dim.is_some() {
        return refused("no prompt before every text and embeddings that are not cut");
    }
    Ok((tokenizer, pooling))
}
