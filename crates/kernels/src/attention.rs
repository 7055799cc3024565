//! What attention computes.

use std::ops::Range;

/// A bias on attention scores that depends on the distance between key and query alone: one number for each distance, instead of one for each pair.
#[derive(Debug, Clone, Copy)]
pub struct DistanceBias<'a> {
    /// Head after head, distances ascending. Minus infinity hides the keys at that distance; a query whose keys are all hidden gives NaN.
    pub values: &'a [f32],
    /// Elements from one head to the next; 0: all heads have the same.
    pub head_stride: usize,
    /// The element of distance 0; before it are those of keys before the query.
    pub center: usize,
}

impl<'a> DistanceBias<'a> {
    /// The bias of the keys `0..tokens` for one query.
    #[inline(always)]
    pub(crate) fn of_query(self, head: usize, query: usize, tokens: usize) -> &'a [f32] {
        &self.values[head * self.head_stride + self.center - query..][..tokens]
    }

    /// Whether there is an element for each of the distances in question.
    fn covers(&self, heads: usize, queries: &Range<usize>, tokens: usize) -> bool {
        let last = heads.saturating_sub(1).checked_mul(self.head_stride);
        let end = last
            .and_then(|start| start.checked_add(self.center)?.checked_add(tokens))
            .and_then(|end| end.checked_sub(queries.start));
        heads == 0
            || queries.is_empty()
            || (queries.end - 1 <= self.center && end.is_some_and(|end| end <= self.values.len()))
    }
}

/// Keys and queries of relative positions (disentangled attention: He et al. 2021, DeBERTa), for scores between contents and positions beside
/// those between contents. Either may be missing.
#[derive(Debug, Clone, Copy)]
pub struct RelativePositions<'a> {
    /// A key for each bucket of distances, in rows `row_stride` elements apart with heads as those of the keys of tokens.
    pub keys: Option<&'a [f32]>,
    /// A query for each bucket, as the keys.
    pub queries: Option<&'a [f32]>,
    /// Elements from one bucket to the next.
    pub row_stride: usize,
    /// The bucket of every distance, distances and buckets ascending.
    pub buckets: &'a [u32],
    /// The element of distance 0; before it are those of keys before the query.
    pub center: usize,
}

impl RelativePositions<'_> {
    /// Panics unless each distance from the queries to the keys `0..tokens` has a bucket, and each bucket a row of `width` elements.
    fn assert_valid(&self, width: usize, queries: &Range<usize>, tokens: usize) {
        if queries.is_empty() || width == 0 {
            return;
        }
        let end = (self.center + tokens).checked_sub(queries.start);
        assert!(
            queries.end - 1 <= self.center && end.is_some_and(|end| end <= self.buckets.len()),
            "attention: there is a bucket for each distance from the queries {queries:?} to the keys 0..{tokens}"
        );
        assert!(
            self.buckets.is_sorted(),
            "attention: buckets of distances ascend"
        );
        let last = self.buckets.last().copied().unwrap_or_default() as usize;
        let needed = last.checked_mul(self.row_stride);
        let needed = needed.and_then(|start| start.checked_add(width));
        for (name, rows) in [("keys", self.keys), ("queries", self.queries)] {
            if let Some(rows) = rows {
                assert!(
                    self.row_stride >= width && needed.is_some_and(|needed| rows.len() >= needed),
                    "attention: the {name} of positions have a row of {width} elements for bucket {last}, found {} elements",
                    rows.len()
                );
            }
        }
    }
}

/// Queries of some tokens of one sequence, and the keys and values of all of them. Row t of queries starts at `t * row_stride`, that of keys
/// and values at `t * key_row_stride`; head h is columns `h * head_size .. (h + 1) * head_size`, so one (tokens, 3 * hidden) product can
/// hold all three.
///
/// For head h the output row of token i is `sum_j p(i, j) * value(j)` with
/// `p(i, ·) = softmax_j(scale * score(i, j) + bias(h, j - i))`, keys and values being those of head
/// `h / (heads / key_value_heads)` (grouped-query attention, where these are fewer).
///
/// A score is `query(i) · key(j)`, with [`RelativePositions`] `query(i) · key(j) + query(i) · position_key(b) + key(j) · position_query(b)` of the
/// bucket b of j - i.
#[derive(Debug, Clone)]
pub struct AttentionInput<'a> {
    /// Queries of the tokens `query_tokens`: at least `(their number - 1) * row_stride + heads * head_size` elements.
    pub queries: &'a [f32],
    /// The tokens whose output is wanted, usually `0..tokens`.
    pub query_tokens: Range<usize>,
    /// Keys of all tokens: at least `(tokens - 1) * key_row_stride + key_value_heads * head_size` elements.
    pub keys: &'a [f32],
    /// Values of all tokens, in rows as those of the keys.
    pub values: &'a [f32],
    /// Elements from one token's queries to the next.
    pub row_stride: usize,
    /// Elements from one token's keys, or values, to the next.
    pub key_row_stride: usize,
    /// Length of the sequence.
    pub tokens: usize,
    /// Number of heads.
    pub heads: usize,
    /// Number of heads that keys and values have; divides `heads`.
    pub key_value_heads: usize,
    /// Features of one head.
    pub head_size: usize,
    /// Multiplies the scores, usually 1 / sqrt(head_size).
    pub scale: f32,
    /// Added to the scaled scores.
    pub bias: Option<DistanceBias<'a>>,
    /// Added to the scores before they are scaled.
    pub positions: Option<RelativePositions<'a>>,
}

impl AttentionInput<'_> {
    /// Checks the lengths and returns heads * head_size.
    pub(crate) fn assert_valid(&self) -> usize {
        let width_of = |heads: usize| {
            let width = heads.checked_mul(self.head_size);
            width.expect("heads * head_size fits in the address space")
        };
        let (width, key_width) = (width_of(self.heads), width_of(self.key_value_heads));
        assert!(
            self.heads
                .checked_rem(self.key_value_heads)
                .unwrap_or(self.heads)
                == 0,
            "attention: the heads of keys and values ({}) divide those of queries ({})",
            self.key_value_heads,
            self.heads
        );
        let range = &self.query_tokens;
        assert!(
            range.start <= range.end && range.end <= self.tokens,
            "attention: the queries {range:?} are tokens of the sequence (0..{})",
            self.tokens
        );
        let (stride, key_stride) = (self.row_stride, self.key_row_stride);
        for (name, values, rows, width, stride) in [
            ("queries", self.queries, range.len(), width, stride),
            ("keys", self.keys, self.tokens, key_width, key_stride),
            ("values", self.values, self.tokens, key_width, key_stride),
        ] {
            if rows == 0 || width == 0 {
                continue;
            }
            assert!(
                stride >= width || rows == 1,
                "attention: the row stride ({stride}) is at least heads * head_size ({width})"
            );
            let needed = (rows - 1)
                .checked_mul(stride)
                .and_then(|start| start.checked_add(width))
                .expect("attention inputs fit in the address space");
            assert!(
                values.len() >= needed,
                "attention: {name} have at least {needed} elements, found {}",
                values.len()
            );
        }
        if let Some(bias) = self.bias {
            assert!(
                bias.covers(self.heads, range, self.tokens),
                "attention: the bias has a number for each distance from the queries {range:?} to the keys 0..{}",
                self.tokens
            );
        }
        if let Some(positions) = self.positions {
            positions.assert_valid(width, range, self.tokens);
        }
        width
    }
}
