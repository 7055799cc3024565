//! One block of sequences through all layers.
//!
//! Only attention looks at other tokens. Everything else is done for some rows at a time, few enough that what passes
//! between the operations stays in the cache: from attention over the feed-forward to the queries, keys and values of
//! the next layer. These rows are also what several threads share out when there are fewer blocks than threads; of few
//! rows they share the columns of each product.

use super::block::Block;
use super::encoder_layer::{EncoderLayer, LayerNorm};
use super::plan::RowFormat;
use super::relative_bias::RelativeBias;
use super::rotary::Rotations;
use super::scratch::{BlockScratch, KeysAndValues, LinearScratch, RowScratch, grow};
use super::window::{Tile, Window};
use super::{BLOCK_TOKENS, Network};
use crate::ModelError;
use crate::finite::check_values;
use crate::packed_linear::{LinearEpilogue, LinearInput, PackedLinear};
use crate::profile::Stage;
use crate::shared_columns::with_threads_awake;
use crate::spec::NormPlacement;
use crate::tap::Viewer;
use fewbit_kernels::{
    AttentionInput, COLUMN_SPLIT, QuantizedRows, QuantizedSequence, RowScale, Workspace,
};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use std::ops::Range;

/// Several threads share the rows of a block where each gets at least this number, and the columns of each product where not.
const LEAST_SHARED_ROWS: usize = 32;

/// How the work on a block is split among threads: by chunks of rows, or by columns of each product.
#[derive(Clone, Copy)]
struct ThreadSplit {
    /// Threads that take chunks of rows.
    rows: usize,
    /// Threads that take columns of a product.
    columns: usize,
}

impl ThreadSplit {
    /// At most `threads` threads, as many as find work: in `rows` rows that can be shared out, or else in the columns of products, of which
    /// the narrowest has `columns`.
    fn of(threads: usize, rows: usize, columns: usize) -> Self {
        let by_rows = threads.min(rows / LEAST_SHARED_ROWS).max(1);
        let by_columns = threads.min(columns.div_ceil(COLUMN_SPLIT)).max(1);
        if by_rows >= by_columns {
            Self {
                rows: by_rows,
                columns: 1,
            }
        } else {
            Self {
                rows: 1,
                columns: by_columns,
            }
        }
    }
}

/// Some rows of a block.
struct Chunk<'a> {
    rows: Range<usize>,
    /// (rows, hidden_size): the residual stream.
    hidden: &'a mut [f32],
    /// (rows, hidden_size)
    query: &'a mut [f32],
    /// (rows, hidden_size) of the next layer.
    next_keys: &'a mut [f32],
    /// (rows, hidden_size) of the next layer.
    next_values: &'a mut [f32],
}

