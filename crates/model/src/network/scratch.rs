//! Activation buffers, reused from block to block and from call to call.

use super::disentangled::DistanceRows;
use super::rotary::Rotations;
use crate::EncoderSpec;
use fewbit_kernels::{QuantizedRows, QuantizedSequence, Workspace};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers of a block: each holds a row for every token.
#[derive(Default)]
pub(super) struct BlockScratch {
    /// (tokens, query columns)
    pub(super) query: Vec<f32>,
    pub(super) keys_and_values: KeysAndValues,
    /// Those of the next layer: a layer's rows give them while other rows still read this layer's.
    pub(super) next_keys_and_values: KeysAndValues,
    /// `keys_and_values` of the sequences of the block that attend in integers, one after the other.
    pub(super) sequences: Vec<QuantizedSequence>,
    /// Of global and of local layers, where the model has rotary positions.
    pub(super) rotations: [Rotations; 2],
    /// Rows of relative positions, where attention is disentangled.
    pub(super) distance_rows: DistanceRows,
    /// (tokens, hidden_size): what the convolution gives, where there is one.
    pub(super) convolution: Vec<f32>,
}

#[derive(Default)]
pub(super) struct KeysAndValues {
    /// (tokens, key and value columns)
    pub(super) keys: Vec<f32>,
    /// (tokens, key and value columns)
    pub(super) values: Vec<f32>,
}

impl BlockScratch {
    /// Makes every buffer large enough for a block of `tokens`.
    pub(super) fn fit(&mut self, spec: &EncoderSpec, tokens: usize) {
        grow(&mut self.query, tokens * spec.query_columns());
        for buffer in [
            &mut self.keys_and_values.keys,
            &mut self.keys_and_values.values,
            &mut self.next_keys_and_values.keys,
            &mut self.next_keys_and_values.values,
        ] {
            grow(buffer, tokens * spec.key_value_columns());
        }
        if spec.convolution.is_some() {
            grow(&mut self.convolution, tokens * spec.hidden_size);
        }
    }

    /// Makes rotations and rows of relative positions for a sequence of `tokens`.
    pub(super) fn fit_distances(&mut self, spec: &EncoderSpec, tokens: usize) {
        if let Some(disentangled) = spec.disentangled {
            self.distance_rows.fit(tokens, disentangled);
        }
        if let Some(rotary) = &spec.rotary {
            let of_layers = [&rotary.global, &rotary.local];
            for (rotations, frequencies) in self.rotations.iter_mut().zip(of_layers) {
                rotations.fit(tokens, frequencies);
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let KeysAndValues { keys, values } = &self.keys_and_values;
        let next = &self.next_keys_and_values;
        let buffers = [keys, values, &next.keys, &next.values];
        buffers
            .into_iter()
            .chain([&self.query, &self.convolution])
            .map(|buffer| buffer.capacity() * size_of::<f32>())
            .sum::<usize>()
            + self
                .sequences
                .iter()
                .map(QuantizedSequence::memory_bytes)
                .sum::<usize>()
            + self.distance_rows.memory_bytes()
            + self
                .rotations
                .iter()
                .map(Rotations::memory_bytes)
                .sum::<usize>()
    }
}

/// Buffers of a thread for the rows that it works on.
#[derive(Default)]
pub(super) struct RowScratch {
    /// (rows, embedding_size), used where a projection follows the embeddings.
    pub(super) embeddings: Vec<f32>,
    /// One row (embedding_size).
    pub(super) table_row: Vec<f32>,
    /// (rows, query columns): what attention gives.
    pub(super) context: Vec<f32>,
    /// (rows, hidden_size): what layers that normalize their input read, or give where that is normalized.
    pub(super) normalized: Vec<f32>,
    /// (rows, intermediate_size)
    pub(super) intermediate: Vec<f32>,
    /// (rows, intermediate_size): the codes of `intermediate`, or what it would hold, where only a layer with static activations reads it.
    pub(super) intermediate_codes: QuantizedRows,
    /// (heads, 2 * length - 1) for sequences of `attention_bias_length` tokens.
    pub(super) attention_bias: Vec<f32>,
    pub(super) attention_bias_length: usize,
    /// (rows, size * columns of a group): what a group of the convolution looks at, and (rows, columns of a group) what it gives.
    pub(super) windows: Vec<f32>,
    pub(super) of_group: Vec<f32>,
    pub(super) quantized: QuantizedRows,
    pub(super) linear: LinearScratch,
}

/// Buffers of linear layers.
#[derive(Default)]
pub(super) struct LinearScratch {
    /// (rows, columns) of a product that a tap sees before it is added to the residual stream.
    watched: Vec<f32>,
    /// One for each thread that shares a product, or more.
    workspaces: Vec<Workspace>,
    /// Threads that share a product.
    threads: usize,
}

impl LinearScratch {
    /// Prepares for products that are shared by `threads` threads.
    pub(super) fn share(&mut self, threads: usize) {
        if self.workspaces.len() < threads {
            self.workspaces.resize_with(threads, Workspace::default);
        }
        self.threads = threads;
    }

    /// The buffer for a product that a tap sees, and a workspace for each thread.
    pub(super) fn parts(&mut self) -> (&mut Vec<f32>, &mut [Workspace]) {
        (&mut self.watched, &mut self.workspaces[..self.threads])
    }

    /// A workspace for each thread.
    pub(super) fn workspaces(&mut self) -> &mut [Workspace] {
        self.parts().1
    }

    /// The workspace of the calling thread.
    pub(super) fn workspace(&mut self) -> &mut Workspace {
        &mut self.workspaces()[0]
    }
}

impl RowScratch {
    /// Makes every buffer large enough for `rows` tokens, and products shared by `threads` threads.
    pub(super) fn fit(&mut self, spec: &EncoderSpec, rows: usize, threads: usize) {
        self.linear.share(threads);
        if spec.has_embeddings_projection() {
            grow(&mut self.embeddings, rows * spec.embedding_size);
        }
        grow(&mut self.table_row, spec.embedding_size);
        grow(&mut self.context, rows * spec.query_columns());
        grow(&mut self.intermediate, rows * spec.intermediate_size);
        if spec.is_pre_norm() {
            grow(&mut self.normalized, rows * spec.hidden_size);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let floats = [
            &self.embeddings,
            &self.table_row,
            &self.context,
            &self.normalized,
            &self.intermediate,
            &self.linear.watched,
            &self.attention_bias,
            &self.windows,
            &self.of_group,
        ];
        floats
            .into_iter()
            .map(|buffer| buffer.capacity() * size_of::<f32>())
            .sum::<usize>()
            + self.quantized.memory_bytes()
            + self.intermediate_codes.memory_bytes()
            + self
                .linear
                .workspaces
                .iter()
                .map(Workspace::memory_bytes)
                .sum::<usize>()
    }
}

/// Makes `buffer` hold at least `length` numbers.
pub(super) fn grow(buffer: &mut Vec<f32>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
}

/// Buffers that are not in use at the moment: with those in use as many as ever were at the same time.
#[derive(Default)]
pub(super) struct Pool<T>(Mutex<Vec<T>>);

impl<T: Default> Pool<T> {
    pub(super) fn take(&self) -> T {
        self.lock().pop().unwrap_or_default()
    }

    pub(super) fn put(&self, buffers: T) {
        self.lock().push(buffers);
    }

    pub(super) fn total(&self, bytes: impl Fn(&T) -> usize) -> usize {
        self.lock().iter().map(bytes).sum()
    }

    /// A pool is valid after any panic: pushing and popping cannot stop half-way.
    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
