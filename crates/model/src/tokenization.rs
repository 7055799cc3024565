//! From text to token ids, as transformers 5 gives them: its classes build a tokenizer from configuration and vocabulary, and
//! overrule much of tokenizer.json. docs/tokenizers.md lists setting by setting what wins.

mod added_tokens;
mod aligned_tokens;
mod assemble;
mod assembled;
mod build;
mod byte_pair_vocabulary;
mod byte_pairs;
mod class;
mod decoder;
mod decoding;
mod from_sentencepiece;
mod limits;
mod pairs;
mod panics;
mod prompt_length;
mod protobuf;
mod sentencepiece;
mod settings;
mod special_tokens;
mod stored;
mod template;
mod word_piece;
mod written_token;

use crate::{EncoderSpec, ModelError};
use aligned_tokens::CharacterStarts;
pub use aligned_tokens::{AlignedTokens, TokenOrigin};
use assemble::assemble;
use assembled::{Assembled, KnownTokens};
pub use byte_pairs::merges;
pub use pairs::{PairTruncation, Window};
use panics::contain;
use settings::Settings;
use std::path::{Path, PathBuf};
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{Encoding, Model, PostProcessor, Tokenizer};

/// A tokenizer that belongs to a model and cuts at its limit.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    /// tokenizer.json, or the file with the vocabulary.
    file: PathBuf,
    /// Up to the tokens of a text: it neither cuts texts nor puts special tokens around them.
    tokenizer: Tokenizer,
    /// Puts special tokens around a text or two.
    processor: Option<PostProcessorWrapper>,
    /// The side that texts are cut on.
    truncation_side: TruncationDirection,
    /// Whether the tokenizer's types reach the model; they are all 0 otherwise.
    gives_token_types: bool,
    max_tokens: usize,
    /// Rows of the model's word embedding table.
    vocab_size: usize,
    /// Rows of the model's table of token types.
    token_types: usize,
    /// Whether there is a form for two texts.
    takes_pairs: bool,
    special: KnownTokens,
    /// `clean_up_tokenization_spaces`.
    cleans_up_spaces: bool,
}

/// Token ids of one text, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedText {
    /// Token ids.
    pub token_ids: Vec<u32>,
    /// A token type for each.
    pub token_type_ids: Vec<u32>,
    /// Whether the text was longer than the model's limit and was cut.
    pub truncated: bool,
}

/// Settings that a sentence-transformers configuration adds to the tokenizer's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextSettings {
    /// Longest input in tokens; takes the place of tokenizer_config.json's `model_max_length`.
    pub max_seq_length: Option<usize>,
    /// Lowercase texts first.
    pub lowercase: bool,
}

