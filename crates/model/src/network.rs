//! The executor: runs every spec with every kind of weight.

mod forward;
mod load;
pub(crate) mod relative_bias;
mod scratch;

use crate::embeddings::EmbeddingTable;
use crate::linear::Linear;
use crate::tap::Viewer;
use crate::{EncoderSpec, LoadLedger, ModelError, RaggedBatch, Tap};
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::Kernels;
use relative_bias::RelativeBias;
use scratch::Scratch;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Tokens of a block: enough rows to keep the matrix kernels busy, few enough that a block's activations stay in the cache
/// between operations.
const BLOCK_TOKENS: usize = 256;

/// A small batch on several threads is cut finer, but not below this.
const LEAST_BLOCK_TOKENS: usize = 64;

/// A loaded encoder: spec and weights; immutable, shareable between threads.
///
/// A batch is cut into blocks of whole sequences, about 256 tokens each (a longer sequence is a block of its own), and
/// each block runs through all layers on one thread. A sequence's hidden states have the same bits whatever else is in
/// the batch, in whatever order, on however many threads.
pub struct Network {
    spec: EncoderSpec,
    kernels: &'static Kernels,
    /// (vocab_size, embedding_size)
    word_embeddings: EmbeddingTable,
    /// (positions.count, embedding_size)
    position_embeddings: EmbeddingTable,
    /// (token_types, embedding_size)
    token_type_embeddings: Option<EmbeddingTable>,
    embeddings_norm: LayerNorm,
    embeddings_projection: Option<Linear>,
    relative_bias: Option<RelativeBias>,
    layers: Vec<EncoderLayer>,
    /// Buffers of earlier calls, one for each thread that ran.
    scratch: Mutex<Vec<Scratch>>,
}

struct EncoderLayer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

struct LayerNorm {
    /// Module path at sites.
    site: String,
    /// (columns)
    gamma: Vec<f32>,
    /// (columns)
    beta: Vec<f32>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("spec", &self.spec)
            .field("memory_bytes", &self.memory_bytes())
            .finish()
    }
}

impl Network {
    /// Loads every weight that the checkpoint's config.json asks for, with the kernels that this CPU runs best (or that
    /// the environment variable `FEWBIT_ISA` names).
    ///
    /// # Errors
    /// See [`EncoderSpec::from_checkpoint`]; a weight that is missing, has the wrong shape, holds NaN or infinity, or is
    /// stored in a way that cannot be run.
    pub fn load(checkpoint: &Checkpoint) -> Result<(Self, LoadLedger), ModelError> {
        let kernels =
            Kernels::from_environment().map_err(|error| ModelError::Input(error.to_string()))?;
        Self::load_with_kernels(checkpoint, kernels)
    }

    /// [`Network::load`] with the kernels of a certain instruction set.
    ///
    /// # Errors
    /// As [`Network::load`].
    pub fn load_with_kernels(
        checkpoint: &Checkpoint,
        kernels: &'static Kernels,
    ) -> Result<(Self, LoadLedger), ModelError> {
        let spec = EncoderSpec::from_checkpoint(checkpoint)?;
        load::load(checkpoint, spec, kernels)
    }

