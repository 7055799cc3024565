//! From logits of starts and ends to answers, as the question answering pipeline of transformers 4 found them (transformers 5 has
//! none any more).

use super::characters::Characters;
use super::score_function::softmax;
use serde::Serialize;
use std::ops::Range;

/// How answers are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerOptions {
    /// Answers at most, at least 1.
    pub top_k: usize,
    /// Longest answer in tokens, at least 1.
    pub max_answer_tokens: usize,
    /// Whether "there is no answer" is one, an empty text, for models that were trained to say so.
    pub handle_impossible_answer: bool,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self {
            top_k: 1,
            max_answer_tokens: 15,
            handle_impossible_answer: false,
        }
    }
}

/// A token of a window. The window holds special tokens, a question, and a part of a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerToken {
    /// The bytes of the context that it covers; `None` for a token of the question and a special one.
    pub bytes: Option<Range<usize>>,
    /// The number of its word in the context, where the tokenizer knows words.
    pub word: Option<u32>,
}

/// What a model made of a window.
#[derive(Debug, Clone)]
pub struct AnswerWindow {
    /// Its tokens.
    pub tokens: Vec<AnswerToken>,
    /// How much each token looks like the first one of the answer.
    pub start_logits: Vec<f32>,
    /// How much each token looks like the last one of the answer.
    pub end_logits: Vec<f32>,
    /// Whether the first token is the one (`[CLS]`) that stands for "there is no answer".
    pub begins_with_no_answer: bool,
}

/// A part of a context that answers a question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// Its text; empty where there is no answer.
    pub answer: String,
    /// Its probability within its window; the sum of them where several spans have the same text.
    pub score: f32,
    /// Its first character in the context, counted from 0 in Unicode code points, as Python counts.
    pub start: usize,
    /// The character behind its last one.
    pub end: usize,
}

/// The best answers of all windows of `context`, the best first.
pub fn answers(context: &str, windows: &[AnswerWindow], options: AnswerOptions) -> Vec<Answer> {
    let characters = Characters::of(context);
    // Spans become fewer when they are widened to words.
    let candidates = options.top_k.saturating_mul(2).saturating_add(10);
    let mut found: Vec<(Answer, f64)> = Vec::new();
    let mut no_answer = f64::INFINITY;
    for window in windows {
        let scores = WindowScores::of(window);
        no_answer = no_answer.min(scores.no_answer);
        for span in scores.spans(candidates, options.max_answer_tokens) {
            let bytes = window.bytes(span.first, span.last);
            let text = context.get(bytes.clone()).unwrap_or_default();
            let same = |(known, _): &&mut (Answer, f64)| {
                known.answer.to_lowercase() == text.to_lowercase()
            };
            match found.iter_mut().find(same) {
                Some((_, score)) => *score += span.score,
                None => {
                    let (start, end) = characters.range(&bytes);
                    let answer = Answer {
                        answer: text.to_owned(),
                        score: 0.0,
                        start,
                        end,
                    };
                    found.push((answer, span.score));
                }
            }
        }
    }
    if options.handle_impossible_answer && no_answer.is_finite() {
        let answer = Answer {
            answer: String::new(),
            score: 0.0,
            start: 0,
            end: 0,
        };
        found.push((answer, no_answer));
    }
    found.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    found.truncate(options.top_k);
    found
        .into_iter()
        .map(|(answer, score)| Answer {
            score: score as f32,
            ..answer
        })
        .collect()
}

/// Probabilities of the tokens of a window.
struct WindowScores {
    /// Of being the first token of the answer; 0 outside of the context.
    start: Vec<f64>,
    /// Of being the last.
    end: Vec<f64>,
    /// That there is no answer.
    no_answer: f64,
}

/// Tokens and their score.
struct Span {
    first: usize,
    last: usize,
    score: f64,
}

impl WindowScores {
    fn of(window: &AnswerWindow) -> Self {
        // What cannot be in an answer takes no part in the softmax.
        let takes_part = |index: usize| {
            window.tokens[index].bytes.is_some() || (index == 0 && window.begins_with_no_answer)
        };
        let taking_part: Vec<usize> = (0..window.tokens.len())
            .filter(|&i| takes_part(i))
            .collect();
        let probabilities = |logits: &[f32]| {
            let chosen: Vec<f32> = taking_part.iter().map(|&index| logits[index]).collect();
            let mut all = vec![0.0; logits.len()];
            for (&index, probability) in taking_part.iter().zip(softmax(&chosen)) {
                all[index] = probability;
            }
            all
        };
        let mut start = probabilities(&window.start_logits);
        let mut end = probabilities(&window.end_logits);
        let mut no_answer = 0.0;
        if let (Some(first), Some(last)) = (start.first_mut(), end.first_mut()) {
            no_answer = *first * *last;
            (*first, *last) = (0.0, 0.0);
        }
        Self {
            start,
            end,
            no_answer,
        }
    }

    /// The `most` likeliest spans of at most `longest` tokens, the likeliest first.
    fn spans(&self, most: usize, longest: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        for (first, &start) in self.start.iter().enumerate() {
            let ends = self.end.iter().enumerate().skip(first).take(longest);
            spans.extend(ends.filter_map(|(last, &end)| {
                let score = start * end;
                (score > 0.0).then_some(Span { first, last, score })
            }));
        }
        // Stable: of equal ones the first in the text comes first.
        spans.sort_by(|a, b| b.score.total_cmp(&a.score));
        spans.truncate(most);
        spans
    }
}