impl TextTokenizer {
    /// Reads `tokenizer.json`, or the vocabulary files of older tokenizers, of `directory`, with `tokenizer_config.json` and
    /// the other files beside it.
    ///
    /// Padding is off. Texts are cut at [`TextTokenizer::max_tokens`], whatever tokenizer.json says itself.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`]: no tokenizer file exists, one is malformed, it has a token whose id or type is not in the
    /// model's tables, it does not fit the class that is to read it, or the tokenizer breaks down on a trial text.
    /// [`ModelError::Config`] or [`ModelError::File`]: another file has a wrong value or is not what it should be.
    pub fn open(
        directory: &Path,
        spec: &EncoderSpec,
        settings: TextSettings,
    ) -> Result<Self, ModelError> {
        let files = Settings::read(directory)?;
        let Assembled {
            file,
            mut tokenizer,
            truncation_side,
            gives_token_types,
            special,
        } = assemble(directory, &spec.model_type, &files)?;
        warn_of_tokens_without_row(&file, &tokenizer, spec);
        if settings.lowercase {
            let mut normalizers = vec![NormalizerWrapper::Lowercase(Lowercase)];
            normalizers.extend(tokenizer.get_normalizer().cloned());
            tokenizer.with_normalizer(Some(Sequence::new(normalizers)));
        }
        let model_max_length = limits::model_max_length(&files)?;
        let max_tokens = settings
            .max_seq_length
            .unwrap_or_else(|| {
                let positions = spec.positions.max_tokens();
                model_max_length.map_or(positions, |limit| limit.min(positions))
            })
            .min(spec.longest_sequence());
        limits::check_padding_side(&files)?;
        let truncation_side = limits::truncation_side(&files, truncation_side)?;
        let processor = tokenizer.get_post_processor().cloned();
        tokenizer.with_post_processor(None::<PostProcessorWrapper>);
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|failure| ModelError::Tokenizer {
                file: file.clone(),
                message: format!(
                    "expected a tokenizer that works, found one that fails: {failure}"
                ),
                hint: "fetch the file again".to_owned(),
            })?;
        let mut tokenizer = Self {
            file,
            tokenizer,
            processor,
            truncation_side,
            gives_token_types,
            max_tokens,
            vocab_size: spec.vocab_size,
            token_types: spec.token_types,
            takes_pairs: false,
            special,
            cleans_up_spaces: limits::cleans_up_spaces(&files)?,
        };
        let special_tokens = tokenizer.special_tokens(false);
        if max_tokens <= special_tokens {
            return Err(ModelError::Tokenizer {
                file: tokenizer.file,
                message: format!(
                    "expected room for text beside {special_tokens} special tokens, found a limit of {max_tokens} tokens"
                ),
                hint: "raise `max_seq_length` or `model_max_length`".to_owned(),
            });
        }
        tokenizer.try_out()?;
        tokenizer.takes_pairs = tokenizer.keeps_pairs();
        Ok(tokenizer)
    }

    /// Longest result in tokens, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Token ids of `text`, cut at [`TextTokenizer::max_tokens`].
    ///
    /// # Errors
    /// [`ModelError::Input`] if the tokenizer fails, for instance because it has no unknown token and meets one, or if
    /// nothing comes out of it, or if it gives a token that the model has no row for. [`ModelError::Tokenizer`] if the tokenizer breaks down, which a damaged file can cause.
    pub fn tokenize(&self, text: &str) -> Result<TokenizedText, ModelError> {
        let (encoding, truncated) = self.one(text, Offsets::None)?;
        let token_type_ids = match self.gives_token_types {
            true => encoding.get_type_ids().to_vec(),
            false => vec![0; encoding.len()],
        };
        Ok(TokenizedText {
            token_ids: encoding.get_ids().to_vec(),
            token_type_ids,
            truncated,
        })
    }

    /// [`TextTokenizer::tokenize`] with the place of each token in the text.
    ///
    /// # Errors
    /// As [`TextTokenizer::tokenize`].
    pub fn tokenize_aligned(&self, text: &str) -> Result<AlignedTokens, ModelError> {
        let (encoding, truncated) = self.one(text, Offsets::Characters)?;
        Ok(AlignedTokens::new(
            &encoding,
            &[CharacterStarts::of(text)],
            self.gives_token_types,
            truncated,
        ))
    }

    /// One text with its special tokens, and whether it was cut.
    fn one(&self, text: &str, offsets: Offsets) -> Result<(Encoding, bool), ModelError> {
        let (encoding, truncated) = self.one_or_none(text, offsets)?;
        if encoding.is_empty() {
            return Err(ModelError::Input(format!(
                "text {}: expected at least one token, found none\n  hint: this tokenizer adds no special tokens; leave out texts without words",
                quote(text)
            )));
        }
        self.check_ids(&encoding, || format!("text {}", quote(text)))?;
        Ok((encoding, truncated))
    }

    /// [`TextTokenizer::one`] of a text that may have no token.
    fn one_or_none(&self, text: &str, offsets: Offsets) -> Result<(Encoding, bool), ModelError> {
        let mut encoding = self.tokens_of(text, offsets)?;
        let room = self.max_tokens - self.special_tokens(false);
        let truncated = encoding.len() > room;
        encoding.truncate(room, 0, self.truncation_side);
        encoding.take_overflowing();
        Ok((self.with_special_tokens(encoding, None)?, truncated))
    }

    /// The tokens of a text itself, all of them.
    fn tokens_of(&self, text: &str, offsets: Offsets) -> Result<Encoding, ModelError> {
        let encoding = contain(&self.file, || match offsets {
            Offsets::None => self.tokenizer.encode_fast(text, false),
            Offsets::Characters => self.tokenizer.encode_char_offsets(text, false),
        })?;
        encoding.map_err(|error| {
            ModelError::Input(format!(
                "text {}: the tokenizer failed: {error}",
                quote(text)
            ))
        })
    }

    /// How many special tokens stand around a text, or around two.
    fn special_tokens(&self, is_pair: bool) -> usize {
        self.processor
            .as_ref()
            .map_or(0, |processor| processor.added_tokens(is_pair))
    }

    /// Puts special tokens around a text or two, and says which token is of which text and type.
    fn with_special_tokens(
        &self,
        first: Encoding,
        second: Option<Encoding>,
    ) -> Result<Encoding, ModelError> {
        let Some(processor) = &self.processor else {
            return Ok(first);
        };
        contain(&self.file, || processor.process(first, second, true))?.map_err(|error| {
            ModelError::Tokenizer {
                file: self.file.clone(),
                message: format!(
                    "expected a post-processor that works, found one that fails: {error}"
                ),
                hint: "fetch the file again, or write it with a recent version of transformers"
                    .to_owned(),
            }
        })
    }

    /// The error for a token that the model has no row for, if there is one; `input` names the texts.
    fn check_ids(
        &self,
        encoding: &Encoding,
        input: impl FnOnce() -> String,
    ) -> Result<(), ModelError> {
        let ids = encoding.get_ids();
        let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) else {
            return Ok(());
        };
        let token = self.tokenizer.id_to_token(id).unwrap_or_default();
        Err(ModelError::Input(format!(
            "{}: expected token ids below the model's vocabulary size {}, found {id} for token `{token}`\n  hint: the tokenizer has more tokens than the model has rows of word embeddings: leave out such texts, or use the tokenizer of the model",
            input(),
            self.vocab_size
        )))
    }

    /// Runs every part of the tokenizer on texts with and without words. The ids that its last step adds to every text, and the types,
    /// must be in the model's tables.
    ///
    /// That a text cannot be tokenized is no error here: a tokenizer without an unknown token may not know the words.
    fn try_out(&self) -> Result<(), ModelError> {
        for text in ["", "A few words, some in হ or 中: 1 + 2!"] {
            let tokens = match self.tokens_of(text, Offsets::Characters) {
                Err(ModelError::Input(_)) => continue,
                tokens => tokens?,
            };
            let encoding = self.with_special_tokens(tokens, None)?;
            // A damaged file may have more ids than tokens.
            let token = |at: usize| encoding.get_tokens().get(at).map_or("", String::as_str);
            let outside =
                |ids: &[u32], limit: usize| ids.iter().position(|&id| id as usize >= limit);
            if text.is_empty()
                && let Some(at) = outside(encoding.get_ids(), self.vocab_size)
            {
                let expected = format!(
                    "token ids below the model's vocabulary size {}",
                    self.vocab_size
                );
                return Err(foreign(
                    &self.file,
                    &expected,
                    encoding.get_ids()[at],
                    token(at),
                ));
            }
            // A model with one type or none is run without types.
            if self.gives_token_types
                && self.token_types > 1
                && let Some(at) = outside(encoding.get_type_ids(), self.token_types)
            {
                let expected = format!("token types below the model's {}", self.token_types);
                return Err(foreign(
                    &self.file,
                    &expected,
                    encoding.get_type_ids()[at],
                    token(at),
                ));
            }
        }
        Ok(())
    }
}

