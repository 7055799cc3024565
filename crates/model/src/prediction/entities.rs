//! From labels of tokens to entities, as the token classification pipeline of transformers groups them.

use super::score_function::largest;
use crate::ModelError;
use serde::Serialize;

/// What becomes of the tokens of a word, and of words that follow one another; the names are those of transformers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// Every token is an entity of its own.
    None,
    /// Neighbouring tokens with the same label are one entity.
    #[default]
    Simple,
    /// A word has the label of its first token; neighbouring words are grouped.
    First,
    /// A word has the largest mean of its tokens' scores; neighbouring words are grouped.
    Average,
    /// A word has the largest score of its tokens; neighbouring words are grouped.
    Max,
}

/// A token of a text with the scores of all labels.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredToken {
    /// The token as the vocabulary spells it; the text that an unknown token stands for.
    pub token: String,
    /// A score for each label.
    pub scores: Vec<f32>,
    /// Its place among all tokens, special ones included.
    pub index: usize,
    /// Its first character in the text.
    pub start: usize,
    /// The character behind its last one.
    pub end: usize,
    /// Whether it continues the word that the token before it belongs to.
    pub is_subword: bool,
}

/// A part of a text and its label. With [`Aggregation::None`] it is a token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entity {
    /// The token's label as the model names it, with [`Aggregation::None`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// The label without `B-` and `I-`, with every other aggregation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_group: Option<String>,
    /// Probability of the label; the mean of those of the words or tokens of a group.
    pub score: f32,
    /// Place among all tokens, special ones included; only with [`Aggregation::None`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// What the tokens spell: not always as in the text, of which `start` and `end` are a part.
    pub word: String,
    /// The first character in the text, counted from 0 in Unicode code points, as Python counts.
    pub start: usize,
    /// The character behind the last one.
    pub end: usize,
}

/// Writes tokens as a text.
pub type Spell<'s> = &'s dyn Fn(&[&str]) -> Result<String, ModelError>;

/// The label of tokens that are in no entity.
const OUTSIDE: &str = "O";

/// The entities of a text, in order. Tokens and groups with the label `O` are left out. `spell` writes tokens as a text.
///
/// Each token has a score for each of `labels`.
pub fn entities(
    tokens: &[ScoredToken],
    labels: &[String],
    aggregation: Aggregation,
    spell: Spell<'_>,
) -> Result<Vec<Entity>, ModelError> {
    let parts: Vec<Part<'_>> = match aggregation {
        Aggregation::None | Aggregation::Simple => tokens
            .iter()
            .filter_map(|token| Part::of_token(token, labels))
            .collect(),
        Aggregation::First | Aggregation::Average | Aggregation::Max => tokens
            .chunk_by(|_, next| next.is_subword)
            .filter_map(|word| Part::of_word(word, labels, aggregation, spell).transpose())
            .collect::<Result<_, _>>()?,
    };
    if aggregation == Aggregation::None {
        let named = parts.into_iter().filter(|part| part.label != OUTSIDE);
        return Ok(named.map(Part::into_entity).collect());
    }
    parts
        .chunk_by(|part, next| continues(part.label, next.label))
        .map(|group| (group_name(group[0].label), group))
        .filter(|(name, _)| *name != OUTSIDE)
        .map(|(name, group)| group_of(name, group, spell))
        .collect()
}

/// A token or a word with its label.
struct Part<'a> {
    label: &'a str,
    score: f32,
    index: usize,
    word: String,
    start: usize,
    end: usize,
}

impl<'a> Part<'a> {
    fn of_token(token: &ScoredToken, labels: &'a [String]) -> Option<Self> {
        let best = largest(&token.scores)?;
        Some(Self {
            label: labels.get(best)?,
            score: token.scores[best],
            index: token.index,
            word: token.token.clone(),
            start: token.start,
            end: token.end,
        })
    }

    /// `word` has at least one token.
    fn of_word(
        word: &[ScoredToken],
        labels: &'a [String],
        aggregation: Aggregation,
        spell: Spell<'_>,
    ) -> Result<Option<Self>, ModelError> {
        let tokens: Vec<&str> = word.iter().map(|token| token.token.as_str()).collect();
        let of_word = || {
            let (first, last) = (word.first()?, word.last()?);
            let scores = match aggregation {
                Aggregation::Average => mean_scores(word, first.scores.len()),
                Aggregation::Max => strongest(word)?.scores.clone(),
                Aggregation::None | Aggregation::Simple | Aggregation::First => {
                    first.scores.clone()
                }
            };
            let best = largest(&scores)?;
            Some(Self {
                label: labels.get(best)?,
                score: scores[best],
                index: first.index,
                word: String::new(),
                start: first.start,
                end: last.end,
            })
        };
        let Some(part) = of_word() else {
            return Ok(None);
        };
        let word = spell(&tokens)?;
        Ok(Some(Self { word, ..part }))
    }

    fn into_entity(self) -> Entity {
        Entity {
            entity: Some(self.label.to_owned()),
            entity_group: None,
            score: self.score,
            index: Some(self.index),
            word: self.word,
            start: self.start,
            end: self.end,
        }
    }
}

/// The token with the largest score of all, the first of equal ones.
fn strongest(word: &[ScoredToken]) -> Option<&ScoredToken> {
    let best = |token: &ScoredToken| largest(&token.scores).map(|at| token.scores[at]);
    word.iter()
        .reduce(|strongest, token| match best(token) > best(strongest) {
            true => token,
            false => strongest,
        })
}

