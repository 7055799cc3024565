//! What a model says of texts, task by task.

use super::batches::{Scored, WantedTokens};
use super::{Predictor, TextInput};
use crate::encoder::expect_at_least_one;
use crate::prediction::answers::{Answer, AnswerOptions, AnswerToken, AnswerWindow, answers};
use crate::prediction::characters::Characters;
use crate::prediction::entities::{Aggregation, Entity, ScoredToken, entities};
use crate::prediction::masks::{MaskCandidate, candidates, masks};
use crate::prediction::score_function::largest_first;
use crate::tokenization::{AlignedTokens, PairTruncation, TokenOrigin, Window, quote};
use crate::{EncodeOptions, ModelError, ScoreFunction, Task};
use serde::Serialize;

/// Most tokens of a part of a long context together with its question, and most of those that it shares with the part before: those of
/// transformers' pipeline, unless another length is asked for.
const WINDOW_TOKENS: usize = 384;
const WINDOW_STRIDE: usize = 128;

/// A label of a text and its score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelScore {
    /// The name that the model gives it.
    pub label: String,
    /// Its probability; a number of any size for a model that gives none.
    pub score: f32,
}

/// The labels of a text, all of them, the one with the largest score first.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// The labels.
    pub labels: Vec<LabelScore>,
    /// Whether the text was cut at the model's limit.
    pub truncated: bool,
}

/// The entities of a text, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tagging {
    /// The entities.
    pub entities: Vec<Entity>,
    /// Whether the text was cut at the model's limit: beyond it there are none.
    pub truncated: bool,
}

/// Candidates for the masks of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct FilledMasks {
    /// For each mask, in order, the likeliest tokens, the likeliest first.
    pub masks: Vec<Vec<MaskCandidate>>,
    /// Whether the text was cut at the model's limit.
    pub truncated: bool,
}

/// Logits of texts, a row for each in the order given.
#[derive(Debug, Clone, PartialEq)]
pub struct TextLogits {
    /// Number of texts.
    pub rows: usize,
    /// Logits of each: one for each label.
    pub columns: usize,
    /// (rows, columns), row-major.
    pub values: Vec<f32>,
    /// Ascending indices of texts that were cut at the model's limit.
    pub truncated: Vec<usize>,
    /// Tokens processed, special tokens included.
    pub tokens: usize,
}

impl Predictor {
    /// The labels of texts, or of pairs of texts. With one label its score is that of the text: of a reranker, how well a passage goes with
    /// a query.
    ///
    /// # Errors
    /// [`ModelError::Input`]: the model is for another task, an option is 0, or the tokenizer fails on a text or knows no pairs.
    /// [`ModelError::NonFinite`]: a value overflowed.
    pub fn classify<'t, T: Into<TextInput<'t>> + Copy + Sync>(
        &self,
        inputs: &[T],
        options: &EncodeOptions,
    ) -> Result<Vec<Classification>, ModelError> {
        let function = self.score_function();
        self.classified(inputs, options, |scored| {
            let scores = function.scores(&scored.logits);
            let order = largest_first(&scores, scores.len());
            let label = |index: usize| LabelScore {
                label: self.labels()[index].clone(),
                score: scores[index],
            };
            Ok(Classification {
                labels: order.into_iter().map(label).collect(),
                truncated: scored.tokens.truncated,
            })
        })
    }

