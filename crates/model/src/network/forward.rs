//! One block of sequences through all layers.
//!
//! Only attention looks at other tokens. Everything else is done for some rows at a time, few enough that what passes
//! between the operations stays in the cache: from attention over the feed-forward to the queries, keys and values of
//! the next layer. These rows are also what several threads share out when there are fewer blocks than threads; of few
//! rows they share the columns of each product.

use super::block::Block;
use super::disentangled::DistanceRows;
use super::encoder_layer::{EncoderLayer, LayerNorm};
use super::plan::RowFormat;
use super::rotary::Rotations;
use super::scratch::{BlockScratch, KeysAndValues, LinearScratch, RowScratch, grow};
use super::thread_split::ThreadSplit;
use super::{BLOCK_TOKENS, Network};
use crate::ModelError;
use crate::finite::check_values;
use crate::packed_linear::{LinearEpilogue, LinearInput, PackedLinear};
use crate::profile::Stage;
use crate::shared_columns::with_threads_awake;
use crate::tap::Viewer;
use fewbit_kernels::{QuantizedRows, QuantizedSequence, RowScale};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use std::ops::Range;

/// Some rows of a block.
pub(super) struct Chunk<'a> {
    pub(super) rows: Range<usize>,
    /// (rows, hidden_size): the residual stream.
    pub(super) hidden: &'a mut [f32],
    /// (rows, query columns)
    pub(super) query: &'a mut [f32],
    /// (rows, key and value columns) of the next layer.
    pub(super) next_keys: &'a mut [f32],
    /// (rows, key and value columns) of the next layer.
    pub(super) next_values: &'a mut [f32],
}

/// Inputs that all rows of a block share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    pub(super) block: Block<'a>,
    pub(super) rotations: &'a [Rotations; 2],
    /// Keys and values of all tokens of the block.
    pub(super) keys_and_values: &'a KeysAndValues,
    /// The same in integers, where a sequence attends in integers.
    pub(super) sequences: &'a [QuantizedSequence],
    /// Rows of relative positions, where attention is disentangled.
    pub(super) distance_rows: &'a DistanceRows,
    /// (tokens, hidden_size): what is to be added to the output of the first layer, where there is a convolution.
    pub(super) convolution: &'a [f32],
}

impl Network {
    /// Writes the hidden states of a block to `hidden` (tokens, hidden_size). With more than one of `threads` its
    /// rows, or the columns of its products, are shared out to the threads of the current pool; `viewer` must then have no tap.
    pub(super) fn run_block(
        &self,
        block: Block<'_>,
        threads: usize,
        viewer: &mut Viewer<'_>,
        hidden: &mut [f32],
    ) -> Result<(), ModelError> {
        let tokens = block.tokens();
        let needs_all_rows = viewer.is_tapped() || self.plan.needs_whole_texts;
        let split = ThreadSplit::of(
            threads,
            if needs_all_rows { 1 } else { tokens },
            self.spec.hidden_size.min(self.spec.key_value_columns()),
        );
        let most_rows = match needs_all_rows {
            true => tokens,
            false => tokens.div_ceil(split.rows).min(self.plan.chunk_rows),
        };
        // Equal chunks: a short one at the end would read all weights for a few rows.
        let chunk_rows = tokens.div_ceil(tokens.div_ceil(most_rows));
        let mut scratch = self.block_scratch.take();
        scratch.fit(&self.spec, tokens.max(BLOCK_TOKENS));
        scratch.fit_distances(&self.spec, block.longest_sequence());
        let result = with_threads_awake(split.columns, || {
            (0..=self.passes.len()).try_for_each(|step| {
                self.step(step, block, chunk_rows, split, &mut scratch, viewer, hidden)?;
                viewer.show_hidden_states(step, self.spec.hidden_size, hidden);
                Ok::<_, ModelError>(())
            })
        });
        self.block_scratch.put(scratch);
        viewer.leave();
        result?;
        // What overflows in any other LayerNorm reaches a linear layer, which finds it.
        match self.passes.last() {
            None => Ok(()),
            Some(&layer) => {
                let layer = &self.layers[layer];
                let columns = self.spec.hidden_size;
                let last = self.final_norm.as_ref().unwrap_or(&layer.feed_forward_norm);
                check_values(hidden, columns, 0, &last.site, "output")
            }
        }
    }

