//! From text to token ids: tokenizer.json, or a WordPiece vocab.txt where there is none.

mod word_piece;

use crate::json_file::read_json;
use crate::spec::config_fields::ConfigFields;
use crate::{EncoderSpec, ModelError};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};
use tokenizers::utils::truncation::{TruncationDirection, TruncationParams, TruncationStrategy};
use tokenizers::{PostProcessor, Tokenizer};

/// A tokenizer that belongs to a model and cuts at its limit.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    max_tokens: usize,
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
    /// Reads `tokenizer.json`, or `vocab.txt`, of `directory`, with `tokenizer_config.json` if there is one.
    ///
    /// Padding is off. Texts are cut at [`TextTokenizer::max_tokens`], whatever tokenizer.json says itself.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`]: neither file exists, one is malformed, or it has a token whose id is not in the model's
    /// vocabulary.
    pub fn open(
        directory: &Path,
        spec: &EncoderSpec,
        settings: TextSettings,
    ) -> Result<Self, ModelError> {
        let config_file = directory.join("tokenizer_config.json");
        let config = read_json(&config_file)?.unwrap_or(Value::Null);
        let fields = ConfigFields::new(&config_file, &config);
        let (file, mut tokenizer) = read_tokenizer(directory, spec, &fields)?;
        check_vocabulary(&file, &tokenizer, spec)?;
        if settings.lowercase {
            let mut normalizers = vec![NormalizerWrapper::Lowercase(Lowercase)];
            normalizers.extend(tokenizer.get_normalizer().cloned());
            tokenizer.with_normalizer(Some(Sequence::new(normalizers)));
        }
        let max_tokens = settings
            .max_seq_length
            .or_else(|| sane_length(config.get("model_max_length")))
            .unwrap_or(usize::MAX)
            .min(spec.positions.max_tokens());
        let special_tokens = tokenizer
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(false));
        let error = |message: String| ModelError::Tokenizer {
            file: file.clone(),
            message,
            hint: "raise `max_seq_length` or `model_max_length`".to_owned(),
        };
        if max_tokens <= special_tokens {
            return Err(error(format!(
                "expected room for text beside {special_tokens} special tokens, found a limit of {max_tokens} tokens"
            )));
        }
        let direction = match fields.get("truncation_side") {
            Some(side) if side == "left" => TruncationDirection::Left,
            _ => TruncationDirection::Right,
        };
        let truncation = TruncationParams {
            direction,
            max_length: max_tokens,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        tokenizer
            .with_truncation(Some(truncation))
            .map_err(|failure| error(failure.to_string()))?;
        tokenizer.with_padding(None);
        Ok(Self {
            tokenizer,
            max_tokens,
        })
    }

    /// Longest result in tokens, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Token ids of `text`, cut at [`TextTokenizer::max_tokens`].
    ///
    /// # Errors
    /// [`ModelError::Input`] if the tokenizer fails, for instance because it has no unknown token and meets one, or if
    /// nothing comes out of it.
    pub fn tokenize(&self, text: &str) -> Result<TokenizedText, ModelError> {
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|error| {
            ModelError::Input(format!(
                "text {}: the tokenizer failed: {error}",
                quote(text)
            ))
        })?;
        if encoding.is_empty() {
            return Err(ModelError::Input(format!(
                "text {}: expected at least one token, found none\n  hint: this tokenizer adds no special tokens; leave out texts without words",
                quote(text)
            )));
        }
        Ok(TokenizedText {
            token_ids: encoding.get_ids().to_vec(),
            token_type_ids: encoding.get_type_ids().to_vec(),
            truncated: !encoding.get_overflowing().is_empty(),
        })
    }
}

/// The first characters of a text, for a message.
fn quote(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// `model_max_length`; transformers writes huge numbers for "no limit".
fn sane_length(value: Option<&Value>) -> Option<usize> {
    let length = value?.as_u64()?;
    usize::try_from(length)
        .ok()
        .filter(|length| (1..1 << 24).contains(length))
}

fn read_tokenizer(
    directory: &Path,
    spec: &EncoderSpec,
    config: &ConfigFields<'_>,
) -> Result<(PathBuf, Tokenizer), ModelError> {
    let file = directory.join("tokenizer.json");
    if file.exists() {
        let mut tokenizer = parse(&file, || {
            std::fs::read(&file).map_err(|error| error.to_string())
        })?;
        word_piece::follow_config(&mut tokenizer, config)?;
        return Ok((file, tokenizer));
    }
    let file = directory.join("vocab.txt");
    if file.exists() {
        let json = word_piece::tokenizer_json(directory, &file, spec, config)?;
        let tokenizer = parse(&file, || Ok(json.to_string().into_bytes()))?;
        return Ok((file, tokenizer));
    }
    Err(ModelError::Tokenizer {
        file: directory.to_owned(),
        message: "expected tokenizer.json, or a WordPiece vocab.txt, found neither".to_owned(),
        hint: "`AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes tokenizer.json".to_owned(),
    })
}

fn parse(
    file: &Path,
    bytes: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<Tokenizer, ModelError> {
    bytes()
        .and_then(|bytes| Tokenizer::from_bytes(bytes).map_err(|error| error.to_string()))
        .map_err(|error| ModelError::Tokenizer {
            file: file.to_owned(),
            message: format!("expected a tokenizer, found something else: {error}"),
            hint: "fetch the file again, or write it with a recent version of transformers"
                .to_owned(),
        })
}

/// Errors if a token's id is outside the model's word embedding table.
fn check_vocabulary(
    file: &Path,
    tokenizer: &Tokenizer,
    spec: &EncoderSpec,
) -> Result<(), ModelError> {
    let vocabulary = tokenizer.get_vocab(true);
    let outside = vocabulary
        .iter()
        .filter(|&(_, &id)| id as usize >= spec.vocab_size)
        .min_by_key(|&(_, &id)| id);
    match outside {
        None => Ok(()),
        Some((token, id)) => Err(ModelError::Tokenizer {
            file: file.to_owned(),
            message: format!(
                "expected token ids below the model's vocabulary size {}, found {id} for token `{token}`",
                spec.vocab_size
            ),
            hint: "tokenizer and weights belong to different models, or tokens were added without resizing the embeddings"
                .to_owned(),
        }),
    }
}
