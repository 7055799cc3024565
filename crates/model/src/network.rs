//! The executor: runs every spec with every kind of weight.

mod attention;
mod block;
mod convolution;
mod disentangled;
mod embed;
mod encoder_layer;
mod forward;
mod head;
mod input_scales;
mod load;
mod plan;
mod relative_bias;
mod rotary;
mod scratch;
pub(crate) mod thread_pools;
mod thread_split;
mod window;

use crate::embeddings::EmbeddingTable;
use crate::packed_linear::PackedLinear;
use crate::profile::StageTimes;
use crate::tap::Viewer;
use crate::weight_only::WeightOnlyArithmetic;
use crate::weight_source::{FromCheckpoint, WeightSource};
use crate::{EncoderSpec, LoadLedger, ModelError, RaggedBatch, Tap};
use block::{Block, blocks};
use disentangled::PositionTable;
use encoder_layer::{EncoderLayer, LayerNorm};
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::{Arithmetic, Isa, Kernels};
pub(crate) use head::TaskHead;
pub(crate) use load::{load, load_with_head};
use plan::NetworkPlan;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use relative_bias::RelativeBias;
use scratch::{BlockScratch, Pool, RowScratch};
use thread_pools::ThreadPools;

/// Tokens of a block. Also what the buffers are sized for at first, so that they grow only for a longer sequence.
const BLOCK_TOKENS: usize = 256;

/// A batch of fewer tokens runs on one thread: several would wait for one another longer than they work.
const LEAST_SHARED_TOKENS: usize = 8;

/// A small batch on several threads is cut finer, but not below this.
const LEAST_BLOCK_TOKENS: usize = 64;

/// A loaded encoder: spec and weights; immutable, shareable between threads.
///
/// A batch is cut into blocks of whole sequences, at most 256 tokens each (a longer sequence is a block of its own), and
/// each block runs through all layers; threads take blocks, or share the rows of one, or the columns of its products, where
/// there are fewer blocks than threads. A sequence's hidden states have the same bits whatever else is in the batch, in whatever order, on however
/// many threads.
pub struct Network {
    spec: EncoderSpec,
    kernels: &'static Kernels,
    /// (vocab_size, embedding_size)
    word_embeddings: EmbeddingTable,
    /// (positions.count, embedding_size)
    position_embeddings: Option<EmbeddingTable>,
    /// (token_types, embedding_size)
    token_type_embeddings: Option<EmbeddingTable>,
    embeddings_norm: Option<LayerNorm>,
    embeddings_projection: Option<PackedLinear>,
    relative_bias: Option<RelativeBias>,
    /// Relative positions, where attention is disentangled.
    positions: Option<PositionTable>,
    layers: Vec<EncoderLayer>,
    /// The layers in the order in which they run.
    passes: Vec<usize>,
    final_norm: Option<LayerNorm>,
    plan: NetworkPlan,
    /// Buffers of earlier calls.
    block_scratch: Pool<BlockScratch>,
    row_scratch: Pool<RowScratch>,
    thread_pools: ThreadPools,
}

