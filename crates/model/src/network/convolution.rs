//! The convolution beside the first layer: see [`crate::spec::Convolution`].

use super::Network;
use super::block::Block;
use super::encoder_layer::LayerNorm;
use super::scratch::{RowScratch, grow};
use super::thread_split::ThreadSplit;
use crate::spec;
use fewbit_kernels::{Epilogue, Kernels, OutputColumns, PackedFloat};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use std::ops::Range;

/// Rows that are computed together.
const ROWS: usize = 64;

pub(super) struct Convolution {
    spec: spec::Convolution,
    /// Of each group (columns / groups, size * columns / groups): of each output the weights of the first token, then of the second …
    weights: Vec<PackedFloat>,
    /// (columns)
    bias: Vec<f32>,
    /// Of the first layer's output with what the convolution gives.
    pub(super) norm: LayerNorm,
}

impl Convolution {
    /// `weight` is (columns, columns / groups, size), as PyTorch has it.
    pub(super) fn new(
        spec: spec::Convolution,
        weight: &[f32],
        bias: Vec<f32>,
        norm: LayerNorm,
    ) -> Self {
        let spec::Convolution { size, groups, .. } = spec;
        let of_group = bias.len() / groups;
        let pack = |weight: &[f32]| {
            let outputs = weight.chunks_exact(of_group * size);
            let by_token = outputs.flat_map(|output| {
                (0..size).flat_map(move |token| output[token..].iter().step_by(size).copied())
            });
            let by_token: Vec<f32> = by_token.collect();
            PackedFloat::from_f32(&by_token, of_group, of_group * size)
        };
        Self {
            spec,
            weights: weight
                .chunks_exact(of_group * of_group * size)
                .map(pack)
                .collect(),
            bias,
            norm,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let weights = self.weights.iter().map(PackedFloat::memory_bytes);
        weights.sum::<usize>() + size_of_val(self.bias.as_slice()) + self.norm.memory_bytes()
    }

    /// The activations of the rows `rows` of a block, to `out` (rows, columns). `hidden` (tokens, columns) has all rows of the block; beyond
    /// the ends of a sequence there are zeros.
    fn run(
        &self,
        block: Block<'_>,
        rows: Range<usize>,
        hidden: &[f32],
        out: &mut [f32],
        scratch: &mut RowScratch,
        kernels: &Kernels,
    ) {
        let spec::Convolution {
            size,
            groups,
            activation,
        } = self.spec;
        let columns = self.bias.len();
        let of_group = columns / groups;
        let RowScratch {
            windows,
            of_group: of_one_group,
            linear,
            ..
        } = scratch;
        grow(windows, rows.len() * size * of_group);
        grow(of_one_group, rows.len() * of_group);
        let windows = &mut windows[..rows.len() * size * of_group];
        let product = &mut of_one_group[..rows.len() * of_group];
        for (group, weight) in self.weights.iter().enumerate() {
            let first = group * of_group;
            for sequence in block.sequences_in(rows.clone()) {
                for row in sequence.start.max(rows.start)..sequence.end.min(rows.end) {
                    let start = (row - rows.start) * size * of_group;
                    let window = windows[start..].chunks_exact_mut(of_group);
                    for (token, window) in (row..row + size).zip(window) {
                        match token.checked_sub(size / 2) {
                            Some(token) if sequence.contains(&token) => {
                                let start = token * columns + first;
                                window.copy_from_slice(&hidden[start..start + of_group]);
                            }
                            _ => window.fill(0.0),
                        }
                    }
                }
            }
            let bias = &self.bias[first..first + of_group];
            let epilogue = Epilogue::activation(Some(bias), activation);
            let to = OutputColumns::of_matrix(product, of_group);
            kernels.linear_float(
                windows,
                rows.len(),
                weight,
                epilogue,
                to,
                linear.workspace(),
            );
            let rows = out.chunks_exact_mut(columns);
            for (row, product) in rows.zip(product.chunks_exact(of_group)) {
                row[first..first + of_group].copy_from_slice(product);
            }
        }
    }
}

impl Network {
    /// The activations of the convolution of all rows of a block, to `out` (tokens, hidden_size). `hidden` has the embeddings.
    pub(super) fn convolve(
        &self,
        convolution: &Convolution,
        block: Block<'_>,
        hidden: &[f32],
        out: &mut [f32],
        split: ThreadSplit,
    ) {
        let columns = self.spec.hidden_size;
        let run = |(index, out): (usize, &mut [f32])| {
            let mut scratch = self.row_scratch.take();
            scratch.linear.share(1);
            let first = index * ROWS;
            let rows = first..first + out.len() / columns;
            convolution.run(block, rows, hidden, out, &mut scratch, self.kernels);
            self.row_scratch.put(scratch);
        };
        if split.rows.max(split.columns) > 1 {
            out.par_chunks_mut(ROWS * columns).enumerate().for_each(run);
        } else {
            out.chunks_mut(ROWS * columns).enumerate().for_each(run);
        }
    }
}
