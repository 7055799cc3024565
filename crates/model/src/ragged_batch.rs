//! Sequences laid end to end, no padding.

use crate::{EncoderSpec, ModelError};
use std::ops::Range;

/// Token ids of several sequences, concatenated.
///
/// ```
/// use fewbit_model::RaggedBatch;
///
/// let batch = RaggedBatch::from_sequences(&[&[101, 7592, 102][..], &[101, 102]]);
/// assert_eq!(batch.sequences(), 2);
/// assert_eq!(batch.range(1), 3..5);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaggedBatch {
    /// All token ids, sequence after sequence.
    pub token_ids: Vec<u32>,
    /// A token type for each token id, or empty: all 0.
    pub token_type_ids: Vec<u32>,
    /// A row of the table of positions for each token id, or empty: as the family counts them. Families without such a table take none.
    pub position_ids: Vec<u32>,
    /// Sequence i is `offsets[i]..offsets[i + 1]` of `token_ids`; starts with 0.
    pub offsets: Vec<usize>,
}

impl Default for RaggedBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl RaggedBatch {
    /// No sequences.
    pub fn new() -> Self {
        Self {
            token_ids: Vec::new(),
            token_type_ids: Vec::new(),
            position_ids: Vec::new(),
            offsets: vec![0],
        }
    }

    /// Sequences of token type 0.
    pub fn from_sequences(sequences: &[&[u32]]) -> Self {
        let mut batch = Self::new();
        for sequence in sequences {
            batch.push(sequence, &[]);
        }
        batch
    }

    /// Appends a sequence; `token_type_ids` has its length or is empty (all 0).
    pub fn push(&mut self, token_ids: &[u32], token_type_ids: &[u32]) {
        if !token_type_ids.is_empty() || !self.token_type_ids.is_empty() {
            self.token_type_ids.resize(self.token_ids.len(), 0);
            self.token_type_ids.extend_from_slice(token_type_ids);
            if token_type_ids.is_empty() {
                self.token_type_ids
                    .resize(self.token_ids.len() + token_ids.len(), 0);
            }
        }
        self.token_ids.extend_from_slice(token_ids);
        self.offsets.push(self.token_ids.len());
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Number of tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// Tokens of sequence `sequence`, which must be below [`RaggedBatch::sequences`].
    pub fn range(&self, sequence: usize) -> Range<usize> {
        self.offsets[sequence]..self.offsets[sequence + 1]
    }

    /// Errors unless the offsets and lengths fit together and every sequence is one that `spec` can run.
    ///
    /// # Errors
    /// [`ModelError::Input`], which says what does not fit.
    pub fn check(&self, spec: &EncoderSpec) -> Result<(), ModelError> {
        let input = |message: String| Err(ModelError::Input(message));
        let ordered = self.offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        if self.offsets.first() != Some(&0)
            || self.offsets.last() != Some(&self.token_ids.len())
            || !ordered
        {
            return input(format!(
                "offsets of a batch: expected ascending numbers from 0 to the {} token ids\n  hint: build the batch with `RaggedBatch::push`",
                self.token_ids.len()
            ));
        }
        if !self.token_type_ids.is_empty() && self.token_type_ids.len() != self.token_ids.len() {
            return input(format!(
                "token types of a batch: expected none or one for each of the {} token ids, found {}\n  hint: build the batch with `RaggedBatch::push`",
                self.token_ids.len(),
                self.token_type_ids.len()
            ));
        }
        self.check_positions(spec)?;
        let longest = spec.longest_sequence();
        let types = spec.token_types.max(1);
        for sequence in 0..self.sequences() {
            let range = self.range(sequence);
            if range.is_empty() {
                return input(format!(
                    "sequence {sequence}: expected at least one token, found none\n  hint: tokenize with special tokens, so that an empty text has some"
                ));
            }
            if range.len() > longest {
                return input(format!(
                    "sequence {sequence}: expected at most {longest} tokens, found {}\n  hint: the model has no positions beyond that; cut the sequence",
                    range.len()
                ));
            }
            let too_large =
                |ids: &[u32], limit: usize| ids.iter().position(|&id| id as usize >= limit);
            if let Some(at) = too_large(&self.token_ids[range.clone()], spec.vocab_size) {
                return input(format!(
                    "sequence {sequence}, token {at}: expected an id below the vocabulary size {}, found {}\n  hint: the token ids come from the tokenizer of another model",
                    spec.vocab_size,
                    self.token_ids[range.start + at]
                ));
            }
            if !self.token_type_ids.is_empty()
                && let Some(at) = too_large(&self.token_type_ids[range.clone()], types)
            {
                return input(format!(
                    "sequence {sequence}, token {at}: expected a token type below {types}, found {}\n  hint: this model has {} token types; leave them out for type 0",
                    self.token_type_ids[range.start + at],
                    spec.token_types
                ));
            }
        }
        Ok(())
    }

    /// Errors unless the positions, where there are some, are rows of the table that `spec` has.
    fn check_positions(&self, spec: &EncoderSpec) -> Result<(), ModelError> {
        if self.position_ids.is_empty() {
            return Ok(());
        }
        if !spec.looks_up_positions() {
            return Err(ModelError::Input(format!(
                "positions of a batch: expected none, found {}\n  hint: this model has no table of positions; it knows tokens by their distances, which a batch cannot change",
                self.position_ids.len()
            )));
        }
        if self.position_ids.len() != self.token_ids.len() {
            return Err(ModelError::Input(format!(
                "positions of a batch: expected none or one for each of the {} token ids, found {}\n  hint: push as many for each sequence as it has token ids",
                self.token_ids.len(),
                self.position_ids.len()
            )));
        }
        let count = spec.positions.count;
        let mut positions = self.position_ids.iter();
        match positions.position(|&position| position as usize >= count) {
            None => Ok(()),
            Some(at) => Err(ModelError::Input(format!(
                "position of token {at} of the batch: expected one below {count}, found {}\n  hint: the model has no positions beyond that; cut the sequence",
                self.position_ids[at]
            ))),
        }
    }
}