fn mean_scores(word: &[ScoredToken], labels: usize) -> Vec<f32> {
    let sum = |label: usize| -> f64 {
        let scores = word.iter().map(|token| f64::from(token.scores[label]));
        scores.sum()
    };
    (0..labels)
        .map(|label| (sum(label) / word.len() as f64) as f32)
        .collect()
}

/// Whether a part with the label `next` belongs to the entity of a part with the label `label` just before it.
fn continues(label: &str, next: &str) -> bool {
    !next.starts_with("B-") && tag(label) == tag(next)
}

/// A label without `B-` or `I-`.
fn tag(label: &str) -> &str {
    ["B-", "I-"]
        .iter()
        .find_map(|prefix| label.strip_prefix(prefix))
        .unwrap_or(label)
}

/// The name of a group: what stands behind the first hyphen of its first label, whatever stands before it.
fn group_name(label: &str) -> &str {
    label.split_once('-').map_or(label, |(_, name)| name)
}

/// One entity of at least one part.
fn group_of(name: &str, group: &[Part<'_>], spell: Spell<'_>) -> Result<Entity, ModelError> {
    let words: Vec<&str> = group.iter().map(|part| part.word.as_str()).collect();
    let sum: f64 = group.iter().map(|part| f64::from(part.score)).sum();
    Ok(Entity {
        entity: None,
        entity_group: Some(name.to_owned()),
        score: (sum / group.len() as f64) as f32,
        index: None,
        word: spell(&words)?,
        start: group[0].start,
        end: group[group.len() - 1].end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [&str; 5] = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];

    /// One token a word; `##` marks a token that continues one. Each has a label and its score; the others share the rest.
    fn tokens(of: &[(&str, &str, f32)]) -> Vec<ScoredToken> {
        let mut start = 0;
        let token = |(index, &(token, label, score)): (usize, &(&str, &str, f32))| {
            let is_subword = token.starts_with("##");
            let length = token.trim_start_matches('#').len();
            start += usize::from(index > 0 && !is_subword);
            let token = ScoredToken {
                token: token.to_owned(),
                scores: LABELS
                    .map(|known| {
                        if known == label {
                            score
                        } else {
                            (1.0 - score) / 4.0
                        }
                    })
                    .into(),
                index: index + 1,
                start,
                end: start + length,
                is_subword,
            };
            start += length;
            token
        };
        of.iter().enumerate().map(token).collect()
    }

    fn grouped(of: &[(&str, &str, f32)], aggregation: Aggregation) -> Vec<(String, String, f32)> {
        let labels = LABELS.map(str::to_owned);
        let spell = |tokens: &[&str]| Ok(tokens.join(" ").replace(" ##", ""));
        let found = entities(&tokens(of), &labels, aggregation, &spell).unwrap();
        found
            .into_iter()
            .map(|entity| {
                let label = entity.entity_group.or(entity.entity).unwrap_or_default();
                (label, entity.word, entity.score)
            })
            .collect()
    }

    fn owned(expected: &[(&str, &str, f32)]) -> Vec<(String, String, f32)> {
        expected
            .iter()
            .map(|&(label, word, score)| (label.to_owned(), word.to_owned(), score))
            .collect()
    }

    #[test]
    fn a_b_label_begins_an_entity_and_an_i_label_goes_on() {
        let of = [
            ("ann", "B-PER", 0.5),
            ("lee", "I-PER", 1.0),
            ("bob", "B-PER", 0.75),
            ("in", "O", 1.0),
            ("rome", "I-LOC", 0.5),
            ("paris", "I-LOC", 0.5),
        ];
        assert_eq!(
            grouped(&of, Aggregation::Simple),
            owned(&[
                ("PER", "ann lee", 0.75),
                ("PER", "bob", 0.75),
                ("LOC", "rome paris", 0.5)
            ])
        );
        assert_eq!(
            grouped(&of[..2], Aggregation::None),
            owned(&[("B-PER", "ann", 0.5), ("I-PER", "lee", 1.0)])
        );
    }

    /// The tokens of a word disagree: 0.5 for PER, then 0.75 and 0.25 for LOC.
    #[test]
    fn words_have_one_label() {
        let of = [
            ("wash", "B-PER", 0.5),
            ("##ing", "B-LOC", 0.75),
            ("##ton", "B-LOC", 0.5),
        ];
        assert_eq!(
            grouped(&of, Aggregation::Simple),
            owned(&[
                ("PER", "wash", 0.5),
                ("LOC", "##ing", 0.75),
                ("LOC", "##ton", 0.5)
            ])
        );
        assert_eq!(
            grouped(&of, Aggregation::First),
            owned(&[("PER", "washington", 0.5)])
        );
        assert_eq!(
            grouped(&of, Aggregation::Max),
            owned(&[("LOC", "washington", 0.75)])
        );
        // (0.125 + 0.75 + 0.5) / 3.
        let average = grouped(&of, Aggregation::Average);
        assert_eq!(average[0].0, "LOC");
        assert!((average[0].2 - 1.375 / 3.0).abs() < 1e-7, "{average:?}");
    }

    #[test]
    fn places_are_those_of_the_first_and_the_last_token() {
        let labels = LABELS.map(str::to_owned);
        let of = [
            ("a", "O", 1.0),
            ("new", "B-LOC", 1.0),
            ("yo", "I-LOC", 1.0),
            ("##rk", "O", 1.0),
        ];
        let found = entities(&tokens(&of), &labels, Aggregation::First, &|words| {
            Ok(words.join(" "))
        })
        .unwrap();
        assert_eq!((found.len(), found[0].start, found[0].end), (1, 2, 10));
        let none = entities(&[], &labels, Aggregation::Simple, &|_| Ok(String::new()));
        assert!(none.unwrap().is_empty());
    }
}
