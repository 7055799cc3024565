//! The vocabulary of a tokenizer with byte pairs, for other runtimes.

use super::{Offsets, TextTokenizer};
use crate::ModelError;
use crate::byte_pairs::{ByteLevelRule, BytePairPipeline, BytePairVocabulary, TokenType};
use crate::pooling::PoolingMode;
use serde_json::{Value, json};
use std::collections::HashMap;

impl TextTokenizer {
    /// The tokenizer as other runtimes have it.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`]: it is another.
    pub(crate) fn byte_pairs(&self, pooling: PoolingMode) -> Result<BytePairPipeline, ModelError> {
        let stored = serde_json::to_value(&self.tokenizer)
            .map_err(|error| self.no_place(&error.to_string()))?;
        let model = &stored["model"];
        if model["type"] != "BPE" {
            return Err(self.no_place("a model of byte pairs"));
        }
        let merges = merges(model).ok_or_else(|| self.no_place("merges of two tokens"))?;
        let mut tokens = vec![None; self.vocab_size];
        for (token, id) in self.tokenizer.get_vocab(true) {
            // What has no row in the table has been warned of.
            if let Some(place) = tokens.get_mut(id as usize) {
                *place = Some(token);
            }
        }
        let composes = stored["normalizer"] == json!({"type": "NFC"});
        let vocabulary = match sentencepiece(&stored) {
            Some(adds_space) => BytePairVocabulary::SentencePiece {
                scores: scores(&tokens, &merges),
                adds_space,
            },
            None => {
                let is_plain = stored["normalizer"].is_null() || composes;
                let rule = byte_level(&stored).filter(|_| is_plain);
                let rule = rule.ok_or_else(|| {
                    let names = ByteLevelRule::ALL.map(|rule| rule.name).join(", ");
                    self.no_place(&format!(
                        "byte pairs of sentencepiece, or of bytes cut by a rule of {names}"
                    ))
                })?;
                BytePairVocabulary::ByteLevel { rule, merges }
            }
        };
        let types = self.types(&tokens, &vocabulary);
        let (before, after) = self.around()?;
        let id_of = |token: &Option<String>| self.tokenizer.token_to_id(token.as_deref()?);
        Ok(BytePairPipeline {
            vocabulary,
            types,
            tokens,
            before,
            after,
            begin: before.or_else(|| id_of(&self.special.begin)),
            end: after.or_else(|| id_of(&self.special.end)),
            unknown: id_of(&self.special.unknown),
            padding: id_of(&self.special.padding),
            composes,
            pooling,
            max_tokens: self.max_tokens(),
        })
    }

    fn no_place(&self, expected: &str) -> ModelError {
        ModelError::Tokenizer {
            file: self.file.clone(),
            message: format!("expected {expected}, found another tokenizer"),
            hint: "others have no place in the file: convert to a directory instead".to_owned(),
        }
    }

    fn types(&self, tokens: &[Option<String>], vocabulary: &BytePairVocabulary) -> Vec<TokenType> {
        let is_sentencepiece = matches!(vocabulary, BytePairVocabulary::SentencePiece { .. });
        let added = self.tokenizer.get_added_tokens_decoder();
        let of = |(id, token): (usize, &Option<String>)| {
            let Some(token) = token else {
                return TokenType::Unused;
            };
            let added = u32::try_from(id).ok().and_then(|id| added.get(&id));
            match added {
                _ if is_sentencepiece && Some(token) == self.special.unknown.as_ref() => {
                    TokenType::Unknown
                }
                Some(added) if added.special => TokenType::Control,
                Some(_) => TokenType::UserDefined,
                None if is_sentencepiece && is_byte(token) => TokenType::Byte,
                None => TokenType::Normal,
            }
        };
        tokens.iter().enumerate().map(of).collect()
    }

