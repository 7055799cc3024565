//! Candidates for masked tokens, as the fill-mask pipeline of transformers gives them.

use super::score_function::largest_first;
use crate::ModelError;
use crate::task_head::ScoreFunction;
use crate::tokenization::TextTokenizer;
use serde::Serialize;

/// A token that may stand where a mask is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MaskCandidate {
    /// Its probability among all tokens of the vocabulary.
    pub score: f32,
    /// Its id.
    pub token: u32,
    /// Its text.
    pub token_str: String,
    /// The whole text with this token in place of the mask; other masks stay.
    pub sequence: String,
}

/// The places of masks among the tokens of a text.
pub(super) fn masks(token_ids: &[u32], mask: u32) -> Vec<usize> {
    let ids = token_ids.iter().enumerate();
    ids.filter(|(_, id)| **id == mask)
        .map(|(at, _)| at)
        .collect()
}

/// The `most` likeliest tokens for each of the masks at `places` of `token_ids`, the likeliest first. `logits` has a row with a value
/// for each token of the vocabulary, for each mask.
pub(super) fn candidates<'l>(
    token_ids: &[u32],
    places: &[usize],
    logits: impl Iterator<Item = &'l [f32]>,
    most: usize,
    tokenizer: &TextTokenizer,
) -> Result<Vec<Vec<MaskCandidate>>, ModelError> {
    let of_mask = |(&place, logits): (&usize, &[f32])| {
        let probabilities = ScoreFunction::Softmax.scores(logits);
        let best = largest_first(&probabilities, most);
        best.into_iter()
            .filter_map(|index| Some((u32::try_from(index).ok()?, probabilities[index])))
            .map(|(token, score)| {
                let mut filled = token_ids.to_vec();
                filled[place] = token;
                Ok(MaskCandidate {
                    score,
                    token,
                    token_str: tokenizer.decode(&[token], false)?,
                    // Skipping special tokens would take away the other masks.
                    sequence: tokenizer.decode(&filled, places.len() == 1)?,
                })
            })
            .collect()
    };
    places.iter().zip(logits).map(of_mask).collect()
}
