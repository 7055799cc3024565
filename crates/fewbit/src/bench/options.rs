//! What a benchmark measures, and what it refuses to.

use crate::repetition::first_repeated;
use crate::{Error, threads};
use fewbit_evaluate::BatchShape;
use fewbit_model::WeightOnlyArithmetic;
use std::path::{Path, PathBuf};

/// Most tokens of one call; beyond it a number is taken for a mistake.
pub const MAXIMUM_CALL_TOKENS: usize = 1 << 20;

/// A model to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchModel {
    /// What it is called in the report.
    pub name: String,
    /// Model directory.
    pub directory: PathBuf,
}

impl BenchModel {
    /// Called by the last part of its path.
    pub fn from_directory(directory: impl AsRef<Path>) -> Self {
        let directory = directory.as_ref();
        let name = directory.file_name().unwrap_or(directory.as_os_str());
        BenchModel {
            name: name.to_string_lossy().into_owned(),
            directory: directory.to_owned(),
        }
    }
}

/// What to measure, and how long.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchOptions {
    /// Sequences in a batch; each with each of `tokens` and `threads`. Also the batch sizes of `texts`.
    pub batches: Vec<usize>,
    /// Tokens of every sequence.
    pub tokens: Vec<usize>,
    /// Worker threads. The first embedding is measured with the first of them.
    pub threads: Vec<usize>,
    /// Texts to embed, tokenization included.
    pub texts: Option<Vec<String>>,
    /// Seconds for which each model is timed at each shape, in all rounds together; a round takes one call at least.
    pub seconds: f64,
    /// Rounds over the models; in each of them texts are embedded once and the first embedding is measured once.
    pub rounds: usize,
    /// Whether to measure the stages of a pass, too.
    pub profile: bool,
    /// What layers compute with whose weights alone are int8; none: what
    /// [`WeightOnlyArithmetic::from_environment`] says.
    pub weight_only: Option<WeightOnlyArithmetic>,
}

impl Default for BenchOptions {
    /// Batches of 1, 8 and 32 with 16 and 128 tokens on one thread, a second each in five rounds.
    fn default() -> Self {
        BenchOptions {
            batches: vec![1, 8, 32],
            tokens: vec![16, 128],
            threads: vec![1],
            texts: None,
            seconds: 1.0,
            rounds: 5,
            profile: false,
            weight_only: None,
        }
    }
}

impl BenchOptions {
    /// How often [`bench()`](super::bench()) says what it does next with so many models, if nothing fails.
    pub fn steps(&self, models: usize) -> usize {
        let shapes = self.batches.len() * self.tokens.len();
        let profiles = if self.profile { shapes } else { 0 };
        let texts = self
            .texts
            .as_ref()
            .map_or(0, |_| self.batches.len() * self.threads.len());
        models + 1 + shapes * self.threads.len() + profiles + texts
    }

    /// Every batch with every number of tokens.
    pub(super) fn batch_shapes(&self) -> impl Iterator<Item = BatchShape> {
        self.batches.iter().flat_map(|&batch| {
            self.tokens
                .iter()
                .map(move |&tokens| BatchShape { batch, tokens })
        })
    }

    /// Every shape with every number of threads.
    pub(super) fn shapes(&self) -> impl Iterator<Item = (BatchShape, usize)> {
        self.batch_shapes()
            .flat_map(|shape| self.threads.iter().map(move |&threads| (shape, threads)))
    }

    /// Errors if this cannot be measured, whatever the models are.
    pub(super) fn check(&self, models: &[BenchModel]) -> Result<(), Error> {
        let refuse = |message: String| Err(Error::Bench(message));
        if models.is_empty() {
            return refuse("models: expected at least one, found none".to_owned());
        }
        for (name, numbers) in [
            ("batch", &self.batches),
            ("tokens", &self.tokens),
            ("threads", &self.threads),
        ] {
            if numbers.is_empty() {
                return refuse(format!("{name}: expected at least one number, found none"));
            }
            if numbers.contains(&0) {
                return refuse(format!("{name}: expected numbers from 1 on, found 0"));
            }
            if let Some(twice) = first_repeated(numbers) {
                return refuse(format!(
                    "{name}: expected each number once, found {twice} twice"
                ));
            }
        }
        for &count in &self.threads {
            threads::resolve(Some(count))?;
        }
        if let Some(shape) = self
            .batch_shapes()
            .find(|shape| shape.total_tokens() > MAXIMUM_CALL_TOKENS)
        {
            return refuse(format!(
                "a batch of {} with {} tokens each: expected at most {MAXIMUM_CALL_TOKENS} tokens in all, found {}\n  hint: measure a smaller batch; beyond some hundreds of tokens, the time of a batch grows with its size",
                shape.batch,
                shape.tokens,
                shape.total_tokens()
            ));
        }
        if !(self.seconds.is_finite() && self.seconds > 0.0) {
            return refuse(format!(
                "seconds: expected a number above 0, found {}",
                self.seconds
            ));
        }
        if self.rounds == 0 {
            return refuse("rounds: expected at least 1, found 0".to_owned());
        }
        Ok(())
    }

    /// Errors if a sequence is longer than the positions that the model `name` has.
    pub(super) fn check_positions(&self, name: &str, limit: usize) -> Result<(), Error> {
        match self.tokens.iter().find(|&&tokens| tokens > limit) {
            None => Ok(()),
            Some(tokens) => Err(Error::Bench(format!(
                "{name}: tokens: expected at most {limit}, found {tokens}\n  hint: this model has {limit} positions; give other numbers with --tokens"
            ))),
        }
    }
}
