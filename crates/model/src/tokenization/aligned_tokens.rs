//! Tokens that know which part of which text they are.

use std::ops::Range;
use tokenizers::Encoding;

/// Tokens of one text or of two, with their places in the texts; special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlignedTokens {
    /// Token ids.
    pub token_ids: Vec<u32>,
    /// A token type for each, as the model is to be given them.
    pub token_type_ids: Vec<u32>,
    /// Where each token is from.
    pub origins: Vec<TokenOrigin>,
    /// Whether a text was cut: the tokens do not hold all of it.
    pub truncated: bool,
}

/// The part of a text that a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenOrigin {
    /// 0 for the first text, 1 for the second; None for a token that the tokenizer puts around texts.
    pub text: Option<usize>,
    /// Bytes of that text, whole characters: tokens of single bytes of a character have all of it. Empty for special tokens, and
    /// for what has no place in the text.
    pub bytes: Range<usize>,
    /// The word of that text, counted from 0, as the tokenizer cuts it before its vocabulary does; None for special tokens.
    pub word: Option<u32>,
    /// Whether the tokenizer put it there. A special token that is written in a text is part of the text.
    pub special: bool,
}

impl AlignedTokens {
    /// Of an encoding whose offsets count characters, and of the texts that it is made from. Types are all 0 unless `gives_token_types`.
    pub(super) fn new(
        encoding: &Encoding,
        texts: &[CharacterStarts],
        gives_token_types: bool,
        truncated: bool,
    ) -> Self {
        let origins = (0..encoding.len())
            .map(|token| {
                let special = encoding.get_special_tokens_mask()[token] != 0;
                let text = encoding.token_to_sequence(token).filter(|_| !special);
                let (start, end) = encoding.get_offsets()[token];
                TokenOrigin {
                    text,
                    bytes: match text.and_then(|text| texts.get(text)) {
                        Some(characters) => characters.bytes(start, end),
                        None => 0..0,
                    },
                    word: encoding.get_word_ids()[token].filter(|_| text.is_some()),
                    special,
                }
            })
            .collect();
        Self {
            token_ids: encoding.get_ids().to_vec(),
            token_type_ids: match gives_token_types {
                true => encoding.get_type_ids().to_vec(),
                false => vec![0; encoding.len()],
            },
            origins,
            truncated,
        }
    }
}

/// Where the characters of a text begin, and where it ends.
pub(super) struct CharacterStarts(Vec<usize>);

impl CharacterStarts {
    pub(super) fn of(text: &str) -> Self {
        let starts = text.char_indices().map(|(start, _)| start);
        Self(starts.chain([text.len()]).collect())
    }

    /// The bytes of the characters from `start` to `end`, within the text whatever these are.
    fn bytes(&self, start: usize, end: usize) -> Range<usize> {
        let last = self.0.len() - 1;
        let start = start.min(last);
        self.0[start]..self.0[end.clamp(start, last)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_bytes_of_the_text() {
        let text = "aé中😀";
        let characters = CharacterStarts::of(text);
        let part = |start, end| &text[characters.bytes(start, end)];
        assert_eq!(part(0, 1), "a");
        assert_eq!(part(1, 3), "é中");
        assert_eq!(part(3, 4), "😀");
        assert_eq!(part(0, 4), text);
        // What a damaged tokenizer may say.
        assert_eq!(part(2, 9), "中😀");
        assert_eq!(part(9, 9), "");
        assert_eq!(part(3, 1), "");
        assert_eq!(CharacterStarts::of("").bytes(0, 1), 0..0);
    }
}
