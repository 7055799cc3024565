//! Attention of one sequence.

use crate::attention::AttentionInput;
use crate::float_tile::{AttentionTile, Columns, Combine, Rows};
use crate::generic::attention_positions::{POSITION_QUERIES, PositionScores};
use crate::generic::f32_tile::{TILE_ROWS, panels_at_once};
use crate::generic::softmax::exponentials;
use crate::generic::vector;
use crate::output_columns::OutputColumns;
use crate::panels::panel_count;
use crate::simd::{LANES, Simd};
use crate::workspace::Workspace;

/// Queries that are handled together: whole tiles, few enough that the scores of long sequences stay in the cache.
pub(crate) const QUERY_BLOCK: usize = 2 * TILE_ROWS;

/// Both products are those of the tile: the keys of a head are a weight of `tokens` output features, the transposed values one of
/// `head_size`. A score is one chain of multiply-adds over the features of a head, an output element one over the tokens, both
/// ascending; the exponentials stay undivided until then, and each output is multiplied by the inverse of their sum.
///
/// `out` is (queries, heads * head_size).
#[inline(always)]
pub(crate) fn attention<S: Simd, T: AttentionTile<S>>(
    s: S,
    t: T,
    input: &AttentionInput<'_>,
    out: &mut [f32],
    workspace: &mut Workspace,
) {
    let AttentionInput {
        queries,
        row_stride,
        key_row_stride,
        tokens,
        heads,
        key_value_heads,
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
    // Elements of a panel's depth.
    let (key_depth, value_depth) = (head_size.div_ceil(T::NUMBERS), tokens.div_ceil(T::NUMBERS));
    let Workspace {
        keys,
        values,
        scores,
        activations,
        positions: position_scratch,
        ..
    } = workspace;
    let keys = keys.slice(padded_tokens * key_depth);
    let value_panels = panel_count(head_size);
    let values = values.slice(value_panels * LANES * value_depth);
    let scores = scores.slice::<f32>(QUERY_BLOCK.min(query_count) * padded_tokens);

    let group = heads / key_value_heads;
    for head in 0..heads {
        let first = head * head_size;
        if head % group == 0 {
            let first = head / group * head_size;
            let (of_keys, of_values) = (&input.keys[first..], &input.values[first..]);
            pack_keys(s, t, of_keys, key_row_stride, tokens, head_size, keys);
            pack_values(s, t, of_values, key_row_stride, tokens, head_size, values);
        }
        let mut positions = input.positions.map(|positions| {
            PositionScores::of_head(s, t, input, positions, head, position_scratch)
        });
        for block in (0..query_count).step_by(QUERY_BLOCK) {
            let count = QUERY_BLOCK.min(query_count - block);
            if let Some(positions) = &mut positions
                && block % POSITION_QUERIES == 0
            {
                positions.multiply_keys(s, t, block, keys, activations);
            }
            let rows = Rows {
                values: &queries[block * row_stride + first..],
                stride: row_stride,
                count,
            };
            let rows = t.activations(s, rows, head_size, activations);
            let mut panel = 0;
            while panel < key_panels {
                let at_once = panels_at_once::<S>(count, key_panels - panel);
                let first = panel * LANES;
                let mut scores = OutputColumns::of_matrix(scores, padded_tokens);
                let mut columns = Columns {
                    columns: scores.part(first..first + at_once * LANES),
                    bias: None,
                    combine: Combine::Replace,
                };
                let keys = &keys[panel * key_depth * LANES..];
                t.multiply(s, rows, keys, at_once, head_size, &mut columns);
                panel += at_once;
            }

            if let Some(positions) = &mut positions {
                positions.add(s, t, block, rows, scores);
            }

            let mut sums = [0.0; QUERY_BLOCK];
            let score_rows = scores.chunks_exact_mut(padded_tokens);
            for (index, (row, sum)) in score_rows.zip(&mut sums[..count]).enumerate() {
                let bias = input.bias.map(|bias| {
                    let query = query_tokens.start + block + index;
                    bias.of_query(head, query, tokens)
                });
                *sum = exponentials(s, row, tokens, input.scale, bias);
            }

            let rows = Rows {
                values: scores,
                stride: padded_tokens,
                count,
            };
            let rows = t.activations(s, rows, tokens, activations);
            let mut panel = 0;
            while panel < value_panels {
                let at_once = panels_at_once::<S>(count, value_panels - panel);
                let column = panel * LANES;
                let count = (at_once * LANES).min(head_size - column);
                let mut out = OutputColumns::of_matrix(&mut out[block * width..], width);
                let mut columns = Columns {
                    columns: out.part(first + column..first + column + count),
                    bias: None,
                    combine: Combine::Replace,
                };
                let values = &values[panel * value_depth * LANES..];
                t.multiply(s, rows, values, at_once, tokens, &mut columns);
                panel += at_once;
            }
            for (index, &sum) in sums[..count].iter().enumerate() {
                let start = (block + index) * width + first;
                vector::multiply(s, &mut out[start..start + head_size], 1.0 / sum);
            }
        }
    }
}

/// Panels `[tokens / 16][elements of head_size][16]` of one head's keys; tokens that the last panel lacks are zeros.
#[inline(always)]
pub(crate) fn pack_keys<S: Simd, T: AttentionTile<S>>(
    s: S,
    t: T,
    keys: &[f32],
    stride: usize,
    tokens: usize,
    head_size: usize,
    packed: &mut [T::Element],
) {
    let depth = head_size.div_ceil(T::NUMBERS);
    for (index, panel) in packed.chunks_exact_mut(depth * LANES).enumerate() {
        let first = index * LANES;
        for (block, lines) in panel.chunks_mut(LANES * LANES).enumerate() {
            let feature = block * LANES * T::NUMBERS;
            let features = (LANES * T::NUMBERS).min(head_size - feature);
            let mut rows = [s.splat(0.0); LANES];
            for (row, token) in rows.iter_mut().zip(first..tokens) {
                let start = token * stride + feature;
                *row = t.elements(s, &keys[start..start + features]);
            }
            let columns = s.transpose(rows);
            for (line, column) in lines.as_chunks_mut::<LANES>().0.iter_mut().zip(columns) {
                t.store(s, column, line);
            }
        }
    }
}

/// Panels `[head_size / 16][elements of tokens][16]` of one head's values; features that the last panel lacks are zeros.
#[inline(always)]
fn pack_values<S: Simd, T: AttentionTile<S>>(
    s: S,
    t: T,
    values: &[f32],
    stride: usize,
    tokens: usize,
    head_size: usize,
    packed: &mut [T::Element],
) {
    let depth = tokens.div_ceil(T::NUMBERS);
    for (index, panel) in packed.chunks_exact_mut(depth * LANES).enumerate() {
        let first = index * LANES;
        let count = LANES.min(head_size - first);
        let lines = panel.as_chunks_mut::<LANES>().0;
        for (element, line) in lines.iter_mut().enumerate() {
            let token = element * T::NUMBERS;
            let start = token * stride + first;
            let vector = s.load_up_to(&values[start..start + count], 0.0);
            let mut second = s.splat(0.0);
            if T::NUMBERS == 2 && token + 1 < tokens {
                let start = start + stride;
                second = s.load_up_to(&values[start..start + count], 0.0);
            }
            t.store(s, t.combine(s, vector, second), line);
        }
    }
}