/// Inputs that all rows of a block share.
#[derive(Clone, Copy)]
struct Shared<'a> {
    block: Block<'a>,
    rotations: &'a [Rotations; 2],
    /// Keys and values of all tokens of the block.
    keys_and_values: &'a KeysAndValues,
    /// The same in integers, where a sequence attends in integers.
    sequences: &'a [QuantizedSequence],
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
            self.spec.hidden_size,
        );
        let most_rows = match needs_all_rows {
            true => tokens,
            false => tokens.div_ceil(split.rows).min(self.plan.chunk_rows),
        };
        // Equal chunks: a short one at the end would read all weights for a few rows.
        let chunk_rows = tokens.div_ceil(tokens.div_ceil(most_rows));
        let mut scratch = self.block_scratch.take();
        scratch.fit(&self.spec, tokens.max(BLOCK_TOKENS));
        scratch.fit_rotations(&self.spec, block.longest_sequence());
        let result = with_threads_awake(split.columns, || {
            (0..=self.layers.len()).try_for_each(|step| {
                self.step(step, block, chunk_rows, split, &mut scratch, viewer, hidden)
            })
        });
        self.block_scratch.put(scratch);
        viewer.leave();
        result?;
        // What overflows in any other LayerNorm reaches a linear layer, which finds it.
        match self.layers.last() {
            None => Ok(()),
            Some(layer) => {
                let columns = self.spec.hidden_size;
                let last = self.final_norm.as_ref().unwrap_or(&layer.feed_forward_norm);
                check_values(hidden, columns, 0, &last.site, "output")
            }
        }
    }

    /// Step 0 embeds; step i > 0 is layer i - 1 from attention on; both end with the queries, keys and values of layer i.
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
        let (tokens, columns) = (block.tokens(), self.spec.hidden_size);
        let BlockScratch {
            query,
            keys_and_values,
            next_keys_and_values: next,
            sequences,
            rotations,
        } = scratch;
        if let Some(layer) = step.checked_sub(1) {
            let layer = &self.layers[layer];
            viewer.enter(Stage::Attention);
            self.quantize_sequences(layer, block, keys_and_values, sequences, split);
        }
        let shared = Shared {
            block,
            rotations,
            keys_and_values,
            sequences,
        };
        let values = tokens * columns;
        let chunks = (
            &mut hidden[..values],
            &mut query[..values],
            &mut next.keys[..values],
            &mut next.values[..values],
        );
        let size = chunk_rows * columns;
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
                .zip(query.par_chunks_mut(size))
                .zip(keys.par_chunks_mut(size))
                .zip(values.par_chunks_mut(size))
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
                .zip(query.chunks_mut(size))
                .zip(keys.chunks_mut(size))
                .zip(values.chunks_mut(size));
            for (index, (((hidden, query), keys), values)) in chunks.enumerate() {
                let chunk = chunk(index, hidden, query, keys, values);
                self.run_chunk(step, shared, chunk, split.columns, viewer)?;
            }
        }
        std::mem::swap(keys_and_values, next);
        Ok(())
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
        let next = self.layers.get(step);
        let result = match step.checked_sub(1) {
            None => self.embed(shared, next, &mut chunk, &mut scratch, viewer),
            Some(layer) => {
                let layer = &self.layers[layer];
                self.attention(layer, shared, &mut chunk, &mut scratch, viewer)
                    .and_then(|()| self.feed_forward(layer, &mut chunk, &mut scratch, viewer))
                    .and_then(|()| {
                        self.finish_layer(layer, next, shared, &mut chunk, &mut scratch, viewer)
                    })
            }
        };
        self.row_scratch.put(scratch);
        result
    }

    /// The embeddings of the chunk's tokens, and the queries, keys and values of the first layer.
    fn embed(
        &self,
        shared: Shared<'_>,
        first: Option<&EncoderLayer>,
        chunk: &mut Chunk<'_>,
        scratch: &mut RowScratch,
        viewer: &mut Viewer<'_>,
    ) -> Result<(), ModelError> {
        viewer.enter(Stage::Embeddings);
        let RowScratch {
            embeddings,
            table_row,
            quantized,
            linear,
            ..
        } = scratch;
        let (rows, norm) = (chunk.rows.clone(), &self.embeddings_norm);
        let scale = match &self.embeddings_projection {
            None => {
                self.sum_embeddings(shared.block, rows, table_row, chunk.hidden);
                let format = input_of_attention(first);
                self.normalize(norm, chunk.hidden, format, quantized, viewer)?
            }
            Some(projection) => {
                let embeddings = &mut embeddings[..rows.len() * self.spec.embedding_size];
                self.sum_embeddings(shared.block, rows, table_row, embeddings);
                let format = &self.plan.projection_input;
                let scale = self.normalize(norm, embeddings, format, quantized, viewer)?;
                let mut input = LinearInput::new(chunk.rows.len(), embeddings, quantized, scale);
                let layer = [(projection, &mut *chunk.hidden)];
                self.run_linears(layer, &mut input, LinearEpilogue::Store, linear, viewer)?;
                None
            }
        };
        self.project(first, scale, shared, chunk, scratch, viewer)
    }

    /// Word + token type + position embedding of every token, in this order of additions, to `out`
    /// (rows, embedding_size); `table_row` is a buffer of one row or more.
    fn sum_embeddings(
        &self,
        block: Block<'_>,
        rows: Range<usize>,
        table_row: &mut [f32],
        out: &mut [f32],
    ) {
        let columns = self.spec.embedding_size;
        let table_row = &mut table_row[..columns];
        let tokens = block.tokens_in(rows, &self.spec);
        for (token, out) in tokens.zip(out.chunks_exact_mut(columns)) {
            self.word_embeddings.read(token.id, out);
            if let Some(table) = &self.token_type_embeddings {
                table.read(token.token_type, table_row);
                self.kernels.add(out, table_row);
            }
            if let Some(table) = &self.position_embeddings {
                table.read(token.position, table_row);
                self.kernels.add(out, table_row);
            }
        }
    }

    /// Queries, keys and values of `layer`, if there is one, for the chunk's rows, which `scratch.quantized` holds as `scale` says unless the
    /// layer normalizes what it reads.
    fn project(
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
            Some(norm) if self.is_pre_norm() => {
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
        self.turn_by_positions(layer, shared, chunk, viewer);
        Ok(())
    }

    /// Turns queries and keys of the chunk's rows by their positions, where the model has them so.
    fn turn_by_positions(
        &self,
        layer: &EncoderLayer,
        shared: Shared<'_>,
        chunk: &mut Chunk<'_>,
        viewer: &mut Viewer<'_>,
    ) {
        if self.spec.rotary.is_none() {
            return;
        }
        viewer.enter(Stage::Attention);
        let columns = self.spec.hidden_size;
        let rotations = &shared.rotations[usize::from(layer.window.is_some())];
        for sequence in shared.block.sequences_in(chunk.rows.clone()) {
            let start = sequence.start.max(chunk.rows.start);
            let end = sequence.end.min(chunk.rows.end);
            for row in start..end {
                let place =
                    (row - chunk.rows.start) * columns..(row + 1 - chunk.rows.start) * columns;
                rotations.turn(row - sequence.start, &mut chunk.query[place.clone()]);
                rotations.turn(row - sequence.start, &mut chunk.next_keys[place]);
            }
        }
    }

    /// Quantizes the keys and values of each sequence that attends to them in integers: once for all of its queries.
    fn quantize_sequences(
        &self,
        layer: &EncoderLayer,
        block: Block<'_>,
        keys_and_values: &KeysAndValues,
        sequences: &mut Vec<QuantizedSequence>,
        split: ThreadSplit,
    ) {
        let of_integers = || {
            block
                .sequences_in(0..block.tokens())
                .filter(|rows| layer.plan.attends_in_integers(rows.len()))
        };
        let count = of_integers().count();
        if sequences.len() < count {
            sequences.resize_with(count, QuantizedSequence::default);
        }
        let quantize = |rows: &Range<usize>, out: &mut QuantizedSequence| {
            let mut scratch = self.row_scratch.take();
            let input = self.keys_and_values_of(rows, keys_and_values);
            scratch.linear.share(1);
            let workspace = scratch.linear.workspace();
            self.kernels.quantize_sequence(&input, out, workspace);
            self.row_scratch.put(scratch);
        };
        let work = of_integers().zip(sequences);
        if split.rows.max(split.columns) > 1 {
            rayon::scope(|scope| {
                for (rows, out) in work {
                    let quantize = &quantize;
                    scope.spawn(move |_| quantize(&rows, out));
                }
            });
        } else {
            work.for_each(|(rows, out)| quantize(&rows, out));
        }
    }

    /// How many sequences before those of the chunk attend in integers.
    fn quantized_before(layer: &EncoderLayer, block: Block<'_>, chunk: &Chunk<'_>) -> usize {
        let start = chunk.rows.start;
        block
            .sequences_in(0..start)
            .filter(|rows| rows.end <= start && layer.plan.attends_in_integers(rows.len()))
            .count()
    }

    /// Attention to the keys and values of the tokens `rows` of a block, without a query.
    fn keys_and_values_of<'a>(
        &self,
        rows: &Range<usize>,
        keys_and_values: &'a KeysAndValues,
    ) -> AttentionInput<'a> {
        let columns = self.spec.hidden_size;
        let place = rows.start * columns..rows.end * columns;
        AttentionInput {
            queries: &[],
            query_tokens: 0..0,
            keys: &keys_and_values.keys[place.clone()],
            values: &keys_and_values.values[place],
            row_stride: columns,
            tokens: rows.len(),
            heads: self.spec.heads,
            head_size: self.spec.head_size(),
            scale: 1.0 / (self.spec.head_size() as f32).sqrt(),
            bias: None,
        }
    }

    /// Residual stream += the projected attention of the chunk's tokens.
    fn attention(
        &self,
        layer: &EncoderLayer,
        shared: Shared<'_>,
        chunk: &mut Chunk<'_>,
        scratch: &mut RowScratch,
        viewer: &mut Viewer<'_>,
    ) -> Result<(), ModelError> {
        viewer.enter(Stage::Attention);
        let columns = self.spec.hidden_size;
        let RowScratch {
            context,
            attention_bias,
            attention_bias_length,
            quantized,
            linear,
            ..
        } = scratch;
        let context = &mut context[..chunk.rows.len() * columns];
        let first_quantized = Self::quantized_before(layer, shared.block, chunk);
        let mut quantized_sequences = shared.sequences[first_quantized..].iter();
        for sequence in shared.block.sequences_in(chunk.rows.clone()) {
            let bias = self.relative_bias.as_ref().map(|bias| {
                if *attention_bias_length != sequence.len() {
                    bias.fill(sequence.len(), attention_bias);
                    *attention_bias_length = sequence.len();
                }
                RelativeBias::of_distances(sequence.len(), attention_bias)
            });
            let start = sequence.start.max(chunk.rows.start);
            let end = sequence.end.min(chunk.rows.end);
            let in_chunk = (start - chunk.rows.start) * columns..(end - chunk.rows.start) * columns;
            let queries = &chunk.query[in_chunk.clone()];
            let query_tokens = start - sequence.start..end - sequence.start;
            let input = AttentionInput {
                queries,
                query_tokens,
                bias,
                ..self.keys_and_values_of(&sequence, shared.keys_and_values)
            };
            let (out, workspace) = (&mut context[in_chunk], linear.workspace());
            if let Some(window) = &layer.window {
                self.windowed_attention(window, &input, out, workspace);
            } else if layer.plan.attends_in_integers(sequence.len()) {
                let sequence = quantized_sequences.next();
                let sequence = sequence.expect("one for each sequence that attends in integers");
                self.kernels.attend(&input, sequence, out, workspace);
            } else {
                self.kernels.attention(&input, out, workspace);
            }
        }
        viewer.enter(Stage::AttentionOutput);
        let mut input = LinearInput::new(chunk.rows.len(), context, quantized, None);
        let projection = [(&layer.attention_output, &mut *chunk.hidden)];
        self.run_linears(projection, &mut input, LinearEpilogue::Add, linear, viewer)
    }

    /// Attention to near keys only.
    fn windowed_attention(
        &self,
        window: &Window,
        input: &AttentionInput<'_>,
        out: &mut [f32],
        workspace: &mut Workspace,
    ) {
        let (columns, first) = (input.row_stride, input.query_tokens.start);
        for Tile { queries, keys } in window.tiles(input.query_tokens.clone(), input.tokens) {
            let of_tile = (queries.start - first) * columns..(queries.end - first) * columns;
            let of_keys = keys.start * columns..keys.end * columns;
            let tile = AttentionInput {
                queries: &input.queries[of_tile.clone()],
                query_tokens: queries.start - keys.start..queries.end - keys.start,
                keys: &input.keys[of_keys.clone()],
                values: &input.values[of_keys],
                tokens: keys.len(),
                bias: Some(window.bias()),
                ..*input
            };
            self.kernels.attention(&tile, &mut out[of_tile], workspace);
        }
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
            gate,
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
            Some(norm) if !self.is_pre_norm() => {
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
                if let Some(layer) = &layer.gate {
                    let gate = &mut gate[..length];
                    let factors = [(layer, &mut *gate)];
                    self.run_linears(factors, &mut input, LinearEpilogue::Store, linear, viewer)?;
                    for (value, factor) in intermediate.iter_mut().zip(gate) {
                        *value *= *factor;
                    }
                }
                // Not in `quantized`, whose rows would become longer and shorter again with every layer.
                LinearInput::new(rows, intermediate, intermediate_codes, None)
            }
        };

        viewer.enter(Stage::Output);
        let output = [(&layer.output, &mut *hidden)];
        self.run_linears(output, &mut input, LinearEpilogue::Add, linear, viewer)
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
        let norm = match (self.is_pre_norm(), next) {
            (false, _) => Some(&layer.feed_forward_norm),
            (true, None) => self.final_norm.as_ref(),
            (true, Some(_)) => None,
        };
        let scale = match norm {
            Some(norm) => {
                let format = input_of_attention(next);
                self.normalize(norm, chunk.hidden, format, &mut scratch.quantized, viewer)?
            }
            None => None,
        };
        self.project(next, scale, shared, chunk, scratch, viewer)
    }

    /// Whether layers normalize their inputs (pre-norm), instead of the residual stream after each addition (post-norm).
    fn is_pre_norm(&self) -> bool {
        self.spec.norms != NormPlacement::After
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
    fn normalize(
        &self,
        norm: &LayerNorm,
        x: &mut [f32],
        format: &RowFormat,
        quantized: &mut QuantizedRows,
        viewer: &mut Viewer<'_>,
    ) -> Result<Option<RowScale>, ModelError> {
        let (gamma, beta, epsilon) = (&norm.gamma, &norm.beta, self.spec.layer_norm_epsilon);
        let kernels = self.kernels;
        let scale = match format {
            RowFormat::Floats => {
                kernels.layer_norm(x, None, gamma, beta, epsilon);
                None
            }
            RowFormat::FloatsAndCodes { scale, reader } => {
                if !kernels.layer_norm_quantize(x, gamma, beta, epsilon, *scale, quantized) {
                    check_values(x, gamma.len(), 0, reader, "input")?;
                }
                Some(*scale)
            }
        };
        viewer.show_output(&norm.site, gamma.len(), x);
        Ok(scale)
    }

    /// Runs layers that read the same input, each with the epilogue `then` into its output (rows, out_features), and shows inputs and outputs
    /// to a tap.
    fn run_linears<const N: usize>(
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
            if then == LinearEpilogue::Add {
                grow(watched, out.len());
                let product = &mut watched[..out.len()];
                store(linear, product, input)?;
                viewer.show_output(linear.site(), columns, product);
                self.kernels.add(out, product);
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
fn input_of_attention(layer: Option<&EncoderLayer>) -> &RowFormat {
    layer.map_or(&RowFormat::Floats, |layer| &layer.plan.attention_input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_rows_where_these_occupy_as_many() {
        let split = |threads, rows| {
            let ThreadSplit { rows, columns } = ThreadSplit::of(threads, rows, 384);
            (rows, columns)
        };
        assert_eq!(split(1, 1), (1, 1));
        assert_eq!(split(1, 256), (1, 1));
        assert_eq!(split(2, 63), (1, 2));
        assert_eq!(split(2, 64), (2, 1));
        assert_eq!(split(4, 100), (1, 4));
        // A product of 384 columns has six parts.
        assert_eq!(split(64, 16), (1, 6));
        assert_eq!(split(64, 191), (1, 6));
        assert_eq!(split(64, 512), (16, 1));
    }
}
