//! Byte pairs of a sentencepiece file: the file has pieces, and which two of them merge into a third is found as transformers 5 finds it.

use std::collections::HashMap;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

/// Most bytes of all cuts of all pieces into two, which are what merges are looked for among and what they take. Those of 256,000 pieces
/// of eight bytes are 16 MB; some thousand pieces that are each a letter longer than the last would take gigabytes.
const MOST_BYTES: usize = 1 << 29;

/// The model whose tokens have the ids of `pieces`. They are called `tokens`; a token may have another name than its piece only if no
/// merge is of it or gives it.
///
/// # Errors
/// The message for pieces that are not each other's, or that are too long for their merges to be told, and for a name that a merge needs.
pub(super) fn byte_pairs(pieces: &[&str], tokens: &[&str]) -> Result<BPE, String> {
    let merges = merges(pieces)?;
    let renamed: HashMap<&str, &str> = pieces
        .iter()
        .copied()
        .zip(tokens.iter().copied())
        .filter(|(piece, token)| piece != token)
        .collect();
    if !renamed.is_empty() {
        for (left, right) in &merges {
            for piece in [left, right, &format!("{left}{right}")] {
                if let Some(token) = renamed.get(piece.as_str()) {
                    return Err(format!(
                        "expected added tokens in the place of pieces that no merge needs, found `{token}` with the id of the piece `{piece}`"
                    ));
                }
            }
        }
    }
    let vocabulary: Vocab = (0..)
        .zip(tokens)
        .map(|(id, token)| ((*token).to_owned(), id))
        .collect();
    BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .build()
        .map_err(|error| error.to_string())
}

/// All pairs of pieces that together are a piece, in the order of these pieces; for one piece, from the shortest left part to the
/// longest. Scores do not count.
///
/// # Errors
/// The message for pieces of which two are the same, or that are too long for their merges to be told.
pub fn merges(pieces: &[&str]) -> Result<Vec<(String, String)>, String> {
    let mut places = HashMap::with_capacity(pieces.len());
    for (place, piece) in pieces.iter().enumerate() {
        if let Some(other) = places.insert(*piece, place) {
            return Err(format!(
                "expected pieces of which no two are the same, found `{piece}` as piece {other} and as piece {place}"
            ));
        }
    }
    let (mut merges, mut bytes) = (Merges::new(), 0_usize);
    for (place, piece) in pieces.iter().enumerate() {
        bytes = bytes.saturating_add(piece.len().saturating_mul(piece.len()));
        if bytes > MOST_BYTES {
            return Err(format!(
                "expected pieces whose cuts into two parts take at most {MOST_BYTES} bytes, found {bytes} with piece {place} of {}",
                pieces.len()
            ));
        }
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if places.contains_key(left) && places.contains_key(right) {
                merges.push((left.to_owned(), right.to_owned()));
            }
        }
    }
    Ok(merges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pieces: &[&str]) -> Vec<String> {
        let merges = merges(pieces).expect("merges");
        merges
            .into_iter()
            .map(|(left, right)| format!("{left}+{right}"))
            .collect()
    }

    #[test]
    fn merges_come_in_the_order_of_what_they_give() {
        assert_eq!(
            pairs(&[
                "abc",
                "<unk>",
                "ab",
                "bc",
                "c",
                "▁",
                "▁a",
                "a",
                "b",
                "▁▁",
                "▁▁▁"
            ]),
            ["a+bc", "ab+c", "a+b", "b+c", "▁+a", "▁+▁", "▁+▁▁", "▁▁+▁"]
        );
        assert!(pairs(&["a", "b", "ba▁"]).is_empty());
        assert!(pairs(&[]).is_empty());
    }

    /// The definition itself, on all texts of up to five letters of two kinds.
    #[test]
    fn merges_are_all_cuts_into_two_pieces() {
        let all: Vec<String> = (1..=5usize)
            .flat_map(|length| {
                (0..1usize << length).map(move |bits| {
                    let letter = |at: usize| if bits >> at & 1 == 0 { 'o' } else { 'é' };
                    (0..length).map(letter).collect()
                })
            })
            .collect();
        for step in [1, 2] {
            let pieces: Vec<&str> = all.iter().rev().step_by(step).map(String::as_str).collect();
            let mut expected = Vec::new();
            for piece in &pieces {
                for (at, _) in piece.char_indices().skip(1) {
                    let (left, right) = piece.split_at(at);
                    if pieces.contains(&left) && pieces.contains(&right) {
                        expected.push(format!("{left}+{right}"));
                    }
                }
            }
            assert!(!expected.is_empty());
            assert_eq!(pairs(&pieces), expected);
        }
    }

    #[test]
    fn pieces_that_have_no_merges() {
        let error = merges(&["<unk>", "the", "dog", "the"]).expect_err("refused");
        assert_eq!(
            error,
            "expected pieces of which no two are the same, found `the` as piece 1 and as piece 3"
        );
        // Each piece a letter longer than the last: a file of two megabytes whose merges would take almost three gigabytes.
        let longest = "a".repeat(2000);
        let chain: Vec<&str> = (1..=longest.len())
            .map(|length| &longest[..length])
            .collect();
        let error = merges(&chain).expect_err("refused");
        assert!(
            error.ends_with("found 537300470 with piece 1171 of 2000"),
            "{error}"
        );
    }

    #[test]
    fn a_token_may_have_another_name_where_no_merge_needs_it() {
        let pieces = ["<unk>", "a", "b", "ab", "<unused>"];
        let named = byte_pairs(&pieces, &["<unk>", "a", "b", "ab", "[NEW]"]).expect("a model");
        assert_eq!(tokenizers::Model::token_to_id(&named, "[NEW]"), Some(4));
        // Also by a name that is shorter than what merges give, of the longest piece and of a part.
        for tokens in [
            ["<unk>", "a", "b", "[NEW]", "<unused>"],
            ["<unk>", "a", "b", "x", "<unused>"],
            ["<unk>", "[NEW]", "b", "ab", "<unused>"],
        ] {
            let error = byte_pairs(&pieces, &tokens).expect_err("refused");
            assert!(error.contains("with the id of the piece `"), "{error}");
        }
    }
}
