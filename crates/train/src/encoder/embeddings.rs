//! The embeddings of tokens, which training does not change.

use candle_core::{Device, Tensor};
use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Catalogue, EmbeddingTable, EncoderSpec, RaggedBatch, Role};

use super::missing_role;
use crate::TrainError;

/// The tables that the embedding of a token is the sum of.
#[derive(Debug)]
pub(super) struct EmbeddingTables {
    words: EmbeddingTable,
    token_types: Option<EmbeddingTable>,
    positions: Option<EmbeddingTable>,
}

impl EmbeddingTables {
    pub(super) fn read(catalogue: &Catalogue, checkpoint: &Checkpoint) -> Result<Self, TrainError> {
        let table = |role| {
            let module = catalogue.get(role, None);
            let table = module.map(|module| EmbeddingTable::of_module(checkpoint, module));
            table.transpose()
        };
        let words = table(Role::WordEmbeddings)?;
        Ok(Self {
            words: words.ok_or_else(|| missing_role(Role::WordEmbeddings, catalogue))?,
            token_types: table(Role::TokenTypeEmbeddings)?,
            positions: table(Role::PositionEmbeddings)?,
        })
    }

    /// Scaled word + token type + position embedding of each token of a batch that has been checked, in this order of additions:
    /// (tokens, embedding size).
    pub(super) fn sum(
        &self,
        spec: &EncoderSpec,
        batch: &RaggedBatch,
    ) -> Result<Tensor, TrainError> {
        let columns = spec.embedding_size;
        let mut sums = vec![0.0; batch.tokens() * columns];
        let mut row = vec![0.0; columns];
        let positions = batch.positions(spec);
        let tokens = batch.token_ids.iter().zip(positions).enumerate();
        for ((token, (&id, position)), sum) in tokens.zip(sums.chunks_exact_mut(columns.max(1))) {
            self.words.read(id as usize, sum);
            sum.iter_mut().for_each(|x| *x *= spec.embedding_scale);
            let token_type = batch.token_type_ids.get(token).copied().unwrap_or(0);
            for (table, index) in [
                (&self.token_types, token_type as usize),
                (&self.positions, position),
            ] {
                if let Some(table) = table {
                    table.read(index, &mut row);
                    sum.iter_mut().zip(&row).for_each(|(sum, x)| *sum += x);
                }
            }
        }
        Ok(Tensor::from_vec(
            sums,
            (batch.tokens(), columns),
            &Device::Cpu,
        )?)
    }
}
