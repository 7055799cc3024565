//! Attention of a block's tokens: the one operation that looks at other rows.

use super::Network;
use super::block::Block;
use super::encoder_layer::EncoderLayer;
use super::forward::{Chunk, Shared};
use super::relative_bias::RelativeBias;
use super::scratch::{KeysAndValues, RowScratch};
use super::thread_split::ThreadSplit;
use super::window::{Tile, Window};
use crate::ModelError;
use crate::packed_linear::LinearInput;
use crate::profile::Stage;
use crate::tap::Viewer;
use fewbit_kernels::{AttentionInput, QuantizedSequence, Workspace};
use std::ops::Range;

impl Network {
    /// Normalizes the heads of queries and keys of the chunk's rows and turns them by their positions, where the model has them so.
    pub(super) fn prepare_queries_and_keys(
        &self,
        layer: &EncoderLayer,
        shared: Shared<'_>,
        chunk: &mut Chunk<'_>,
        viewer: &mut Viewer<'_>,
    ) {
        if self.spec.rotary.is_none() && layer.query_norm.is_none() && layer.key_norm.is_none() {
            return;
        }
        viewer.enter(Stage::Attention);
        for (norm, rows) in [
            (&layer.query_norm, &mut *chunk.query),
            (&layer.key_norm, &mut *chunk.next_keys),
        ] {
            if let Some(norm) = norm {
                self.kernels.layer_norm(rows, None, norm.of(self.spec.norm));
                viewer.show_output(&norm.site, self.spec.head_size, rows);
            }
        }
        if self.spec.rotary.is_none() {
            return;
        }
        let rotations = &shared.rotations[usize::from(layer.local)];
        for sequence in shared.block.sequences_in(chunk.rows.clone()) {
            let start = sequence.start.max(chunk.rows.start);
            let end = sequence.end.min(chunk.rows.end);
            let in_chunk = start - chunk.rows.start..end - chunk.rows.start;
            let turns = rotations.of_positions(start - sequence.start..end - sequence.start);
            for (rows, columns) in [
                (&mut *chunk.query, self.spec.query_columns()),
                (&mut *chunk.next_keys, self.spec.key_value_columns()),
            ] {
                let rows = &mut rows[in_chunk.start * columns..in_chunk.end * columns];
                self.kernels
                    .rotate(rows, columns, turns, self.spec.head_size);
            }
        }
    }

    /// Quantizes the keys and values of each sequence that attends to them in integers: once for all of its queries.
    pub(super) fn quantize_sequences(
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
        let columns = self.spec.key_value_columns();
        let place = rows.start * columns..rows.end * columns;
        AttentionInput {
            queries: &[],
            query_tokens: 0..0,
            keys: &keys_and_values.keys[place.clone()],
            values: &keys_and_values.values[place],
            row_stride: self.spec.query_columns(),
            key_row_stride: columns,
            tokens: rows.len(),
            heads: self.spec.heads,
            key_value_heads: self.spec.key_value_heads,
            head_size: self.spec.head_size,
            scale: self.spec.score_scale,
            bias: None,
            positions: None,
        }
    }

    /// Residual stream += the projected attention of the chunk's tokens.
    pub(super) fn attention(
        &self,
        layer: &EncoderLayer,
        shared: Shared<'_>,
        chunk: &mut Chunk<'_>,
        scratch: &mut RowScratch,
        viewer: &mut Viewer<'_>,
    ) -> Result<(), ModelError> {
        viewer.enter(Stage::Attention);
        let columns = self.spec.query_columns();
        let RowScratch {
            context,
            normalized,
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
                positions: (!layer.positions.is_empty())
                    .then(|| layer.positions.of_distances(shared.distance_rows, columns)),
                ..self.keys_and_values_of(&sequence, shared.keys_and_values)
            };
            let (out, workspace) = (&mut context[in_chunk], linear.workspace());
            self.show_positions(layer, sequence.len(), viewer);
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
        let (projection, norm) = (
            &layer.attention_output,
            layer.attention_output_norm.as_ref(),
        );
        self.add_to_stream(
            projection,
            norm,
            &mut input,
            chunk.hidden,
            normalized,
            linear,
            viewer,
        )
    }

    /// Attention to the keys of a window.
    fn windowed_attention(
        &self,
        window: &Window,
        input: &AttentionInput<'_>,
        out: &mut [f32],
        workspace: &mut Workspace,
    ) {
        let (columns, first) = (input.row_stride, input.query_tokens.start);
        let key_columns = input.key_row_stride;
        for Tile { queries, keys } in window.tiles(input.query_tokens.clone(), input.tokens) {
            let of_tile = (queries.start - first) * columns..(queries.end - first) * columns;
            let of_keys = keys.start * key_columns..keys.end * key_columns;
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
}