    /// Step 0 embeds; step i > 0 is the layer of pass i - 1 from attention on; both end with the queries, keys and values of the layer of pass i.
    #[allow(clippy::too_many_arguments, reason = "the state of a block")]
    fn step(
        &self,
        step: usize,
        block: Block<'_>,
        chunk_rows: usize,
        split: ThreadSplit,
        scratch: &mut BlockScratch,
        viewer: &mut Viewer<'_>,
        hidden: &mut [f32],
    ) -> Result<(), ModelError> {
        let tokens = block.tokens();
        let columns = self.spec.hidden_size;
        let (query_columns, key_columns) =
            (self.spec.query_columns(), self.spec.key_value_columns());
        let BlockScratch {
            query,
            keys_and_values,
            next_keys_and_values: next,
            sequences,
            rotations,
            distance_rows,
            convolution: convolved,
        } = scratch;
        if let Some(layer) = self.layer_before(step) {
            if let Some(convolution) = &layer.convolution {
                viewer.enter(Stage::Embeddings);
                let (hidden, out) = (
                    &hidden[..tokens * columns],
                    &mut convolved[..tokens * columns],
                );
                self.convolve(convolution, block, hidden, out, split);
            }
            viewer.enter(Stage::Attention);
            self.quantize_sequences(layer, block, keys_and_values, sequences, split);
        }
        let shared = Shared {
            block,
            rotations,
            keys_and_values,
            sequences,
            distance_rows,
            convolution: convolved,
        };
        let chunks = (
            &mut hidden[..tokens * columns],
            &mut query[..tokens * query_columns],
            &mut next.keys[..tokens * key_columns],
            &mut next.values[..tokens * key_columns],
        );
        let [size, query_size, key_size] =
            [columns, query_columns, key_columns].map(|columns| chunk_rows * columns);
        let chunk = |index: usize, hidden, query, next_keys, next_values| Chunk {
            rows: index * chunk_rows..tokens.min((index + 1) * chunk_rows),
            hidden,
            query,
            next_keys,
            next_values,
        };
        if split.rows > 1 && tokens > chunk_rows {
            let (hidden, query, keys, values) = chunks;
            hidden
                .par_chunks_mut(size)
                .zip(query.par_chunks_mut(query_size))
                .zip(keys.par_chunks_mut(key_size))
                .zip(values.par_chunks_mut(key_size))
                .enumerate()
                .with_max_len(1)
                .try_for_each(|(index, (((hidden, query), keys), values))| {
                    let chunk = chunk(index, hidden, query, keys, values);
                    self.run_chunk(step, shared, chunk, 1, &mut Viewer::none())
                })?;
        } else {
            let (hidden, query, keys, values) = chunks;
            let chunks = hidden
                .chunks_mut(size)
                .zip(query.chunks_mut(query_size))
                .zip(keys.chunks_mut(key_size))
                .zip(values.chunks_mut(key_size));
            for (index, (((hidden, query), keys), values)) in chunks.enumerate() {
                let chunk = chunk(index, hidden, query, keys, values);
                self.run_chunk(step, shared, chunk, split.columns, viewer)?;
            }
        }
        std::mem::swap(keys_and_values, next);
        Ok(())
    }

    /// The layer that ends with `step`, if there is one.
    fn layer_before(&self, step: usize) -> Option<&EncoderLayer> {
        let pass = self.passes.get(step.checked_sub(1)?)?;
        Some(&self.layers[*pass])
    }

    fn run_chunk(
        &self,
        step: usize,
        shared: Shared<'_>,
        mut chunk: Chunk<'_>,
        threads: usize,
        viewer: &mut Viewer<'_>,
    ) -> Result<(), ModelError> {
        let mut scratch = self.row_scratch.take();
        scratch.fit(
            &self.spec,
            chunk.rows.len().max(self.plan.chunk_rows),
            threads,
        );
        let next = self.layer_before(step + 1);
        let result = match self.layer_before(step) {
            None => self.embed(shared, next, &mut chunk, &mut scratch, viewer),
            Some(layer) => self
                .attention(layer, shared, &mut chunk, &mut scratch, viewer)
                .and_then(|()| self.feed_forward(layer, &mut chunk, &mut scratch, viewer))
                .and_then(|()| {
                    self.finish_layer(layer, next, shared, &mut chunk, &mut scratch, viewer)
                }),
        };
        self.row_scratch.put(scratch);
        result
    }

    /// Queries, keys and values of `layer`, if there is one, for the chunk's rows, which `scratch.quantized` holds as `scale` says unless the
    /// layer normalizes what it reads.
    pub(super) fn project(
        &self,
        layer: Option<&EncoderLayer>,
        scale: Option<RowScale>,
        shared: Shared<'_>,
        chunk: &mut Chunk<'_>,
        scratch: &mut RowScratch,
        viewer: &mut Viewer<'_>,
    ) -> Result<(), ModelError> {
        let Some(layer) = layer else { return Ok(()) };
        let RowScratch {
            normalized,
            quantized,
            linear,
            ..
        } = scratch;
        let (values, scale) = match &layer.attention_norm {
            Some(norm) if self.spec.is_pre_norm() => {
                viewer.enter(Stage::AttentionNorm);
                let format = &layer.plan.attention_input;
                self.normalized(norm, chunk.hidden, normalized, format, quantized, viewer)?
            }
            _ => (&*chunk.hidden, scale),
        };
        viewer.enter(Stage::QueryKeyValue);
        let mut input = LinearInput::new(chunk.rows.len(), values, quantized, scale);
        let linears = [
            (&layer.query, &mut *chunk.query),
            (&layer.key, &mut *chunk.next_keys),
            (&layer.value, &mut *chunk.next_values),
        ];
        self.run_linears(linears, &mut input, LinearEpilogue::Store, linear, viewer)?;
        self.prepare_queries_and_keys(layer, shared, chunk, viewer);
        Ok(())
    }