impl AnswerWindow {
    /// The bytes from the word of the token `first` to that of the token `last`; where these are in no word, those of the tokens
    /// themselves.
    fn bytes(&self, first: usize, last: usize) -> Range<usize> {
        let word = |index: usize| -> Option<Range<usize>> {
            let number = self.tokens[index].word?;
            let of_word = self
                .tokens
                .iter()
                .filter(|token| token.word == Some(number));
            let mut bytes = of_word.filter_map(|token| token.bytes.clone());
            let first = bytes.next()?;
            let end = bytes.next_back().map_or(first.end, |last| last.end);
            Some(first.start..end)
        };
        let own = |index: usize| self.tokens[index].bytes.clone().unwrap_or(0..0);
        match (word(first), word(last)) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => own(first).start..own(last).end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: &str = "the cat sat in Köln";

    /// A special token, one of the question, and a token for each word of the context.
    fn tokens() -> Vec<AnswerToken> {
        let of_context = |(word, bytes)| AnswerToken {
            bytes: Some(bytes),
            word: Some(word),
        };
        let outside = || AnswerToken {
            bytes: None,
            word: None,
        };
        let words = [(0, 0..3), (1, 4..7), (2, 8..11), (3, 12..14), (4, 15..20)];
        [outside(), outside()]
            .into_iter()
            .chain(words.map(of_context))
            .collect()
    }

    fn best(starts: [f32; 7], ends: [f32; 7], options: AnswerOptions) -> Vec<Answer> {
        let window = AnswerWindow {
            tokens: tokens(),
            start_logits: starts.to_vec(),
            end_logits: ends.to_vec(),
            begins_with_no_answer: true,
        };
        answers(CONTEXT, &[window], options)
    }

    const FAR: f32 = -100.0;

    #[test]
    fn the_likeliest_span_is_the_answer() {
        // Of the context, `cat` starts and `Köln` ends the answer; the question's token is likelier and does not count.
        let found = best(
            [FAR, 50.0, FAR, 3.0, FAR, FAR, FAR],
            [FAR, 50.0, FAR, FAR, FAR, FAR, 3.0],
            AnswerOptions::default(),
        );
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].answer.as_str(), found[0].start, found[0].end),
            ("cat sat in Köln", 4, 19)
        );
        assert!((found[0].score - 1.0).abs() < 1e-6);
    }

    #[test]
    fn an_answer_does_not_end_before_it_starts_and_is_not_too_long() {
        let options = AnswerOptions {
            max_answer_tokens: 3,
            top_k: 2,
            ..AnswerOptions::default()
        };
        // Starts: sat 1/2, the 1/2; ends: Köln 1/2, cat 1/2. `sat … cat` ends before it starts, `the … Köln` is of 5 tokens.
        let found = best(
            [FAR, FAR, 0.0, FAR, 0.0, FAR, FAR],
            [FAR, FAR, FAR, 0.0, FAR, FAR, 0.0],
            options,
        );
        let texts: Vec<&str> = found.iter().map(|answer| answer.answer.as_str()).collect();
        assert_eq!(texts, ["the cat", "sat in Köln"]);
        assert!(
            found
                .iter()
                .all(|answer| (answer.score - 0.25).abs() < 1e-6),
            "{found:?}"
        );
    }

    #[test]
    fn no_answer_is_an_answer_only_if_asked_for() {
        let (starts, ends) = (
            [4.0, 0.0, FAR, 0.0, FAR, FAR, FAR],
            [4.0, 0.0, FAR, 0.0, FAR, FAR, FAR],
        );
        let found = best(starts, ends, AnswerOptions::default());
        assert_eq!(found[0].answer, "cat");
        let asked = AnswerOptions {
            handle_impossible_answer: true,
            ..AnswerOptions::default()
        };
        let found = best(starts, ends, asked);
        assert_eq!(
            (found[0].answer.as_str(), found[0].start, found[0].end),
            ("", 0, 0)
        );
        // Its token and `cat` have 1 / (1 + e^-4) and 1 / (1 + e^4) of both.
        let expected = (1.0 / (1.0 + (-4f64).exp())).powi(2);
        assert!(
            (f64::from(found[0].score) - expected).abs() < 1e-6,
            "{found:?}"
        );
    }

    #[test]
    fn spans_are_widened_to_words_and_equal_texts_are_one_answer() {
        let mut tokens = tokens();
        // `cat` is two tokens.
        tokens.splice(
            3..4,
            [4..5, 5..7].map(|bytes| AnswerToken {
                bytes: Some(bytes),
                word: Some(1),
            }),
        );
        let logits = [FAR, FAR, FAR, 0.0, 0.0, FAR, FAR, FAR];
        let window = AnswerWindow {
            tokens,
            start_logits: logits.to_vec(),
            end_logits: logits.to_vec(),
            begins_with_no_answer: true,
        };
        let options = AnswerOptions {
            top_k: 5,
            ..AnswerOptions::default()
        };
        // Three of the four pairs of the two tokens are spans.
        let found = answers(CONTEXT, &[window], options);
        assert_eq!(found[0].answer, "cat");
        assert!((found[0].score - 0.75).abs() < 1e-6, "{found:?}");
    }
}