/// What is wanted to be known of a token's place.
#[derive(Debug, Clone, Copy)]
enum Offsets {
    None,
    Characters,
}

/// The first characters of a text, for a message.
pub(crate) fn quote(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// Warns if tokens have ids outside the model's word embedding table. Only a text that has one of them cannot be run.
fn warn_of_tokens_without_row(file: &Path, tokenizer: &Tokenizer, spec: &EncoderSpec) {
    if every_id_is_below(spec.vocab_size, tokenizer) {
        return;
    }
    let vocabulary = tokenizer.get_vocab(true);
    let outside = vocabulary
        .values()
        .filter(|&&id| id as usize >= spec.vocab_size)
        .count();
    if outside > 0 {
        tracing::warn!(
            "{}: {outside} of {} tokens have no row in the model's word embeddings, which are {}: a text with one of them is an error",
            file.display(),
            vocabulary.len(),
            spec.vocab_size
        );
    }
}

/// Whether all tokens surely have ids below `limit`: the tokens of the model are as many as those ids, from 0 on, that have one.
/// (A copy of the vocabulary would tell for certain, and take longer than reading it.)
fn every_id_is_below(limit: usize, tokenizer: &Tokenizer) -> bool {
    let (model, added) = (tokenizer.get_model(), tokenizer.get_added_vocabulary());
    let tokens = model.get_vocab_size();
    tokens <= limit
        && (0..tokens).all(|id| u32::try_from(id).is_ok_and(|id| model.id_to_token(id).is_some()))
        && added.get_vocab().values().all(|&id| (id as usize) < limit)
}

fn foreign(file: &Path, expected: &str, found: u32, token: &str) -> ModelError {
    ModelError::Tokenizer {
        file: file.to_owned(),
        message: format!("expected {expected}, found {found} for token `{token}`"),
        hint: "tokenizer and weights belong to different models, or tokens were added without resizing the embeddings"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::AddedToken;
    use tokenizers::models::wordpiece::WordPiece;

    fn tokenizer(ids: &[u32]) -> Tokenizer {
        let vocabulary: Vec<String> = ids
            .iter()
            .map(|id| format!(r#""token {id}": {id}"#))
            .collect();
        let model: WordPiece = serde_json::from_str(&format!(
            r#"{{"unk_token": "", "continuing_subword_prefix": "", "max_input_chars_per_word": 9, "vocab": {{{}}}}}"#,
            vocabulary.join(",")
        ))
        .expect("a model");
        Tokenizer::new(model)
    }

    #[test]
    fn ids_outside_the_table_are_noticed_wherever_they_come_from() {
        assert!(every_id_is_below(3, &tokenizer(&[2, 0, 1])));
        assert!(!every_id_is_below(2, &tokenizer(&[2, 0, 1])));
        assert!(!every_id_is_below(5, &tokenizer(&[0, 1, 7])));
        let mut with_added = tokenizer(&[0, 1, 2]);
        with_added.add_tokens(&[AddedToken::from("new", false)]);
        assert!(every_id_is_below(4, &with_added));
        assert!(!every_id_is_below(3, &with_added));
    }
}