    /// Residual stream, after attention, += the feed-forward of the chunk's tokens.
    fn feed_forward(
        &self,
        layer: &EncoderLayer,
        chunk: &mut Chunk<'_>,
        scratch: &mut RowScratch,
        viewer: &mut Viewer<'_>,
    ) -> Result<(), ModelError> {
        let RowScratch {
            normalized,
            intermediate,
            intermediate_codes,
            quantized,
            linear,
            ..
        } = scratch;
        let rows = chunk.rows.len();
        let hidden = &mut *chunk.hidden;
        viewer.enter(Stage::AttentionNorm);
        let format = &layer.plan.feed_forward_input;
        let (values, scale) = match &layer.attention_norm {
            Some(norm) if !self.spec.is_pre_norm() => {
                let scale = self.normalize(norm, hidden, format, quantized, viewer)?;
                (&*hidden, scale)
            }
            _ => {
                let norm = &layer.feed_forward_norm;
                self.normalized(norm, hidden, normalized, format, quantized, viewer)?
            }
        };

        viewer.enter(Stage::Intermediate);
        let mut input = LinearInput::new(rows, values, quantized, scale);
        let activation = self.spec.activation;
        let codes_scale = match layer.plan.intermediate_codes {
            // A tap wants to see the floats.
            Some(parameters) if !viewer.is_tapped() => layer
                .intermediate
                .forward_to_codes(
                    &mut input,
                    activation,
                    parameters,
                    intermediate_codes,
                    self.kernels,
                    linear.workspaces(),
                )?
                .then_some(RowScale::Static(parameters)),
            _ => None,
        };
        let mut input = match codes_scale {
            Some(scale) => LinearInput::of_codes(intermediate_codes, scale),
            None => {
                let length = rows * self.spec.intermediate_size;
                let intermediate = &mut intermediate[..length];
                let then = LinearEpilogue::Activate(activation);
                let first = [(&layer.intermediate, &mut *intermediate)];
                self.run_linears(first, &mut input, then, linear, viewer)?;
                if let Some(gate) = &layer.gate {
                    let gate = [(gate, &mut *intermediate)];
                    self.run_linears(gate, &mut input, LinearEpilogue::Multiply, linear, viewer)?;
                }
                // Not in `quantized`, whose rows would become longer and shorter again with every layer.
                LinearInput::new(rows, intermediate, intermediate_codes, None)
            }
        };

        viewer.enter(Stage::Output);
        let (output, norm) = (&layer.output, layer.output_norm.as_ref());
        self.add_to_stream(output, norm, &mut input, hidden, normalized, linear, viewer)
    }

    /// Residual stream += what `linear` gives of `input`, normalized first where the model has it so; `normalized` is a buffer
    /// (rows, hidden_size) that `input` does not read.
    #[allow(clippy::too_many_arguments, reason = "a layer, its norm, and buffers")]
    pub(super) fn add_to_stream(
        &self,
        linear: &PackedLinear,
        norm: Option<&LayerNorm>,
        input: &mut LinearInput<'_>,
        hidden: &mut [f32],
        normalized: &mut [f32],
        scratch: &mut LinearScratch,
        viewer: &mut Viewer<'_>,
    ) -> Result<(), ModelError> {
        let Some(norm) = norm else {
            return self.run_linears(
                [(linear, hidden)],
                input,
                LinearEpilogue::Add,
                scratch,
                viewer,
            );
        };
        let product = &mut normalized[..hidden.len()];
        self.run_linears(
            [(linear, &mut *product)],
            input,
            LinearEpilogue::Store,
            scratch,
            viewer,
        )?;
        self.kernels
            .layer_norm(product, None, norm.of(self.spec.norm));
        viewer.show_output(&norm.site, hidden.len() / input.rows(), product);
        self.kernels.add(hidden, product);
        Ok(())
    }

