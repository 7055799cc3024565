//! What another runtime needs to know of how a model with byte pairs makes embeddings of texts.

use crate::pooling::PoolingMode;
use crate::word_piece::tokenizer_and_pooling;
use crate::{EncoderSpec, ModelError};
use std::path::Path;

/// What Qwen's tokenizers cut a text into.
pub(crate) const QWEN_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same of Llama 3, with up to three digits together.
const LLAMA_3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How byte-level byte pairs cut texts, as llama.cpp names it (`tokenizer.ggml.pre`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteLevelRule {
    /// llama.cpp's name.
    pub name: &'static str,
    /// What a text is cut into, as a regular expression; none for the one that the byte level has itself.
    pub words: Option<&'static str>,
    /// Whether a word that is a token is not put together from others.
    pub ignores_merges: bool,
}

impl ByteLevelRule {
    /// The rules that are known.
    pub const ALL: [Self; 3] = [
        Self {
            name: "gpt-2",
            words: None,
            ignores_merges: false,
        },
        Self {
            name: "qwen2",
            words: Some(QWEN_WORDS),
            ignores_merges: false,
        },
        Self {
            name: "llama-bpe",
            words: Some(LLAMA_3_WORDS),
            ignores_merges: true,
        },
    ];
}

/// What a token is, with the numbers of llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// A piece of texts.
    Normal = 1,
    /// Stands for what has no other token.
    Unknown = 2,
    /// A special token, which no text is cut into.
    Control = 3,
    /// Added by hand; texts are cut at it first.
    UserDefined = 4,
    /// An id that no token has.
    Unused = 5,
    /// One byte.
    Byte = 6,
}

/// How tokens are put together.
#[derive(Debug, Clone, PartialEq)]
pub enum BytePairVocabulary {
    /// Of bytes, cut by a rule.
    ByteLevel {
        /// How texts are cut.
        rule: ByteLevelRule,
        /// Two tokens that make a third, the first to be tried first.
        merges: Vec<(String, String)>,
    },
    /// Of characters, as sentencepiece does it, spaces being `▁`.
    SentencePiece {
        /// For each token; of two neighbours those are put together first whose token has the larger one.
        scores: Vec<f32>,
        /// Whether a space is put before a text.
        adds_space: bool,
    },
}

/// A vocabulary of byte pairs with its special tokens, and what is done with the hidden states.
#[derive(Debug, Clone, PartialEq)]
pub struct BytePairPipeline {
    /// How tokens are put together.
    pub vocabulary: BytePairVocabulary,
    /// Tokens by id, as tokenizer.json has them; none at ids that no token has.
    pub tokens: Vec<Option<String>>,
    /// The type of each.
    pub types: Vec<TokenType>,
    /// Before every text.
    pub before: Option<u32>,
    /// After every text.
    pub after: Option<u32>,
    /// `bos_token`, whether it is put before texts or not.
    pub begin: Option<u32>,
    /// `eos_token`, whether it is put after texts or not.
    pub end: Option<u32>,
    /// `unk_token`
    pub unknown: Option<u32>,
    /// `pad_token`
    pub padding: Option<u32>,
    /// Whether texts are canonically composed (NFC) first.
    pub composes: bool,
    /// How hidden states become one vector.
    pub pooling: PoolingMode,
    /// Longest input in tokens, special tokens included.
    pub max_tokens: usize,
}

impl BytePairPipeline {
    /// Reads the tokenizer and the modules of the model directory `directory`.
    ///
    /// # Errors
    /// Those of reading them; a tokenizer without byte pairs, or that cuts texts by a rule which llama.cpp has no name for that is known here; modules other than
    /// one pooling, and a normalization after it; a prompt that stands before every text.
    pub fn read(directory: &Path, spec: &EncoderSpec) -> Result<Self, ModelError> {
        let (tokenizer, pooling) = tokenizer_and_pooling(directory, spec)?;
        tokenizer.byte_pairs(pooling)
    }
}
