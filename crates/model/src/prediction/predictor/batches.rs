//! Texts in batches through a model.

use super::Predictor;
use crate::parallel_map::parallel_map;
use crate::tokenization::AlignedTokens;
use crate::{EncodeOptions, ModelError, RaggedBatch};

/// Tokens of one run of the model, and what came of them.
pub(super) struct Scored {
    pub(super) tokens: AlignedTokens,
    /// Rows of logits, one after the other: one of a text, one for each token, or those that were asked for.
    pub(super) logits: Vec<f32>,
}

/// Of which tokens the logits are wanted.
pub(super) type WantedTokens<'f> = dyn Fn(&AlignedTokens) -> Vec<usize> + 'f;

impl Predictor {
    /// Runs inputs and gives `finish` of each, in the order given. `tokenize` cuts an input into what is run; `wanted` says of which tokens
    /// the logits are wanted, where it is not of all.
    ///
    /// Inputs of like length are run together. A result has the same bits whatever the batch.
    pub(super) fn run<T: Sync, R>(
        &self,
        inputs: &[T],
        options: &EncodeOptions,
        length: impl Fn(&T) -> usize,
        tokenize: impl Fn(&T) -> Result<Vec<AlignedTokens>, ModelError> + Sync,
        wanted: Option<&WantedTokens<'_>>,
        mut finish: impl FnMut(&T, Vec<Scored>) -> Result<R, ModelError>,
    ) -> Result<Vec<R>, ModelError> {
        options.check()?;
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by_key(|&input| length(&inputs[input]));
        let mut results: Vec<Option<R>> = inputs.iter().map(|_| None).collect();
        for indices in order.chunks(options.batch_size) {
            let tokenized =
                parallel_map(indices, options.threads, |&index| tokenize(&inputs[index]))?;
            let runs: Vec<&AlignedTokens> = tokenized.iter().flatten().collect();
            let mut logits = Vec::with_capacity(runs.len());
            // A long context is several runs, which have to fit into a batch, too.
            for runs in runs.chunks(options.batch_size) {
                logits.extend(self.logits_of(runs, options.threads, wanted)?);
            }
            let mut logits = logits.into_iter();
            for (&index, tokens) in indices.iter().zip(tokenized) {
                let scored = tokens.into_iter().zip(logits.by_ref());
                let scored = scored.map(|(tokens, logits)| Scored { tokens, logits });
                results[index] = Some(finish(&inputs[index], scored.collect())?);
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// [`Predictor::run`] of inputs that are one run each.
    pub(super) fn run_whole<T: Sync, R>(
        &self,
        inputs: &[T],
        options: &EncodeOptions,
        length: impl Fn(&T) -> usize,
        tokenize: impl Fn(&T) -> Result<AlignedTokens, ModelError> + Sync,
        wanted: Option<&WantedTokens<'_>>,
        mut finish: impl FnMut(&T, Scored) -> Result<R, ModelError>,
    ) -> Result<Vec<R>, ModelError> {
        let tokenize = |input: &T| Ok(vec![tokenize(input)?]);
        self.run(inputs, options, length, tokenize, wanted, |input, runs| {
            let run = runs.into_iter().next().expect("a run for each input");
            finish(input, run)
        })
    }

    /// The logits of each run.
    fn logits_of(
        &self,
        runs: &[&AlignedTokens],
        threads: usize,
        wanted: Option<&WantedTokens<'_>>,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let has_types = self.model.network().spec().token_types > 1;
        let mut batch = RaggedBatch::new();
        for run in runs {
            let types: &[u32] = if has_types { &run.token_type_ids } else { &[] };
            batch.push(&run.token_ids, types);
        }
        let (logits, rows) = match wanted {
            Some(wanted) => {
                let wanted: Vec<Vec<usize>> = runs.iter().map(|run| wanted(run)).collect();
                let of_batch = wanted.iter().enumerate().flat_map(|(sequence, tokens)| {
                    let start = batch.range(sequence).start;
                    tokens.iter().map(move |token| start + token)
                });
                let tokens: Vec<usize> = of_batch.collect();
                let logits = self.model.logits_of_tokens(&batch, &tokens, threads)?;
                (logits, wanted.iter().map(Vec::len).collect())
            }
            None => {
                let logits = self.model.logits(&batch, threads)?;
                let rows: Vec<usize> = match self.task().is_of_tokens() {
                    true => runs.iter().map(|run| run.token_ids.len()).collect(),
                    false => vec![1; runs.len()],
                };
                (logits, rows)
            }
        };
        let mut values = logits.values.as_slice();
        Ok(rows
            .into_iter()
            .map(|rows| {
                let (own, others) = values.split_at(rows * logits.columns);
                values = others;
                own.to_vec()
            })
            .collect())
    }
}