    /// Normalizes the residual stream after the feed-forward, where the layer does so, and computes the queries, keys and values of the next
    /// layer.
    fn finish_layer(
        &self,
        layer: &EncoderLayer,
        next: Option<&EncoderLayer>,
        shared: Shared<'_>,
        chunk: &mut Chunk<'_>,
        scratch: &mut RowScratch,
        viewer: &mut Viewer<'_>,
    ) -> Result<(), ModelError> {
        viewer.enter(Stage::OutputNorm);
        let norm = match (self.spec.is_pre_norm(), next) {
            (false, _) => Some(&layer.feed_forward_norm),
            (true, None) => self.final_norm.as_ref(),
            (true, Some(_)) => None,
        };
        let (format, quantized) = (input_of_attention(next), &mut scratch.quantized);
        let scale = match (norm, &layer.convolution) {
            (Some(norm), None) => self.normalize(norm, chunk.hidden, format, quantized, viewer)?,
            (Some(norm), Some(convolution)) => {
                self.normalize(norm, chunk.hidden, &RowFormat::Floats, quantized, viewer)?;
                let columns = self.spec.hidden_size;
                let rows = chunk.rows.start * columns..chunk.rows.end * columns;
                self.kernels.add(chunk.hidden, &shared.convolution[rows]);
                let norm = &convolution.norm;
                self.normalize(norm, chunk.hidden, format, quantized, viewer)?
            }
            (None, _) => None,
        };
        self.project(next, scale, shared, chunk, scratch, viewer)
    }

    /// [`Network::normalize`] of a copy of x in `out`; returns the normalized rows and their scale.
    fn normalized<'o>(
        &self,
        norm: &LayerNorm,
        x: &[f32],
        out: &'o mut [f32],
        format: &RowFormat,
        quantized: &mut QuantizedRows,
        viewer: &mut Viewer<'_>,
    ) -> Result<(&'o [f32], Option<RowScale>), ModelError> {
        let out = &mut out[..x.len()];
        out.copy_from_slice(x);
        let scale = self.normalize(norm, out, format, quantized, viewer)?;
        Ok((out, scale))
    }

    /// Normalizes x in place. Codes that `format` asks for go into `quantized`; returns their scale.
    pub(super) fn normalize(
        &self,
        norm: &LayerNorm,
        x: &mut [f32],
        format: &RowFormat,
        quantized: &mut QuantizedRows,
        viewer: &mut Viewer<'_>,
    ) -> Result<Option<RowScale>, ModelError> {
        let (columns, kernels) = (norm.gamma.len(), self.kernels);
        let what = norm.of(self.spec.norm);
        let scale = match format {
            RowFormat::Floats => {
                kernels.layer_norm(x, None, what);
                None
            }
            RowFormat::FloatsAndCodes { scale, reader } => {
                if !kernels.layer_norm_quantize(x, what, *scale, quantized) {
                    check_values(x, columns, 0, reader, "input")?;
                }
                Some(*scale)
            }
        };
        viewer.show_output(&norm.site, columns, x);
        Ok(scale)
    }

    /// Runs layers that read the same input, each with the epilogue `then` into its output (rows, out_features), and shows inputs and outputs
    /// to a tap.
    pub(super) fn run_linears<const N: usize>(
        &self,
        layers: [(&PackedLinear, &mut [f32]); N],
        input: &mut LinearInput<'_>,
        then: LinearEpilogue,
        scratch: &mut LinearScratch,
        viewer: &mut Viewer<'_>,
    ) -> Result<(), ModelError> {
        let (watched, workspaces) = scratch.parts();
        if !viewer.is_tapped() {
            return PackedLinear::forward(layers, input, then, self.kernels, workspaces);
        }
        // What comes after the product is done apart, so that the product exists: it gives the same bits.
        let mut store = |linear, out: &mut [f32], input: &mut LinearInput<'_>| {
            PackedLinear::forward(
                [(linear, out)],
                input,
                LinearEpilogue::Store,
                self.kernels,
                workspaces,
            )
        };
        for (linear, out) in layers {
            let columns = linear.out_features();
            viewer.show_input(linear.site(), linear.in_features(), input.values());
            if matches!(then, LinearEpilogue::Add | LinearEpilogue::Multiply) {
                grow(watched, out.len());
                let product = &mut watched[..out.len()];
                store(linear, product, input)?;
                viewer.show_output(linear.site(), columns, product);
                if then == LinearEpilogue::Add {
                    self.kernels.add(out, product);
                } else {
                    out.iter_mut().zip(product).for_each(|(x, y)| *x *= *y);
                }
            } else {
                store(linear, out, input)?;
                viewer.show_output(linear.site(), columns, out);
                if let LinearEpilogue::Activate(activation) = then {
                    self.kernels.activation(activation, out);
                }
            }
        }
        Ok(())
    }
}

/// The form in which queries, keys and values of `layer`, if there is one, read their rows.
pub(super) fn input_of_attention(layer: Option<&EncoderLayer>) -> &RowFormat {
    layer.map_or(&RowFormat::Floats, |layer| &layer.plan.attention_input)
}
