//! From text to token ids: tokenizer.json, or a WordPiece vocab.txt where there is none.

mod panics;
mod word_piece;

use crate::json_file::read_object;
use crate::spec::config_fields::ConfigFields;
use crate::{EncoderSpec, ModelError};
use panics::contain;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};
use tokenizers::utils::truncation::{TruncationDirection, TruncationParams, TruncationStrategy};
use tokenizers::{PostProcessor, Tokenizer};

/// A tokenizer that belongs to a model and cuts at its limit.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    /// tokenizer.json or vocab.txt.
    file: PathBuf,
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
    /// [`ModelError::Tokenizer`]: neither file exists, one is malformed, it has a token whose id or type is not in the
    /// model's tables, or the tokenizer breaks down on a trial text. [`ModelError::Config`] or [`ModelError::File`]:
    /// another file has a wrong value or is not what it should be.
    pub fn open(
        directory: &Path,
        spec: &EncoderSpec,
        settings: TextSettings,
    ) -> Result<Self, ModelError> {
        let config_file = directory.join("tokenizer_config.json");
        let config = read_object(&config_file)?.unwrap_or(Value::Null);
        let fields = ConfigFields::new(&config_file, &config);
        let (file, mut tokenizer) = read_tokenizer(directory, spec, &fields)?;
        check_vocabulary(&file, &tokenizer, spec)?;
        if settings.lowercase {
            let mut normalizers = vec![NormalizerWrapper::Lowercase(Lowercase)];
            normalizers.extend(tokenizer.get_normalizer().cloned());
            tokenizer.with_normalizer(Some(Sequence::new(normalizers)));
        }
        let model_max_length = model_max_length(&fields)?;
        let max_tokens = settings
            .max_seq_length
            .or(model_max_length)
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
            None => TruncationDirection::Right,
            Some(side) if side == "right" => TruncationDirection::Right,
            Some(side) if side == "left" => TruncationDirection::Left,
            Some(side) => {
                return Err(fields.invalid(
                    "truncation_side",
                    "expected \"left\" or \"right\"",
                    side,
                ));
            }
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
        try_out(&file, &tokenizer, spec)?;
        Ok(Self {
            file,
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
    /// nothing comes out of it. [`ModelError::Tokenizer`] if the tokenizer breaks down, which a damaged file can cause.
    pub fn tokenize(&self, text: &str) -> Result<TokenizedText, ModelError> {
        let encoding = contain(&self.file, || self.tokenizer.encode_fast(text, true))?;
        let encoding = encoding.map_err(|error| {
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

/// `model_max_length`; null and huge numbers, which transformers writes, mean "no limit".
fn model_max_length(fields: &ConfigFields<'_>) -> Result<Option<usize>, ModelError> {
    const FIELD: &str = "model_max_length";
    const NO_LIMIT: usize = 1 << 24;
    match fields.get(FIELD) {
        None | Some(Value::Null) => Ok(None),
        Some(number)
            if number
                .as_f64()
                .is_some_and(|number| number >= NO_LIMIT as f64) =>
        {
            Ok(None)
        }
        Some(_) => fields.size(FIELD, 0, 1, NO_LIMIT - 1).map(Some),
    }
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
    let malformed = |error: String| ModelError::Tokenizer {
        file: file.to_owned(),
        message: format!("expected a tokenizer, found something else: {error}"),
        hint: "fetch the file again, or write it with a recent version of transformers".to_owned(),
    };
    bytes()
        .map_err(malformed)
        .and_then(|bytes| contain(file, || Tokenizer::from_bytes(bytes)))?
        .map_err(|error| malformed(error.to_string()))
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
        Some((token, id)) => Err(foreign(
            file,
            &format!(
                "token ids below the model's vocabulary size {}",
                spec.vocab_size
            ),
            *id,
            token,
        )),
    }
}

/// Runs every part of the tokenizer on texts with and without words; ids and types that its last step adds are in no
/// vocabulary and must be in the model's tables too.
///
/// That a text cannot be tokenized is no error here: a tokenizer without an unknown token may not know the words.
fn try_out(file: &Path, tokenizer: &Tokenizer, spec: &EncoderSpec) -> Result<(), ModelError> {
    for text in ["", "A few words, some in হ or 中: 1 + 2!"] {
        let Ok(encoding) = contain(file, || tokenizer.encode(text, true))? else {
            continue;
        };
        // A damaged file may have more ids than tokens.
        let token = |at: usize| encoding.get_tokens().get(at).map_or("", String::as_str);
        let outside = |ids: &[u32], limit: usize| ids.iter().position(|&id| id as usize >= limit);
        if let Some(at) = outside(encoding.get_ids(), spec.vocab_size) {
            let expected = format!(
                "token ids below the model's vocabulary size {}",
                spec.vocab_size
            );
            return Err(foreign(file, &expected, encoding.get_ids()[at], token(at)));
        }
        // A model with one type or none is run without types.
        if spec.token_types > 1
            && let Some(at) = outside(encoding.get_type_ids(), spec.token_types)
        {
            let expected = format!("token types below the model's {}", spec.token_types);
            return Err(foreign(
                file,
                &expected,
                encoding.get_type_ids()[at],
                token(at),
            ));
        }
    }
    Ok(())
}

fn foreign(file: &Path, expected: &str, found: u32, token: &str) -> ModelError {
    ModelError::Tokenizer {
        file: file.to_owned(),
        message: format!("expected {expected}, found {found} for token `{token}`"),
        hint: "tokenizer and weights belong to different models, or tokens were added without resizing the embeddings"
            .to_owned(),
    }
}
