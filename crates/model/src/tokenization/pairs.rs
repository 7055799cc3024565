//! Two texts in one input: a question and its context, a query and a passage, two sentences that are compared.

use super::aligned_tokens::{AlignedTokens, CharacterStarts};
use super::{Offsets, TextTokenizer, quote};
use crate::ModelError;
use tokenizers::utils::truncation::{TruncationParams, TruncationStrategy, truncate_encodings};
use tokenizers::{Encoding, Token};

/// Which of two texts is cut where both together are too long, as transformers names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PairTruncation {
    /// The longer of the two, down to the length of the other, and then both.
    #[default]
    LongestFirst,
    /// The first.
    OnlyFirst,
    /// The second.
    OnlySecond,
}

/// How a long text is cut into overlapping parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Most tokens of a part with the other text and all special tokens, within [`TextTokenizer::max_tokens`].
    pub max_tokens: usize,
    /// Tokens of the long text that a part shares with the one before.
    pub stride: usize,
}

impl TextTokenizer {
    /// Tokens of two texts in one input, cut at [`TextTokenizer::max_tokens`]. Special tokens and types are those of the tokenizer's form for
    /// pairs; an empty text is a text.
    ///
    /// # Errors
    /// As [`TextTokenizer::tokenize`]; [`ModelError::Input`] if the text that may be cut has no more tokens than are too many, or if the
    /// model has no row for a token type; [`ModelError::Tokenizer`] if the tokenizer has no form for pairs.
    pub fn tokenize_pair(
        &self,
        first: &str,
        second: &str,
        truncation: PairTruncation,
    ) -> Result<AlignedTokens, ModelError> {
        let (first_tokens, second_tokens) = self.both(first, second)?;
        let total = first_tokens.len() + second_tokens.len();
        let room = self.room_for_pairs(self.max_tokens)?;
        let params = TruncationParams {
            direction: self.truncation_side,
            max_length: room,
            strategy: match truncation {
                PairTruncation::LongestFirst => TruncationStrategy::LongestFirst,
                PairTruncation::OnlyFirst => TruncationStrategy::OnlyFirst,
                PairTruncation::OnlySecond => TruncationStrategy::OnlySecond,
            },
            stride: 0,
        };
        let whole = match truncation {
            PairTruncation::LongestFirst => None,
            PairTruncation::OnlyFirst => Some(("second", second, second_tokens.len())),
            PairTruncation::OnlySecond => Some(("first", first, first_tokens.len())),
        };
        if let Some((name, text, tokens)) = whole.filter(|_| total > room) {
            self.check_whole(name, text, tokens, room)?;
        }
        let cut = truncate_encodings(first_tokens, Some(second_tokens), &params);
        let Ok((mut first_tokens, Some(mut second_tokens))) = cut else {
            // Texts that cannot be cut were refused.
            return Err(ModelError::Input(format!(
                "texts {} and {}: expected texts that can be cut to {room} tokens, found {total}\n  hint: shorten them",
                quote(first),
                quote(second)
            )));
        };
        // Each of the parts of one text would be put together with each of those of the other.
        first_tokens.take_overflowing();
        second_tokens.take_overflowing();
        let texts = [CharacterStarts::of(first), CharacterStarts::of(second)];
        let encoding = self.with_special_tokens(first_tokens, Some(second_tokens))?;
        self.aligned_pair(&encoding, (first, second), &texts, total > room)
    }

    /// Two texts, the second in as many parts as it takes, each of them with the whole first text: a question with a long context.
    /// Every part is `truncated` if there are several.
    ///
    /// # Errors
    /// As [`TextTokenizer::tokenize_pair`]; [`ModelError::Input`] if the window is larger than the model's limit, if the first text fills
    /// it, or if it leaves no more room than the parts are to share.
    pub fn tokenize_windows(
        &self,
        first: &str,
        second: &str,
        window: Window,
    ) -> Result<Vec<AlignedTokens>, ModelError> {
        if window.max_tokens > self.max_tokens {
            return Err(ModelError::Input(format!(
                "window: expected at most {} tokens, the model's limit, found {}\n  hint: lower the length of the window",
                self.max_tokens, window.max_tokens
            )));
        }
        let (first_tokens, mut second_tokens) = self.both(first, second)?;
        let room = self.room_for_pairs(window.max_tokens)?;
        let several = first_tokens.len() + second_tokens.len() > room;
        if several {
            self.check_whole("first", first, first_tokens.len(), room)?;
            let of_second = room - first_tokens.len();
            if window.stride >= of_second {
                return Err(ModelError::Input(format!(
                    "window: expected parts that share fewer tokens than the {of_second} that {} tokens of the first text {} and {} special tokens leave of {}, found {}\n  hint: shorten the first text, raise the length of the window, or lower the stride",
                    first_tokens.len(),
                    quote(first),
                    self.special_tokens(true),
                    window.max_tokens,
                    window.stride
                )));
            }
            second_tokens.truncate(of_second, window.stride, self.truncation_side);
        }
        // As the library has them, so that those after the first keep this type whatever the template says.
        for part in second_tokens.get_overflowing_mut() {
            part.set_type_ids(vec![1; part.len()]);
        }
        let mut whole = self.with_special_tokens(first_tokens, Some(second_tokens))?;
        let others = whole.take_overflowing();
        let texts = [CharacterStarts::of(first), CharacterStarts::of(second)];
        std::iter::once(whole)
            .chain(others)
            .map(|part| self.aligned_pair(&part, (first, second), &texts, several))
            .collect()
    }

