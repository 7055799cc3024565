//! One block of sequences through all layers.

use super::{EncoderLayer, LayerNorm, Network, Scratch};
use crate::finite::check_values;
use crate::linear::{Linear, LinearInput};
use crate::tap::Viewer;
use crate::{ModelError, RaggedBatch};
use fewbit_kernels::{AttentionInput, Kernels, Workspace};
use std::ops::Range;

/// Sequences of a block: token ranges relative to the block's first token.
struct Block {
    sequences: Vec<Range<usize>>,
    tokens: usize,
}

impl Network {
    /// Writes the hidden states of the sequences `block` of `batch`, which has been checked, to `out`
    /// (tokens, hidden_size).
    pub(super) fn run_block(
        &self,
        batch: &RaggedBatch,
        block: Range<usize>,
        scratch: &mut Scratch,
        viewer: &mut Viewer<'_>,
        out: &mut [f32],
    ) -> Result<(), ModelError> {
        let first = batch.offsets[block.start];
        let sequences: Vec<_> = block
            .map(|sequence| batch.range(sequence))
            .map(|range| range.start - first..range.end - first)
            .collect();
        let tokens = sequences.last().map_or(0, |range| range.end);
        let block = Block { sequences, tokens };
        let token_ids = &batch.token_ids[first..first + tokens];
        let token_types = batch
            .token_type_ids
            .get(first..first + tokens)
            .unwrap_or_default();
        scratch.fit(&self.spec, tokens);
        self.embed(&block, token_ids, token_types, scratch, viewer)?;
        for layer in &self.layers {
            self.attention(layer, &block, scratch, viewer)?;
            self.feed_forward(layer, tokens, scratch, viewer)?;
        }
        out.copy_from_slice(&scratch.hidden[..out.len()]);
        // What overflows in any other LayerNorm reaches a linear layer, which finds it.
        match self.layers.last() {
            None => Ok(()),
            Some(layer) => check_values(
                out,
                self.spec.hidden_size,
                0,
                &layer.output_norm.site,
                "output",
            ),
        }
    }

    /// Fills `scratch.hidden`.
    fn embed(
        &self,
        block: &Block,
        token_ids: &[u32],
        token_types: &[u32],
        scratch: &mut Scratch,
        viewer: &mut Viewer<'_>,
    ) -> Result<(), ModelError> {
        let Scratch {
            embeddings,
            hidden,
            row,
            quantized,
            workspace,
            ..
        } = scratch;
        let values = block.tokens * self.spec.embedding_size;
        match &self.embeddings_projection {
            None => {
                let embeddings = &mut hidden[..values];
                self.sum_embeddings(block, token_ids, token_types, row, embeddings);
                self.normalize(&self.embeddings_norm, embeddings, None, viewer);
                Ok(())
            }
            Some(projection) => {
                let embeddings = &mut embeddings[..values];
                self.sum_embeddings(block, token_ids, token_types, row, embeddings);
                self.normalize(&self.embeddings_norm, embeddings, None, viewer);
                let mut input = LinearInput::new(embeddings, block.tokens, quantized);
                run_linear(
                    projection,
                    &mut input,
                    hidden,
                    self.kernels,
                    workspace,
                    viewer,
                )
            }
        }
    }

    /// Word + token type + position embedding of every token, in this order of additions, to `out`
    /// (tokens, embedding_size); `row` is a buffer of one row or more.
    fn sum_embeddings(
        &self,
        block: &Block,
        token_ids: &[u32],
        token_types: &[u32],
        row: &mut [f32],
        out: &mut [f32],
    ) {
        let columns = self.spec.embedding_size;
        let row = &mut row[..columns];
        for sequence in &block.sequences {
            let mut next_position = self
                .spec
                .positions
                .padding_id
                .map_or(0, |padding_id| padding_id as usize + 1);
            for token in sequence.clone() {
                let id = token_ids[token];
                let position = if self.spec.positions.padding_id == Some(id) {
                    id as usize
                } else {
                    next_position += 1;
                    next_position - 1
                };
                let out = &mut out[token * columns..(token + 1) * columns];
                self.word_embeddings.read(id as usize, out);
                if let Some(table) = &self.token_type_embeddings {
                    table.read(token_types.get(token).map_or(0, |&kind| kind as usize), row);
                    self.kernels.add(out, row);
                }
                self.position_embeddings.read(position, row);
                self.kernels.add(out, row);
            }
        }
    }