    /// What this network computes.
    pub fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    /// The kernels that it runs on.
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// Last hidden states (total tokens, hidden_size) of every sequence, computed in blocks of whole sequences on
    /// `threads` threads.
    ///
    /// # Errors
    /// [`ModelError::Input`]: `threads` is 0; a sequence is empty, longer than the model's positions or, in a model with
    /// relative attention bias, so long that the bias (heads, tokens, tokens) has more than 2^27 numbers; a token id or
    /// token type is not in the model's tables. [`ModelError::NonFinite`]: a value overflowed on the way.
    pub fn hidden_states(
        &self,
        batch: &RaggedBatch,
        threads: usize,
    ) -> Result<Vec<f32>, ModelError> {
        if threads == 0 {
            return Err(ModelError::Input(
                "threads: expected at least 1, found 0\n  hint: 1 runs on the calling thread"
                    .to_owned(),
            ));
        }
        let mut states = self.check(batch)?;
        let block_tokens = batch
            .tokens()
            .div_ceil(threads)
            .clamp(LEAST_BLOCK_TOKENS, BLOCK_TOKENS);
        let blocks = blocks(batch, block_tokens);
        let mut remaining = states.as_mut_slice();
        let work = blocks.into_iter().map(|block| {
            let tokens = batch.offsets[block.end] - batch.offsets[block.start];
            let (out, rest) =
                std::mem::take(&mut remaining).split_at_mut(tokens * self.spec.hidden_size);
            remaining = rest;
            (block, out)
        });
        let work: Vec<(Range<usize>, &mut [f32])> = work.collect();
        let workers = threads.min(work.len());
        if workers <= 1 {
            self.with_scratch(|scratch| {
                work.into_iter().try_for_each(|(block, out)| {
                    self.run_block(batch, block, scratch, &mut Viewer::nobody(), out)
                })
            })?;
            return Ok(states);
        }
        // From the end: callers that sort by length put the most work there, and it should start first.
        let queue = Mutex::new(work.into_iter().rev());
        let failure: Mutex<Option<(usize, ModelError)>> = Mutex::new(None);
        let run = || {
            self.with_scratch(|scratch| {
                loop {
                    let next = lock(&queue).next();
                    let Some((block, out)) = next else { break };
                    let first = block.start;
                    if let Err(error) =
                        self.run_block(batch, block, scratch, &mut Viewer::nobody(), out)
                    {
                        let mut failure = lock(&failure);
                        // The first in the batch's order, as one thread would have told.
                        if failure.as_ref().is_none_or(|(earlier, _)| first < *earlier) {
                            *failure = Some((first, error));
                        }
                    }
                }
            });
        };
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(run);
            }
            run();
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(states),
        }
    }

    /// The same on one thread, showing every wanted site to `tap`.
    ///
    /// # Errors
    /// As [`Network::hidden_states`].
    pub fn hidden_states_tapped(
        &self,
        batch: &RaggedBatch,
        tap: &mut dyn Tap,
    ) -> Result<Vec<f32>, ModelError> {
        let mut states = self.check(batch)?;
        let mut viewer = Viewer::of(tap);
        self.with_scratch(|scratch| {
            let mut remaining = states.as_mut_slice();
            for block in blocks(batch, BLOCK_TOKENS) {
                let tokens = batch.offsets[block.end] - batch.offsets[block.start];
                let (out, rest) = remaining.split_at_mut(tokens * self.spec.hidden_size);
                self.run_block(batch, block, scratch, &mut viewer, out)?;
                remaining = rest;
            }
            Ok::<(), ModelError>(())
        })?;
        Ok(states)
    }

    /// Bytes of parameters held in memory.
    pub fn memory_bytes(&self) -> usize {
        let tables = [
            Some(&self.word_embeddings),
            Some(&self.position_embeddings),
            self.token_type_embeddings.as_ref(),
        ];
        let tables: usize = tables
            .into_iter()
            .flatten()
            .map(EmbeddingTable::memory_bytes)
            .sum();
        let layers: usize = self.layers.iter().map(EncoderLayer::memory_bytes).sum();
        let projection = self
            .embeddings_projection
            .as_ref()
            .map_or(0, Linear::memory_bytes);
        let relative_bias = self
            .relative_bias
            .as_ref()
            .map_or(0, RelativeBias::memory_bytes);
        tables + self.embeddings_norm.memory_bytes() + projection + relative_bias + layers
    }

    /// Bytes of activation buffers kept for the next call: one set for each thread that has run at the same time, as
    /// large as its largest block needed.
    pub fn scratch_bytes(&self) -> usize {
        lock(&self.scratch).iter().map(Scratch::memory_bytes).sum()
    }

    /// The output buffer of a batch that can be run.
    fn check(&self, batch: &RaggedBatch) -> Result<Vec<f32>, ModelError> {
        batch.check(&self.spec)?;
        let values = batch.tokens().checked_mul(self.spec.hidden_size).ok_or_else(|| {
            ModelError::Input(format!(
                "batch: hidden states of {} tokens do not fit in memory\n  hint: run fewer sequences at a time",
                batch.tokens()
            ))
        })?;
        Ok(vec![0.0; values])
    }

    fn with_scratch<T>(&self, run: impl FnOnce(&mut Scratch) -> T) -> T {
        let mut scratch = lock(&self.scratch).pop().unwrap_or_default();
        let result = run(&mut scratch);
        lock(&self.scratch).push(scratch);
        result
    }
}

impl EncoderLayer {
    fn memory_bytes(&self) -> usize {
        let linear = [
            &self.query,
            &self.key,
            &self.value,
            &self.attention_output,
            &self.intermediate,
            &self.output,
        ];
        let norms = [&self.attention_norm, &self.output_norm];
        linear.into_iter().map(Linear::memory_bytes).sum::<usize>()
            + norms
                .into_iter()
                .map(LayerNorm::memory_bytes)
                .sum::<usize>()
    }
}

impl LayerNorm {
    fn memory_bytes(&self) -> usize {
        size_of_val(self.gamma.as_slice()) + size_of_val(self.beta.as_slice())
    }
}

/// What a poisoned lock guards here (a queue, a pool, a first error) is valid after any panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cuts a batch into ranges of sequences of at most `block_tokens` tokens; a longer sequence is a range of its own.
fn blocks(batch: &RaggedBatch, block_tokens: usize) -> Vec<Range<usize>> {
    let mut blocks: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for sequence in 0..batch.sequences() {
        let tokens = batch.offsets[sequence + 1] - batch.offsets[start];
        if tokens > block_tokens && sequence > start {
            blocks.push(start..sequence);
            start = sequence;
        }
    }
    if start < batch.sequences() {
        blocks.push(start..batch.sequences());
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(lengths: &[usize]) -> Vec<Range<usize>> {
        let mut batch = RaggedBatch::new();
        for &length in lengths {
            batch.push(&vec![0; length], &[]);
        }
        blocks(&batch, BLOCK_TOKENS)
    }

    #[test]
    fn blocks_hold_whole_sequences() {
        assert_eq!(lengths(&[]), Vec::<Range<usize>>::new());
        assert_eq!(lengths(&[1]), vec![0..1]);
        assert_eq!(lengths(&[128, 128, 1]), vec![0..2, 2..3]);
        assert_eq!(lengths(&[1, 5000, 1, 255, 1]), vec![0..1, 1..2, 2..4, 4..5]);
        assert_eq!(lengths(&[300, 300]), vec![0..1, 1..2]);
    }
}
