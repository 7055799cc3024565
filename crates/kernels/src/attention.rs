//! What attention computes.

/// Queries, keys and values of one sequence. Row t of each starts at `t * row_stride`; head h is columns
/// `h * head_size .. (h + 1) * head_size`, so one (tokens, 3 * hidden) product can hold all three.
///
/// For head h the output row of token i is `sum_j p(i, j) * value(j)` with
/// `p(i, ·) = softmax_j(scale * (query(i) · key(j)) + bias(h, i, j))`.
#[derive(Debug, Clone, Copy)]
pub struct AttentionInput<'a> {
    /// Queries: at least `(tokens - 1) * row_stride + heads * head_size` elements.
    pub queries: &'a [f32],
    /// Keys, laid out as the queries.
    pub keys: &'a [f32],
    /// Values, laid out as the queries.
    pub values: &'a [f32],
    /// Elements from one token to the next.
    pub row_stride: usize,
    /// Length of the sequence.
    pub tokens: usize,
    /// Number of heads.
    pub heads: usize,
    /// Features of one head.
    pub head_size: usize,
    /// Multiplies the scores, usually 1 / sqrt(head_size).
    pub scale: f32,
    /// Added to the scaled scores: (heads, tokens, tokens). Minus infinity hides a key; a row that hides all keys gives NaN.
    pub bias: Option<&'a [f32]>,
}

impl AttentionInput<'_> {
    /// Checks the lengths and returns heads * head_size.
    pub(crate) fn assert_valid(&self) -> usize {
        let width = self
            .heads
            .checked_mul(self.head_size)
            .expect("heads * head_size fits in the address space");
        let needed = match self.tokens {
            0 => 0,
            _ if width == 0 => 0,
            tokens => {
                assert!(
                    self.row_stride >= width || tokens == 1,
                    "attention: the row stride ({}) is at least heads * head_size ({width})",
                    self.row_stride
                );
                (tokens - 1)
                    .checked_mul(self.row_stride)
                    .and_then(|start| start.checked_add(width))
                    .expect("attention inputs fit in the address space")
            }
        };
        for (name, values) in [
            ("queries", self.queries),
            ("keys", self.keys),
            ("values", self.values),
        ] {
            assert!(
                values.len() >= needed,
                "attention: {name} have at least {needed} elements, found {}",
                values.len()
            );
        }
        if let Some(bias) = self.bias {
            let expected = self
                .tokens
                .checked_mul(self.tokens)
                .and_then(|n| n.checked_mul(self.heads));
            assert_eq!(
                Some(bias.len()),
                expected,
                "attention: the bias is (heads, tokens, tokens)"
            );
        }
        width
    }
}