    /// `scratch.hidden` = LayerNorm(hidden + attention(hidden)).
    fn attention(
        &self,
        layer: &EncoderLayer,
        block: &Block,
        scratch: &mut Scratch,
        viewer: &mut Viewer<'_>,
    ) -> Result<(), ModelError> {
        let (tokens, columns, kernels) = (block.tokens, self.spec.hidden_size, self.kernels);
        let Scratch {
            hidden,
            query,
            key,
            value,
            context,
            projected,
            quantized,
            workspace,
            ..
        } = scratch;
        let mut input = LinearInput::new(&hidden[..tokens * columns], tokens, quantized);
        run_linear(&layer.query, &mut input, query, kernels, workspace, viewer)?;
        run_linear(&layer.key, &mut input, key, kernels, workspace, viewer)?;
        run_linear(&layer.value, &mut input, value, kernels, workspace, viewer)?;
        for sequence in &block.sequences {
            let bias = match &self.relative_bias {
                None => None,
                Some(bias) => {
                    if scratch.attention_bias_length != sequence.len() {
                        bias.fill(sequence.len(), &mut scratch.attention_bias);
                        scratch.attention_bias_length = sequence.len();
                    }
                    Some(scratch.attention_bias.as_slice())
                }
            };
            let rows = sequence.start * columns..sequence.end * columns;
            let input = AttentionInput {
                queries: &query[rows.clone()],
                keys: &key[rows.clone()],
                values: &value[rows.clone()],
                row_stride: columns,
                tokens: sequence.len(),
                heads: self.spec.heads,
                head_size: self.spec.head_size(),
                scale: 1.0 / (self.spec.head_size() as f32).sqrt(),
                bias,
            };
            kernels.attention(&input, &mut context[rows], workspace);
        }
        let mut input = LinearInput::new(&context[..tokens * columns], tokens, quantized);
        run_linear(
            &layer.attention_output,
            &mut input,
            projected,
            kernels,
            workspace,
            viewer,
        )?;
        let projected = &mut projected[..tokens * columns];
        self.normalize(
            &layer.attention_norm,
            projected,
            Some(&hidden[..tokens * columns]),
            viewer,
        );
        std::mem::swap(&mut scratch.hidden, &mut scratch.projected);
        Ok(())
    }

    /// `scratch.hidden` = LayerNorm(hidden + feed_forward(hidden)).
    fn feed_forward(
        &self,
        layer: &EncoderLayer,
        tokens: usize,
        scratch: &mut Scratch,
        viewer: &mut Viewer<'_>,
    ) -> Result<(), ModelError> {
        let (hidden_size, kernels) = (self.spec.hidden_size, self.kernels);
        let Scratch {
            hidden,
            projected,
            intermediate,
            quantized,
            workspace,
            ..
        } = scratch;
        let residual = &hidden[..tokens * hidden_size];
        let mut input = LinearInput::new(residual, tokens, quantized);
        run_linear(
            &layer.intermediate,
            &mut input,
            intermediate,
            kernels,
            workspace,
            viewer,
        )?;
        let intermediate = &mut intermediate[..tokens * self.spec.intermediate_size];
        kernels.activation(self.spec.activation, intermediate);
        let mut input = LinearInput::new(intermediate, tokens, quantized);
        run_linear(
            &layer.output,
            &mut input,
            projected,
            kernels,
            workspace,
            viewer,
        )?;
        self.normalize(
            &layer.output_norm,
            &mut projected[..tokens * hidden_size],
            Some(residual),
            viewer,
        );
        std::mem::swap(&mut scratch.hidden, &mut scratch.projected);
        Ok(())
    }

    fn normalize(
        &self,
        norm: &LayerNorm,
        x: &mut [f32],
        residual: Option<&[f32]>,
        viewer: &mut Viewer<'_>,
    ) {
        self.kernels.layer_norm(
            x,
            residual,
            &norm.gamma,
            &norm.beta,
            self.spec.layer_norm_epsilon,
        );
        viewer.show_output(&norm.site, norm.gamma.len(), x);
    }
}

/// Runs `linear` into the first rows of `out`, which may be larger.
fn run_linear(
    linear: &Linear,
    input: &mut LinearInput<'_>,
    out: &mut [f32],
    kernels: &Kernels,
    workspace: &mut Workspace,
    viewer: &mut Viewer<'_>,
) -> Result<(), ModelError> {
    viewer.show_input(linear.site(), linear.in_features(), input.values());
    let rows = input.values().len() / linear.in_features();
    let out = &mut out[..rows * linear.out_features()];
    linear.forward(input, out, kernels, workspace)?;
    viewer.show_output(linear.site(), linear.out_features(), out);
    Ok(())
}