/// The kernels that this CPU runs best, or that the environment variable `FEWBIT_ISA` names.
pub(crate) fn kernels_from_environment() -> Result<&'static Kernels, ModelError> {
    Kernels::from_environment().map_err(|error| ModelError::Input(error.to_string()))
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
    /// the environment variable `FEWBIT_ISA` names), and the arithmetic of int8 weights that `FEWBIT_WEIGHT_ONLY` names.
    ///
    /// # Errors
    /// See [`EncoderSpec::from_checkpoint`]; a weight that is missing, has the wrong shape, holds NaN or infinity, or is
    /// stored in a way that cannot be run.
    pub fn load(checkpoint: &Checkpoint) -> Result<(Self, LoadLedger), ModelError> {
        Self::load_with_kernels(checkpoint, kernels_from_environment()?)
    }

    /// [`Network::load`] with the kernels of a certain instruction set.
    ///
    /// # Errors
    /// As [`Network::load`].
    pub fn load_with_kernels(
        checkpoint: &Checkpoint,
        kernels: &'static Kernels,
    ) -> Result<(Self, LoadLedger), ModelError> {
        Self::load_with(
            checkpoint,
            kernels,
            WeightOnlyArithmetic::from_environment()?,
        )
    }

    /// [`Network::load`] with the kernels of a certain instruction set and a certain arithmetic of int8 weights.
    ///
    /// # Errors
    /// As [`Network::load`].
    pub fn load_with(
        checkpoint: &Checkpoint,
        kernels: &'static Kernels,
        weight_only: WeightOnlyArithmetic,
    ) -> Result<(Self, LoadLedger), ModelError> {
        let spec = EncoderSpec::from_checkpoint(checkpoint)?;
        load(checkpoint, &FromCheckpoint, spec, kernels, weight_only)
    }

    /// [`Network::load`] with the weights that `weights` has in place of the checkpoint's.
    ///
    /// # Errors
    /// As [`Network::load`]; a weight of another shape than its module's, or with NaN or infinity.
    pub fn load_with_weights(
        checkpoint: &Checkpoint,
        weights: &dyn WeightSource,
    ) -> Result<(Self, LoadLedger), ModelError> {
        let spec = EncoderSpec::from_checkpoint(checkpoint)?;
        let arithmetic = WeightOnlyArithmetic::from_environment()?;
        let kernels = kernels_from_environment()?;
        load(checkpoint, weights, spec, kernels, arithmetic)
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
    /// [`ModelError::Input`]: `threads` is 0 or cannot be started; a sequence is empty, or longer than the model's positions; a token id or
    /// token type is not in the model's tables. [`ModelError::NonFinite`]: a value overflowed on the way.
    pub fn hidden_states(
        &self,
        batch: &RaggedBatch,
        threads: usize,
    ) -> Result<Vec<f32>, ModelError> {
        let mut states = Vec::new();
        self.hidden_states_into(batch, threads, &mut states)?;
        Ok(states)
    }

    /// [`Network::hidden_states`] into a buffer that is kept: with one thread and sequences that are no longer than before,
    /// nothing is allocated.
    ///
    /// # Errors
    /// As [`Network::hidden_states`]; the contents of `states` are then unspecified.
    pub fn hidden_states_into(
        &self,
        batch: &RaggedBatch,
        threads: usize,
        states: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        if threads == 0 {
            return Err(ModelError::Input(
                "threads: expected at least 1, found 0\n  hint: 1 runs on the calling thread"
                    .to_owned(),
            ));
        }
        self.check(batch, states)?;
        let block_tokens = batch
            .tokens()
            .div_ceil(threads)
            .clamp(LEAST_BLOCK_TOKENS, BLOCK_TOKENS);
        if threads == 1 || batch.tokens() < LEAST_SHARED_TOKENS {
            return self.run_blocks(batch, block_tokens, &mut Viewer::none(), states);
        }
        let result = self.thread_pools.with(threads, || {
            let work = self.cut(batch, block_tokens, states).collect::<Vec<_>>();
            let threads_of_block = threads.div_ceil(work.len());
            work.into_par_iter()
                .with_max_len(1)
                .try_for_each(|(block, out)| {
                    self.run_block(block, threads_of_block, &mut Viewer::none(), out)
                })
        })?;
        match result {
            // Several threads may fail, in any order: the error to report is the one that a single thread meets first.
            Err(ModelError::NonFinite { .. }) => {
                self.run_blocks(batch, block_tokens, &mut Viewer::none(), states)
            }
            result => result,
        }
    }

    /// [`Network::hidden_states`] on one thread, showing every wanted site to `tap`.
    ///
    /// # Errors
    /// As [`Network::hidden_states`].
    pub fn hidden_states_tapped(
        &self,
        batch: &RaggedBatch,
        tap: &mut dyn Tap,
    ) -> Result<Vec<f32>, ModelError> {
        self.run_viewed(batch, &mut Viewer::of(tap))
    }

    /// [`Network::hidden_states`] on one thread, adding the time of each stage to `times`.
    ///
    /// # Errors
    /// As [`Network::hidden_states`].
    pub fn hidden_states_profiled(
        &self,
        batch: &RaggedBatch,
        times: &mut StageTimes,
    ) -> Result<Vec<f32>, ModelError> {
        self.run_viewed(batch, &mut Viewer::timing(times))
    }

    fn run_viewed(
        &self,
        batch: &RaggedBatch,
        viewer: &mut Viewer<'_>,
    ) -> Result<Vec<f32>, ModelError> {
        let mut states = Vec::new();
        self.check(batch, &mut states)?;
        self.run_blocks(batch, BLOCK_TOKENS, viewer, &mut states)?;
        Ok(states)
    }

    /// Runs block after block on this thread.
    fn run_blocks(
        &self,
        batch: &RaggedBatch,
        block_tokens: usize,
        viewer: &mut Viewer<'_>,
        states: &mut [f32],
    ) -> Result<(), ModelError> {
        self.cut(batch, block_tokens, states)
            .try_for_each(|(block, out)| self.run_block(block, 1, viewer, out))
    }

    /// The blocks of a batch, each with its part of `states` (tokens, hidden_size).
    fn cut<'b>(
        &self,
        batch: &'b RaggedBatch,
        block_tokens: usize,
        mut states: &'b mut [f32],
    ) -> impl Iterator<Item = (Block<'b>, &'b mut [f32])> {
        let columns = self.spec.hidden_size;
        // Of at most one token: every text is a block of its own.
        let block_tokens = if self.plan.needs_whole_texts {
            1
        } else {
            block_tokens
        };
        blocks(batch, block_tokens).map(move |sequences| {
            let block = Block::new(batch, sequences);
            let (out, rest) = std::mem::take(&mut states).split_at_mut(block.tokens() * columns);
            states = rest;
            (block, out)
        })
    }

    /// The instruction set that it runs on.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    /// The arithmetic of most multiply-adds in its linear layers.
    pub fn arithmetic(&self) -> Arithmetic {
        self.plan.arithmetic
    }

    /// Bytes of parameters held in memory.
    pub fn memory_bytes(&self) -> usize {
        let tables = [
            Some(&self.word_embeddings),
            self.position_embeddings.as_ref(),
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
            .map_or(0, PackedLinear::memory_bytes);
        let relative_bias = self
            .relative_bias
            .as_ref()
            .map_or(0, RelativeBias::memory_bytes);
        let norms = [self.embeddings_norm.as_ref(), self.final_norm.as_ref()];
        let norms: usize = norms
            .into_iter()
            .flatten()
            .map(LayerNorm::memory_bytes)
            .sum();
        let positions = self
            .positions
            .as_ref()
            .map_or(0, PositionTable::memory_bytes);
        tables + norms + projection + relative_bias + positions + layers
    }

    /// Bytes of activation buffers kept for the next call: one set for each block and each chunk of rows that have run at
    /// the same time, for 256 tokens or the longest sequence, whichever is more.
    pub fn scratch_bytes(&self) -> usize {
        self.block_scratch.total(BlockScratch::memory_bytes)
            + self.row_scratch.total(RowScratch::memory_bytes)
    }

    /// Sizes the output buffer of a batch that can be run.
    fn check(&self, batch: &RaggedBatch, states: &mut Vec<f32>) -> Result<(), ModelError> {
        batch.check(&self.spec)?;
        let values = batch.tokens().checked_mul(self.spec.hidden_size).ok_or_else(|| {
            ModelError::Input(format!(
                "batch: hidden states of {} tokens do not fit in memory\n  hint: run fewer sequences at a time",
                batch.tokens()
            ))
        })?;
        states.resize(values, 0.0);
        Ok(())
    }
}