    /// The tokens of both texts, all of them and nothing else.
    fn both(&self, first: &str, second: &str) -> Result<(Encoding, Encoding), ModelError> {
        if !self.takes_pairs {
            return Err(ModelError::Tokenizer {
                file: self.file.clone(),
                message: "expected a `post_processor` with a form for two texts, found one for single texts".to_owned(),
                hint: "give the texts one by one, or take the tokenizer of a model for pairs: a template needs `pair` with the sequences A and B".to_owned(),
            });
        }
        Ok((
            self.tokens_of(first, Offsets::Characters)?,
            self.tokens_of(second, Offsets::Characters)?,
        ))
    }

    fn aligned_pair(
        &self,
        encoding: &Encoding,
        (first, second): (&str, &str),
        texts: &[CharacterStarts; 2],
        truncated: bool,
    ) -> Result<AlignedTokens, ModelError> {
        let name = || format!("texts {} and {}", quote(first), quote(second));
        if encoding.is_empty() {
            return Err(ModelError::Input(format!(
                "{}: expected at least one token, found none\n  hint: this tokenizer adds no special tokens; leave out texts without words",
                name()
            )));
        }
        self.check_ids(encoding, name)?;
        let tokens = AlignedTokens::new(encoding, texts, self.gives_token_types, truncated);
        // A model that has no types at all is not given any.
        let highest = tokens.token_type_ids.iter().max().copied().unwrap_or(0);
        if self.token_types > 0 && highest as usize >= self.token_types {
            return Err(ModelError::Input(format!(
                "{}: expected token types below the model's {}, found {highest}, which the tokenizer gives to a second text\n  hint: this model was made for single texts (`type_vocab_size` of config.json), or it has the tokenizer of another model",
                name(),
                self.token_types
            )));
        }
        Ok(tokens)
    }

    /// How many tokens of two texts fit into a limit.
    fn room_for_pairs(&self, limit: usize) -> Result<usize, ModelError> {
        let special = self.special_tokens(true);
        match limit.checked_sub(special) {
            Some(room) if room > 0 => Ok(room),
            _ => Err(ModelError::Input(format!(
                "expected room for two texts beside {special} special tokens, found a limit of {limit} tokens\n  hint: raise the limit"
            ))),
        }
    }

    /// Errors if the text that is not to be cut leaves no room for the other.
    fn check_whole(
        &self,
        name: &str,
        text: &str,
        tokens: usize,
        room: usize,
    ) -> Result<(), ModelError> {
        if tokens < room {
            return Ok(());
        }
        Err(ModelError::Input(format!(
            "{name} text {}: expected fewer than {room} tokens, which are left beside {} special tokens and of which it must leave some to the other text, found {tokens}\n  hint: shorten it, or let it be cut",
            quote(text),
            self.special_tokens(true)
        )))
    }

    /// Whether the last step keeps two texts, which a template without a form for pairs does not.
    pub(super) fn keeps_pairs(&self) -> bool {
        let one = |text: &str| {
            let token = Token::new(0, text.to_owned(), (0, 1));
            Encoding::from_tokens(vec![token], 0)
        };
        let Ok(both) = self.with_special_tokens(one("a"), Some(one("b"))) else {
            return false;
        };
        let has =
            |text: usize| (0..both.len()).any(|token| both.token_to_sequence(token) == Some(text));
        both.len() == self.special_tokens(true) + 2 && has(0) && has(1)
    }
}