    /// The logits of texts, or of pairs of texts, for a model of labels.
    ///
    /// # Errors
    /// As [`Predictor::classify`].
    pub fn text_logits<'t, T: Into<TextInput<'t>> + Copy + Sync>(
        &self,
        inputs: &[T],
        options: &EncodeOptions,
    ) -> Result<TextLogits, ModelError> {
        let rows = self.classified(inputs, options, Ok)?;
        let truncated = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.tokens.truncated);
        Ok(TextLogits {
            rows: rows.len(),
            columns: self.model.columns(),
            truncated: truncated.map(|(index, _)| index).collect(),
            tokens: rows.iter().map(|row| row.tokens.token_ids.len()).sum(),
            values: rows.into_iter().flat_map(|row| row.logits).collect(),
        })
    }

    fn classified<'t, T: Into<TextInput<'t>> + Copy + Sync, R>(
        &self,
        inputs: &[T],
        options: &EncodeOptions,
        finish: impl Fn(Scored) -> Result<R, ModelError>,
    ) -> Result<Vec<R>, ModelError> {
        self.check_task(Task::SequenceClassification)?;
        let inputs: Vec<TextInput<'t>> = inputs.iter().map(|&input| input.into()).collect();
        let length = |input: &TextInput<'_>| input.text.len() + input.pair.map_or(0, str::len);
        let tokenize = |input: &TextInput<'_>| match input.pair {
            None => self.tokenizer.tokenize_aligned(input.text),
            Some(pair) => {
                (self.tokenizer).tokenize_pair(input.text, pair, PairTruncation::LongestFirst)
            }
        };
        self.run_whole(&inputs, options, length, tokenize, None, |_, scored| {
            finish(scored)
        })
    }

    /// The entities of texts.
    ///
    /// # Errors
    /// As [`Predictor::classify`].
    pub fn tag<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        aggregation: Aggregation,
        options: &EncodeOptions,
    ) -> Result<Vec<Tagging>, ModelError> {
        self.check_task(Task::TokenClassification)?;
        let tokenize = |text: &S| self.tokenizer.tokenize_aligned(text.as_ref());
        let length = |text: &S| text.as_ref().len();
        let spell = |tokens: &[&str]| {
            let tokens = tokens.iter().map(|&token| token.to_owned());
            self.tokenizer.tokens_to_text(tokens.collect())
        };
        self.run_whole(texts, options, length, tokenize, None, |text, run| {
            let tokens = self.scored_tokens(text.as_ref(), &run)?;
            Ok(Tagging {
                entities: entities(&tokens, self.labels(), aggregation, &spell)?,
                truncated: run.tokens.truncated,
            })
        })
    }

    /// The tokens that are of the text itself.
    fn scored_tokens(&self, text: &str, run: &Scored) -> Result<Vec<ScoredToken>, ModelError> {
        let characters = Characters::of(text);
        let unknown = self.tokenizer.unknown_token_id();
        let is_marked = self.tokenizer.marks_continuing_pieces();
        let rows = run.logits.chunks_exact(self.model.columns().max(1));
        let tokens = run
            .tokens
            .token_ids
            .iter()
            .zip(&run.tokens.origins)
            .zip(rows);
        let of_text = tokens
            .enumerate()
            .filter(|(_, ((_, origin), _))| !origin.special);
        Ok(of_text
            .map(|(index, ((&id, origin), logits))| {
                let (start, end) = characters.range(&origin.bytes);
                let covered = text.get(origin.bytes.clone()).unwrap_or_default();
                let token = self.tokenizer.token(id).unwrap_or_default();
                let is_unknown = Some(id) == unknown;
                ScoredToken {
                    is_subword: !is_unknown
                        && match is_marked {
                            true => token.chars().count() != covered.chars().count(),
                            false => start > 0 && !has_space(text, origin),
                        },
                    token: if is_unknown {
                        covered.to_owned()
                    } else {
                        token
                    },
                    scores: ScoreFunction::Softmax.scores(logits),
                    index,
                    start,
                    end,
                }
            })
            .collect())
    }

    /// Answers to questions, found in contexts: for each pair of a question and a context the best ones, the best first. A long context is
    /// read in parts that overlap.
    ///
    /// # Errors
    /// As [`Predictor::classify`]; [`ModelError::Input`] for an empty question or context, and for a question that leaves no room for a
    /// context.
    pub fn answer<S: AsRef<str> + Sync>(
        &self,
        questions: &[(S, S)],
        answer_options: AnswerOptions,
        options: &EncodeOptions,
    ) -> Result<Vec<Vec<Answer>>, ModelError> {
        self.check_task(Task::QuestionAnswering)?;
        let checked = [
            ("top_k", answer_options.top_k),
            ("max_answer_tokens", answer_options.max_answer_tokens),
        ];
        expect_at_least_one(checked, "AnswerOptions")?;
        let most = self.asked_max_tokens.unwrap_or(WINDOW_TOKENS);
        let max_tokens = self.max_tokens().min(most);
        let window = Window {
            max_tokens,
            stride: (max_tokens / 2).min(WINDOW_STRIDE),
        };
        let tokenize = |(question, context): &(S, S)| {
            let (question, context) = (question.as_ref(), context.as_ref());
            for (name, text) in [("question", question), ("context", context)] {
                if text.trim().is_empty() {
                    return Err(ModelError::Input(format!(
                        "{name} {}: expected a text, found none\n  hint: question {}, context {}",
                        quote(text),
                        quote(question),
                        quote(context)
                    )));
                }
            }
            self.tokenizer.tokenize_windows(question, context, window)
        };
        let length =
            |(question, context): &(S, S)| question.as_ref().len() + context.as_ref().len();
        self.run(
            questions,
            options,
            length,
            tokenize,
            None,
            |(_, context), runs| {
                let windows: Vec<_> = runs.iter().map(|run| self.answer_window(run)).collect();
                Ok(answers(context.as_ref(), &windows, answer_options))
            },
        )
    }

    fn answer_window(&self, run: &Scored) -> AnswerWindow {
        let token = |origin: &TokenOrigin| AnswerToken {
            bytes: (origin.text == Some(1) && !origin.special).then(|| origin.bytes.clone()),
            word: origin.word,
        };
        let (pairs, _) = run.logits.as_chunks::<2>();
        let class = self.tokenizer.class_token_id();
        AnswerWindow {
            tokens: run.tokens.origins.iter().map(token).collect(),
            start_logits: pairs.iter().map(|[start, _]| *start).collect(),
            end_logits: pairs.iter().map(|[_, end]| *end).collect(),
            begins_with_no_answer: class.is_some()
                && run.tokens.token_ids.first().copied() == class,
        }
    }

    /// The likeliest tokens for the masks of texts, `top_k` for each.
    ///
    /// # Errors
    /// As [`Predictor::classify`]; [`ModelError::Input`] for a text without a mask within the model's limit.
    pub fn fill_masks<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        top_k: usize,
        options: &EncodeOptions,
    ) -> Result<Vec<FilledMasks>, ModelError> {
        self.check_task(Task::MaskedLm)?;
        let Some(mask) = self.tokenizer.mask_token_id() else {
            return Err(ModelError::Input(format!(
                "{}: expected a tokenizer with a mask token, found none\n  hint: `mask_token` of tokenizer_config.json names it",
                self.directory.display()
            )));
        };
        let tokenize = |text: &S| {
            let tokens = self.tokenizer.tokenize_aligned(text.as_ref())?;
            match masks(&tokens.token_ids, mask).is_empty() {
                true => Err(self.without_mask(text.as_ref(), &tokens, mask)),
                false => Ok(tokens),
            }
        };
        let wanted = |tokens: &AlignedTokens| masks(&tokens.token_ids, mask);
        let length = |text: &S| text.as_ref().len();
        let wanted = Some(&wanted as &WantedTokens<'_>);
        self.run_whole(texts, options, length, tokenize, wanted, |_, run| {
            let ids = &run.tokens.token_ids;
            let rows = run.logits.chunks_exact(self.model.columns().max(1));
            Ok(FilledMasks {
                masks: candidates(ids, &masks(ids, mask), rows, top_k, &self.tokenizer)?,
                truncated: run.tokens.truncated,
            })
        })
    }

    fn without_mask(&self, text: &str, tokens: &AlignedTokens, mask: u32) -> ModelError {
        let mask = self.tokenizer.token(mask).unwrap_or_default();
        let limit = match tokens.truncated {
            true => format!(
                " in the first {} tokens, the model's limit",
                self.max_tokens()
            ),
            false => String::new(),
        };
        ModelError::Input(format!(
            "text {}: expected a mask `{mask}`{limit}, found none\n  hint: write {mask} where the model is to guess a word",
            quote(text)
        ))
    }
}

/// Whether there is a space at a token's first character or just before it: transformers then takes the token to begin a word, where
/// the vocabulary does not tell.
fn has_space(text: &str, origin: &TokenOrigin) -> bool {
    let (before, behind) = text
        .split_at_checked(origin.bytes.start)
        .unwrap_or((text, ""));
    before.ends_with(' ') || behind.starts_with(' ')
}
