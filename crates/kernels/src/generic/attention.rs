//! Attention of one sequence.

use crate::attention::AttentionInput;
use crate::generic::float_tile::{Columns, Rows, TILE_ROWS, multiply, panels_at_once};
use crate::generic::softmax::exponentials;
use crate::generic::vector;
use crate::panels::panel_count;
use crate::simd::{LANES, Simd};
use crate::workspace::Workspace;

/// Queries that are handled together: whole tiles, few enough that the scores of long sequences stay in the cache.
const QUERY_BLOCK: usize = 2 * TILE_ROWS;

/// Both products are those of the float microkernel: the keys of a head are a weight of `tokens` output features, the transposed values
/// one of `head_size`. A score is one chain of fused multiply-adds over the features of a head, an output element one over the
/// tokens, both ascending; the exponentials stay undivided until then, and each output is multiplied by the inverse of their sum.
///
/// `out` is (queries, heads * head_size).
#[inline(always)]
pub(crate) fn attention<S: Simd>(
    s: S,
    input: &AttentionInput<'_>,
    out: &mut [f32],
    workspace: &mut Workspace,
) {
    let AttentionInput {
        queries,
        row_stride,
        tokens,
        heads,
        head_size,
        ref query_tokens,
        ..
    } = *input;
    let (width, query_count) = (heads * head_size, query_tokens.len());
    if query_count == 0 || width == 0 {
        return;
    }
    let key_panels = panel_count(tokens);
    let padded_tokens = key_panels * LANES;
    let keys = workspace.keys.slice::<f32>(padded_tokens * head_size);
    let value_panels = panel_count(head_size);
    let values = workspace.values.slice::<f32>(value_panels * LANES * tokens);
    let scores = workspace
        .scores
        .slice::<f32>(QUERY_BLOCK.min(query_count) * padded_tokens);

    for head in 0..heads {
        let first = head * head_size;
        pack_keys(s, &input.keys[first..], row_stride, tokens, head_size, keys);
        pack_values(
            s,
            &input.values[first..],
            row_stride,
            tokens,
            head_size,
            values,
        );
        for block in (0..query_count).step_by(QUERY_BLOCK) {
            let count = QUERY_BLOCK.min(query_count - block);
            let rows = Rows {
                values: &queries[block * row_stride + first..],
                stride: row_stride,
                count,
            };
            let mut panel = 0;
            while panel < key_panels {
                let at_once = panels_at_once::<S>(count, key_panels - panel);
                let mut columns = Columns {
                    values: &mut scores[panel * LANES..],
                    stride: padded_tokens,
                    count: at_once * LANES,
                    bias: None,
                    add: false,
                };
                let keys = &keys[panel * head_size * LANES..];
                multiply(s, rows, keys, at_once, head_size, &mut columns);
                panel += at_once;
            }

            let mut sums = [0.0; QUERY_BLOCK];
            let score_rows = scores.chunks_exact_mut(padded_tokens);
            for (index, (row, sum)) in score_rows.zip(&mut sums[..count]).enumerate() {
                let bias = input.bias.map(|bias| {
                    let query = head * tokens + query_tokens.start + block + index;
                    &bias[query * tokens..][..tokens]
                });
                *sum = exponentials(s, row, tokens, input.scale, bias);
            }

            let rows = Rows {
                values: scores,
                stride: padded_tokens,
                count,
            };
            let mut panel = 0;
            while panel < value_panels {
                let at_once = panels_at_once::<S>(count, value_panels - panel);
                let column = panel * LANES;
                let mut columns = Columns {
                    values: &mut out[block * width + first + column..],
                    stride: width,
                    count: (at_once * LANES).min(head_size - column),
                    bias: None,
                    add: false,
                };
                let values = &values[panel * tokens * LANES..];
                multiply(s, rows, values, at_once, tokens, &mut columns);
                panel += at_once;
            }
            for (index, &sum) in sums[..count].iter().enumerate() {
                let start = (block + index) * width + first;
                vector::multiply(s, &mut out[start..start + head_size], 1.0 / sum);
            }
        }
    }
}

/// Panels `[tokens / 16][head_size][16]` of one head's keys; tokens that the last panel lacks are zeros.
#[inline(always)]
fn pack_keys<S: Simd>(
    s: S,
    keys: &[f32],
    stride: usize,
    tokens: usize,
    head_size: usize,
    packed: &mut [f32],
) {
    for (index, panel) in packed.chunks_exact_mut(head_size * LANES).enumerate() {
        let first = index * LANES;
        for (block, lines) in panel.chunks_mut(LANES * LANES).enumerate() {
            let features = lines.len() / LANES;
            let mut rows = [s.splat(0.0); LANES];
            for (row, token) in rows.iter_mut().zip(first..tokens) {
                let start = token * stride + block * LANES;
                *row = s.load_up_to(&keys[start..start + features], 0.0);
            }
            let columns = s.transpose(rows);
            for (line, column) in lines.as_chunks_mut::<LANES>().0.iter_mut().zip(columns) {
                s.store(column, line);
            }
        }
    }
}

/// Panels `[head_size / 16][tokens][16]` of one head's values; features that the last panel lacks are zeros.
#[inline(always)]
fn pack_values<S: Simd>(
    s: S,
    values: &[f32],
    stride: usize,
    tokens: usize,
    head_size: usize,
    packed: &mut [f32],
) {
    for (index, panel) in packed.chunks_exact_mut(tokens * LANES).enumerate() {
        let first = index * LANES;
        let count = LANES.min(head_size - first);
        let lines = panel.as_chunks_mut::<LANES>().0;
        for (token, line) in lines.iter_mut().enumerate() {
            let start = token * stride + first;
            s.store(s.load_up_to(&values[start..start + count], 0.0), line);
        }
    }
}
