//! Batches as rectangles, for engines that compute padding.

use anyhow::{Result, ensure};

/// A batch padded to its longest sequence; the arrays are (sequences, tokens), row after row.
pub(crate) struct Padded<T> {
    pub(crate) sequences: usize,
    pub(crate) tokens: usize,
    pub(crate) input_ids: Vec<T>,
    /// 1 for a token, 0 for padding.
    pub(crate) attention_mask: Vec<T>,
    pub(crate) token_type_ids: Vec<T>,
}

impl<T: Copy + Default + TryFrom<u32>> Padded<T> {
    pub(crate) fn new(sequences: &[Vec<u32>]) -> Result<Self> {
        let tokens = sequences.iter().map(Vec::len).max().unwrap_or(0);
        let size = sequences.len() * tokens;
        let (mut ids, mut mask) = (vec![0; size], vec![0; size]);
        for (row, sequence) in sequences.iter().enumerate() {
            let start = row * tokens;
            ids[start..start + sequence.len()].copy_from_slice(sequence);
            mask[start..start + sequence.len()].fill(1);
        }
        Ok(Self {
            sequences: sequences.len(),
            tokens,
            input_ids: convert(&ids)?,
            attention_mask: convert(&mask)?,
            token_type_ids: vec![T::default(); size],
        })
    }
}

fn convert<T: TryFrom<u32>>(values: &[u32]) -> Result<Vec<T>> {
    let converted: Vec<T> = values
        .iter()
        .filter_map(|&value| T::try_from(value).ok())
        .collect();
    ensure!(
        converted.len() == values.len(),
        "token id: does not fit the engine's integer type"
    );
    Ok(converted)
}

/// Of hidden states (sequences, longest, hidden size), the rows that belong to tokens.
pub(crate) fn without_padding(sequences: &[Vec<u32>], states: &[f32]) -> Result<Vec<f32>> {
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
    let rows = sequences.len() * longest;
    ensure!(
        rows > 0 && states.len().is_multiple_of(rows),
        "hidden states: expected a multiple of {rows} numbers, found {}",
        states.len()
    );
    let hidden_size = states.len() / rows;
    Ok(sequences
        .iter()
        .zip(states.chunks_exact(longest * hidden_size))
        .flat_map(|(sequence, rows)| &rows[..sequence.len() * hidden_size])
        .copied()
        .collect())
}