    /// The special token before every text, and the one after it.
    fn around(&self) -> Result<(Option<u32>, Option<u32>), ModelError> {
        let text = "a";
        let inside = self.tokens_of(text, Offsets::None)?;
        let all = self.with_special_tokens(inside.clone(), None)?;
        let (inside, all) = (inside.get_ids(), all.get_ids());
        let at = all
            .windows(inside.len().max(1))
            .position(|window| window == inside);
        let refused = || self.no_place("at most one special token before a text and one after it");
        let at = at.ok_or_else(refused)?;
        match (&all[..at], &all[at + inside.len()..]) {
            (before @ ([] | [_]), after @ ([] | [_])) => {
                Ok((before.first().copied(), after.first().copied()))
            }
            _ => Err(refused()),
        }
    }
}

/// `<0x0A>`
fn is_byte(token: &str) -> bool {
    let digits = token
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

fn merges(model: &Value) -> Option<Vec<(String, String)>> {
    let merges = model["merges"].as_array()?.iter();
    let pair = |merge: &Value| {
        let (left, right) = match merge {
            Value::String(text) => text.split_once(' ')?,
            pair => (pair[0].as_str()?, pair[1].as_str()?),
        };
        Some((left.to_owned(), right.to_owned()))
    };
    merges.map(pair).collect()
}

/// The rule of byte-level byte pairs.
fn byte_level(stored: &Value) -> Option<ByteLevelRule> {
    let (words, bytes, own_words) = match &stored["pre_tokenizer"] {
        sequence if sequence["type"] == "Sequence" => {
            let [split, bytes] = &sequence["pretokenizers"].as_array()?[..] else {
                return None;
            };
            let is_split = split["type"] == "Split"
                && split["behavior"] == "Isolated"
                && split["invert"] == false;
            let words = split["pattern"]["Regex"].as_str().filter(|_| is_split)?;
            (Some(words), bytes, false)
        }
        bytes => (None, bytes, true),
    };
    let is_byte_level = bytes["type"] == "ByteLevel"
        && bytes["add_prefix_space"] == false
        && bytes["use_regex"] == own_words;
    let model = &stored["model"];
    let is_plain = [
        "unk_token",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "dropout",
    ]
    .iter()
    .all(|key| model[*key].is_null() || model[*key] == "");
    let ignores_merges = model["ignore_merges"] == true;
    let mut rules = ByteLevelRule::ALL.into_iter();
    rules.find(|rule| {
        is_byte_level && is_plain && rule.words == words && rule.ignores_merges == ignores_merges
    })
}

/// Whether a space is put before a text; none if these are no byte pairs of sentencepiece.
fn sentencepiece(stored: &Value) -> Option<bool> {
    if stored["model"]["byte_fallback"] != true {
        return None;
    }
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let (normalizer, pre_tokenizer) = (&stored["normalizer"], &stored["pre_tokenizer"]);
    if normalizer["type"] == "Sequence" && pre_tokenizer.is_null() {
        let prepend = json!({"type": "Prepend", "prepend": "▁"});
        return match &normalizer["normalizers"].as_array()?[..] {
            [first, second] if *first == prepend && *second == spaces => Some(true),
            [only] if *only == spaces => Some(false),
            _ => None,
        };
    }
    if *normalizer == spaces && pre_tokenizer.is_null() {
        return Some(false);
    }
    let is_metaspace = normalizer.is_null()
        && pre_tokenizer["type"] == "Metaspace"
        && pre_tokenizer["replacement"] == "▁"
        && pre_tokenizer["split"] == false;
    is_metaspace.then(|| pre_tokenizer["prepend_scheme"] != "never")
}

/// Scores by which sentencepiece puts tokens together in the order of `merges`.
fn scores(tokens: &[Option<String>], merges: &[(String, String)]) -> Vec<f32> {
    let mut ranks: HashMap<String, usize> = HashMap::with_capacity(merges.len());
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let score = |token: &Option<String>| {
        let rank = token.as_ref().and_then(|token| ranks.get(token));
        -(*rank.unwrap_or(&merges.len()) as f32)
    };
    tokens.iter().map(score).collect()
}
