//! Scratch memory that kernels reuse.

use crate::aligned::Scratch;
use crate::quantized_rows::QuantizedRows;
use crate::quantized_sequence::QuantizedSequence;

/// Scratch memory of the kernels. Each buffer grows to what the largest call needed and is then reused, so the steady
/// state allocates nothing. One for each thread.
///
/// What a workspace held before a call never changes the call's result.
#[derive(Default)]
pub struct Workspace {
    /// Weight panels decoded to f32, or none.
    pub(crate) panels: Scratch,
    /// Activations in the form that a tile reads, where that is not the one they have.
    pub(crate) activations: Scratch,
    /// Keys of one head, in panels.
    pub(crate) keys: Scratch,
    /// Values of one head, in panels.
    pub(crate) values: Scratch,
    /// Scores of one block of queries; before there are any, inverse scales of values.
    pub(crate) scores: Scratch,
    /// Of relative positions.
    pub(crate) positions: PositionScratch,
    /// Queries, or values, whose heads have been padded to whole vectors.
    pub(crate) padded_queries: Scratch,
    /// The same for keys.
    pub(crate) padded_keys: Scratch,
    /// Codes of the queries, all heads.
    pub(crate) query_codes: QuantizedRows,
    /// (queries, heads)
    pub(crate) query_scales: Scratch,
    /// Codes of the keys, all heads.
    pub(crate) key_codes: Scratch,
    /// (tokens, heads)
    pub(crate) key_scales_of_rows: Scratch,
    /// Keys and values of a sequence whose queries come in one call.
    pub(crate) sequence: QuantizedSequence,
    /// Exponentials of the softmax of one block of queries, as codes of sixteen bits.
    pub(crate) exponentials: QuantizedRows,
    /// `exponentials` in the form that a tile reads.
    pub(crate) exponential_activations: Scratch,
}

/// Scratch memory of attention with relative positions.
#[derive(Default)]
pub(crate) struct PositionScratch {
    /// Keys of the positions that a head's queries reach, in panels.
    pub(crate) keys: Scratch,
    /// Scores of one block of queries for these.
    pub(crate) scores: Scratch,
    /// Scores of sixteen keys for queries of positions.
    pub(crate) products: Scratch,
    /// The same of all keys, picked by their distances from some queries.
    pub(crate) picked: Scratch,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes held at the moment.
    pub fn memory_bytes(&self) -> usize {
        [
            &self.panels,
            &self.activations,
            &self.keys,
            &self.values,
            &self.scores,
            &self.positions.keys,
            &self.positions.scores,
            &self.positions.products,
            &self.positions.picked,
            &self.padded_queries,
            &self.padded_keys,
            &self.query_scales,
            &self.key_codes,
            &self.key_scales_of_rows,
            &self.exponential_activations,
        ]
        .iter()
        .map(|scratch| scratch.memory_bytes())
        .sum::<usize>()
            + self.query_codes.memory_bytes()
            + self.sequence.memory_bytes()
            + self.exponentials.memory_bytes()
    }
}
