//! The embeddings of a block's tokens.

use super::Network;
use super::block::Block;
use super::encoder_layer::EncoderLayer;
use super::forward::{Chunk, Shared, input_of_attention};
use super::scratch::RowScratch;
use crate::ModelError;
use crate::packed_linear::{LinearEpilogue, LinearInput};
use crate::profile::Stage;
use crate::spec::EmbeddingsProjection;
use crate::tap::Viewer;
use std::ops::Range;

impl Network {
    /// The embeddings of the chunk's tokens, and the queries, keys and values of the first layer.
    pub(super) fn embed(
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
        let (rows, norm) = (chunk.rows.clone(), self.embeddings_norm.as_ref());
        // Normalized before the projection, if there is one, or after it.
        let norm_is_last = self.embeddings_projection.is_none()
            || self.spec.embeddings_projection == EmbeddingsProjection::BeforeNormIfNarrower;
        let (norm_before, norm_after) = match norm_is_last {
            true => (None, norm),
            false => (norm, None),
        };
        match &self.embeddings_projection {
            None => self.sum_embeddings(shared.block, rows, table_row, chunk.hidden),
            Some(projection) => {
                let embeddings = &mut embeddings[..rows.len() * self.spec.embedding_size];
                self.sum_embeddings(shared.block, rows, table_row, embeddings);
                let format = &self.plan.projection_input;
                let scale = match norm_before {
                    Some(norm) => self.normalize(norm, embeddings, format, quantized, viewer)?,
                    None => None,
                };
                let mut input = LinearInput::new(chunk.rows.len(), embeddings, quantized, scale);
                let layer = [(projection, &mut *chunk.hidden)];
                self.run_linears(layer, &mut input, LinearEpilogue::Store, linear, viewer)?;
            }
        }
        let format = input_of_attention(first);
        let scale = match norm_after {
            Some(norm) => self.normalize(norm, chunk.hidden, format, quantized, viewer)?,
            None => None,
        };
        self.project(first, scale, shared, chunk, scratch, viewer)
    }

    /// Scaled word + token type + position embedding of every token, in this order of additions, to `out`
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
            if self.spec.embedding_scale != 1.0 {
                out.iter_mut()
                    .for_each(|value| *value *= self.spec.embedding_scale);
            }
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
}
