//! Whole sequences that run together.

use crate::{EncoderSpec, RaggedBatch};
use std::ops::Range;

/// Consecutive sequences of a batch. Rows are tokens, counted from the first one of the block.
#[derive(Clone, Copy)]
pub(super) struct Block<'b> {
    batch: &'b RaggedBatch,
    first_sequence: usize,
    last_sequence: usize,
}

impl<'b> Block<'b> {
    /// The sequences `sequences` of a batch that has been checked.
    pub(super) fn new(batch: &'b RaggedBatch, sequences: Range<usize>) -> Self {
        Self {
            batch,
            first_sequence: sequences.start,
            last_sequence: sequences.end,
        }
    }

    fn first_token(&self) -> usize {
        self.batch.offsets[self.first_sequence]
    }

    /// Tokens of all sequences.
    pub(super) fn tokens(&self) -> usize {
        self.batch.offsets[self.last_sequence] - self.first_token()
    }

    /// Tokens of the longest sequence.
    pub(super) fn longest_sequence(&self) -> usize {
        let sequences = self.first_sequence..self.last_sequence;
        sequences
            .map(|sequence| self.batch.range(sequence).len())
            .max()
            .unwrap_or(0)
    }

    /// The rows of each sequence that has a token in `rows`, in order.
    pub(super) fn sequences_in(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (batch, first_token) = (self.batch, self.first_token());
        let after = batch.offsets[..=self.last_sequence]
            .partition_point(|&offset| offset <= first_token + rows.start);
        (after.saturating_sub(1)..self.last_sequence)
            .map(move |sequence| batch.range(sequence))
            .map(move |tokens| tokens.start - first_token..tokens.end - first_token)
            .take_while(move |sequence| sequence.start < rows.end)
    }

    /// Id, token type and position of each token in `rows`.
    pub(super) fn tokens_in(
        &self,
        rows: Range<usize>,
        spec: &EncoderSpec,
    ) -> impl Iterator<Item = Token> {
        let padding_id = spec.positions.padding_id;
        let first_position = padding_id.map_or(0, |padding_id| padding_id as usize + 1);
        let (batch, first_token) = (self.batch, self.first_token());
        self.sequences_in(rows.clone()).flat_map(move |sequence| {
            let mut next_position = first_position;
            let wanted = rows.clone();
            sequence.filter_map(move |row| {
                let id = batch.token_ids[first_token + row];
                let position = if padding_id == Some(id) {
                    id as usize
                } else {
                    next_position += 1;
                    next_position - 1
                };
                let types = &batch.token_type_ids;
                let given = batch.position_ids.get(first_token + row);
                let position = given.map_or(position, |&position| position as usize);
                wanted.contains(&row).then(|| Token {
                    id: id as usize,
                    token_type: types
                        .get(first_token + row)
                        .map_or(0, |&kind| kind as usize),
                    position,
                })
            })
        })
    }
}

impl RaggedBatch {
    /// The position of each token, in a batch that [`RaggedBatch::check`] accepts: as the batch says, or as the family counts them.
    pub fn positions(&self, spec: &EncoderSpec) -> Vec<usize> {
        let all = Block::new(self, 0..self.sequences());
        let tokens = all.tokens_in(0..self.tokens(), spec);
        tokens.map(|token| token.position).collect()
    }
}

/// A token by its rows in the embedding tables.
pub(super) struct Token {
    pub(super) id: usize,
    pub(super) token_type: usize,
    pub(super) position: usize,
}

/// Cuts a batch into ranges of sequences of at most `block_tokens` tokens; a longer sequence is a range of its own.
pub(super) fn blocks(
    batch: &RaggedBatch,
    block_tokens: usize,
) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first_token = *batch.offsets.get(start)?;
        let fits = |&end: &usize| batch.offsets[end] - first_token <= block_tokens;
        let end = (start + 1..=batch.sequences()).take_while(fits).last();
        let end = end.unwrap_or(start + 1);
        if start == batch.sequences() {
            return None;
        }
        let block = start..end;
        start = end;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(lengths: &[usize]) -> RaggedBatch {
        let mut batch = RaggedBatch::new();
        for &length in lengths {
            batch.push(&vec![0; length], &[]);
        }
        batch
    }

    #[test]
    fn blocks_hold_whole_sequences() {
        let cut = |lengths: &[usize]| blocks(&batch(lengths), 256).collect::<Vec<_>>();
        assert_eq!(cut(&[]), Vec::<Range<usize>>::new());
        assert_eq!(cut(&[1]), vec![0..1]);
        assert_eq!(cut(&[128, 128, 1]), vec![0..2, 2..3]);
        assert_eq!(cut(&[1, 5000, 1, 255, 1]), vec![0..1, 1..2, 2..4, 4..5]);
        assert_eq!(cut(&[300, 300]), vec![0..1, 1..2]);
    }

    #[test]
    fn sequences_that_rows_touch() {
        let batch = batch(&[9, 3, 1, 4, 2]);
        let block = Block::new(&batch, 1..4);
        assert_eq!(block.tokens(), 8);
        let touched = |rows| block.sequences_in(rows).collect::<Vec<_>>();
        assert_eq!(touched(0..8), vec![0..3, 3..4, 4..8]);
        assert_eq!(touched(2..3), vec![0..3]);
        assert_eq!(touched(3..5), vec![3..4, 4..8]);
        assert_eq!(touched(7..8), vec![4..8]);
    }
}
