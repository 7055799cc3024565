//! Attention of one sequence with both products in integers.

use std::f32::consts::LOG2_E;

use crate::attention::AttentionInput;
use crate::generic::attention_codes::{HeadRows, pack_keys, pack_values, quantize_heads};
use crate::generic::exponential::exp2_of_codes;
use crate::generic::int8_panels::{
    FinishTile, FinishedTile, Int8Panels, Int8Rows, multiply_panels,
};
use crate::generic::vector::{lane_maxima, lane_sums};
use crate::int8_tile::{INT8_GROUP, Int8Accumulators, Int8Tile};
use crate::quantized_rows::QuantizedRows;
use crate::simd::{LANES, Simd};
use crate::workspace::Workspace;

/// Queries that are handled together: one for each lane, so that what is left of a row at its end is reduced for all of them at once.
const QUERY_BLOCK: usize = LANES;

/// A power of the softmax is a code of sixteen bits: a row of high bytes and one of low bytes for the tile.
const PLANES: usize = 2;

/// What is added to the codes of queries, so that they are unsigned.
const QUERY_OFFSET: u8 = 128;

/// log2 of the code of the greatest power, 65000: the polynomial may exceed it by one part in a thousand and stay below 2^16.
const LOG2_GREATEST: f32 = 15.988_152;

/// Queries, keys and values become codes as [`attention_codes`](crate::generic::attention_codes) says. The powers of the softmax,
/// `65000 * 2^(y - max(y))`, are rounded to integers of sixteen bits for the product with the values; the sum that divides it is that of the
/// unrounded ones.
///
/// `out` is (queries, heads * head_size).
#[inline(always)]
pub(crate) fn attention_int8<S: Simd, T: Int8Tile>(
    s: S,
    t: T,
    input: &AttentionInput<'_>,
    out: &mut [f32],
    workspace: &mut Workspace,
) {
    let AttentionInput {
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
    let shape = [heads, head_size];
    let queries = HeadRows::new(
        input.queries,
        row_stride,
        query_count,
        shape,
        &mut workspace.padded_queries,
    );
    let keys = HeadRows::new(
        input.keys,
        row_stride,
        tokens,
        shape,
        &mut workspace.padded_keys,
    );
    let padded_tokens = tokens.next_multiple_of(LANES);
    let padded_size = head_size.next_multiple_of(LANES);
    let code_width = heads * padded_size;
    let (key_groups, value_groups) = (padded_size / INT8_GROUP, padded_tokens / INT8_GROUP);

    // After the queries comes one of zeros: its products are what the offset of the codes gives.
    let query_codes = &mut workspace.query_codes;
    query_codes.resize(query_count + 1, code_width);
    let (codes, zero_query) = query_codes.codes.split_at_mut(query_count * code_width);
    let query_scales = workspace.query_scales.slice(query_count * heads);
    quantize_heads(s, queries, i32::from(QUERY_OFFSET), codes, query_scales);
    zero_query.fill(QUERY_OFFSET);
    let (query_codes, query_stride) = t.activations(query_codes, &mut workspace.activations);

    let key_scales_of_rows = workspace.key_scales_of_rows.slice(tokens * heads);
    let key_codes = workspace.key_codes.slice(tokens * code_width);
    quantize_heads(s, keys, 0, key_codes, key_scales_of_rows);
    let key_codes = workspace
        .key_codes
        .slice::<f32>(tokens * heads * key_groups);
    let key_scales = workspace.key_scales.slice(padded_tokens);
    let surplus = workspace.key_surplus.slice(padded_tokens);

    let values = workspace.values.slice(heads * padded_size * padded_tokens);
    let value_scales = workspace.value_scales.slice(heads * padded_size);
    let value_surplus = workspace.value_surplus.slice(padded_size);
    // The inverses of the scales of values, and later the scores, are not needed at the same time.
    let scores = workspace
        .scores
        .slice::<f32>((QUERY_BLOCK * padded_tokens).max(heads * padded_size));
    let inverses = &mut scores[..heads * padded_size];
    let padded = &mut workspace.padded_queries;
    let rows = HeadRows::new(input.values, row_stride, tokens, shape, padded);
    pack_values(s, rows, values, value_scales, inverses);

    let powers = &mut workspace.powers;
    let mut accumulators = Int8Accumulators::new();
    for head in 0..heads {
        let panels = workspace.keys.slice(padded_tokens * key_groups);
        let stride = heads * key_groups;
        pack_keys(s, key_codes, stride, head * key_groups, key_groups, panels);
        for (scale, scales) in key_scales
            .iter_mut()
            .zip(key_scales_of_rows.chunks_exact(heads))
        {
            *scale = scales[head];
        }
        let panels = Int8Panels {
            codes: workspace.keys.slice(padded_tokens * padded_size),
            outputs: padded_tokens,
            groups: key_groups,
            prefetch: false,
        };
        let rows = |first: usize, rows| Int8Rows {
            codes: &query_codes[first * query_stride + head * padded_size..],
            stride: query_stride,
            rows,
            unit: 1,
        };
        let mut store = StoreSums { sums: surplus };
        multiply_panels(
            s,
            t,
            rows(query_count, 1),
            panels,
            &mut accumulators,
            &mut store,
        );

        let value_panels = Int8Panels {
            codes: &values[head * padded_size * padded_tokens..][..padded_size * padded_tokens],
            outputs: padded_size,
            groups: value_groups,
            prefetch: false,
        };
        // As for queries; where the tile takes codes as they are, products with zeros are zeros.
        if T::ACTIVATION_OFFSET != 0 {
            powers.resize(1, padded_tokens);
            powers.codes.fill(0);
            let (codes, stride) = t.activations(powers, &mut workspace.power_activations);
            let zeros = Int8Rows {
                codes,
                stride,
                rows: 1,
                unit: 1,
            };
            let mut store = StoreSums {
                sums: value_surplus,
            };
            multiply_panels(s, t, zeros, value_panels, &mut accumulators, &mut store);
        }

        for block in (0..query_count).step_by(QUERY_BLOCK) {
            let count = QUERY_BLOCK.min(query_count - block);
            let mut factors = [0.0; QUERY_BLOCK];
            for (factor, query) in factors.iter_mut().zip(block..block + count) {
                *factor = query_scales[query * heads + head] * (input.scale * LOG2_E);
            }
            let bias = input.bias.map(|bias| {
                let first = head * tokens + query_tokens.start + block;
                &bias[first * tokens..][..count * tokens]
            });
            let mut block_scores = Scores {
                tokens,
                bias,
                factors: &factors,
                key_scales,
                surplus,
                scores,
                stride: padded_tokens,
                greatest: [s.splat(f32::NEG_INFINITY); LANES],
            };
            multiply_panels(
                s,
                t,
                rows(block, count),
                panels,
                &mut accumulators,
                &mut block_scores,
            );

            let mut greatest = [0.0; LANES];
            s.store(lane_maxima(s, block_scores.greatest), &mut greatest);
            powers.resize(PLANES * count, padded_tokens);
            let mut sums = [s.splat(0.0); LANES];
            for query in 0..count {
                let row = &scores[query * padded_tokens..][..padded_tokens];
                let factor = if bias.is_some() { 1.0 } else { factors[query] };
                sums[query] = store_powers(s, row, greatest[query], factor, powers, query);
            }
            let inverse = s.div(s.splat(1.0), lane_sums(s, sums));
            let mut inverse_sums = [0.0; LANES];
            s.store(inverse, &mut inverse_sums);

            let (codes, stride) = t.activations(powers, &mut workspace.power_activations);
            let power_rows = Int8Rows {
                codes,
                stride,
                rows: PLANES * count,
                unit: PLANES,
            };
            let mut outputs = Outputs {
                out: &mut out[block * width + head * head_size..],
                stride: width,
                columns: head_size,
                scales: &value_scales[head * padded_size..][..padded_size],
                surplus: (T::ACTIVATION_OFFSET != 0).then_some(&*value_surplus),
                inverse_sums: &inverse_sums,
            };
            multiply_panels(
                s,
                t,
                power_rows,
                value_panels,
                &mut accumulators,
                &mut outputs,
            );
        }
    }
}

/// The sums of one row as they are.
struct StoreSums<'a> {
    /// (outputs)
    sums: &'a mut [i32],
}

impl<S: Simd> FinishTile<S> for StoreSums<'_> {
    #[inline(always)]
    fn finish<const VECTORS: usize>(&mut self, _s: S, tile: FinishedTile<'_>) {
        let vectors = self.sums.as_chunks_mut::<LANES>().0;
        vectors[tile.first_vector..][..VECTORS].copy_from_slice(tile.row::<VECTORS>(0));
    }
}

/// From the sums of queries and keys to scores: `f32(sum) * scale of the key`, and with a bias the exponent of two,
/// `fma(score, factor of the query, bias * log2(e))`. Keys beyond the last have minus infinity.
struct Scores<'a, S: Simd> {
    tokens: usize,
    /// (rows, tokens)
    bias: Option<&'a [f32]>,
    factors: &'a [f32; QUERY_BLOCK],
    /// (stride)
    key_scales: &'a [f32],
    /// (stride): what a query of zeros gives.
    surplus: &'a [i32],
    /// (rows, stride)
    scores: &'a mut [f32],
    stride: usize,
    /// Lane by lane, for each row.
    greatest: [S::F32; LANES],
}

impl<S: Simd> FinishTile<S> for Scores<'_, S> {
    #[inline(always)]
    fn finish<const VECTORS: usize>(&mut self, s: S, tile: FinishedTile<'_>) {
        let first = tile.first_vector * LANES;
        let scales = load_vectors::<S, VECTORS>(s, &self.key_scales[first..]);
        let mut surplus = [s.splat_i32(0); VECTORS];
        for (surplus, sums) in surplus.iter_mut().zip(self.surplus[first..].as_chunks().0) {
            *surplus = s.load_i32(sums);
        }
        // Only the last vector may have keys beyond the last.
        let whole = self.tokens - first >= VECTORS * LANES;
        for index in 0..tile.rows {
            let row = tile.first_row + index;
            let start = row * self.stride + first;
            let out = &mut self.scores[start..start + VECTORS * LANES];
            let mut greatest = self.greatest[row];
            let sums = tile.row::<VECTORS>(index);
            for (vector, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let sum = s.sub_i32(s.load_i32(&sums[vector]), surplus[vector]);
                let mut score = s.mul(s.to_f32(sum), scales[vector]);
                let token = first + vector * LANES;
                if let Some(bias) = self.bias {
                    let row_bias = &bias[row * self.tokens..][..self.tokens];
                    let bias = &row_bias[token..self.tokens.min(token + LANES)];
                    let bias = s.mul(s.load_up_to(bias, 0.0), s.splat(LOG2_E));
                    score = s.fma(score, s.splat(self.factors[row]), bias);
                }
                if !whole && self.tokens - token < LANES {
                    let mask = s.first_lanes(self.tokens - token);
                    score = s.select(mask, score, s.splat(f32::NEG_INFINITY));
                }
                greatest = s.max(score, greatest);
                s.store(score, out);
            }
            self.greatest[row] = greatest;
        }
    }
}

/// The first `VECTORS` vectors of `numbers`.
#[inline(always)]
fn load_vectors<S: Simd, const VECTORS: usize>(s: S, numbers: &[f32]) -> [S::F32; VECTORS] {
    let mut vectors = [s.splat(0.0); VECTORS];
    for (vector, numbers) in vectors.iter_mut().zip(numbers.as_chunks().0) {
        *vector = s.load(numbers);
    }
    vectors
}

/// Writes the powers of one row of scores to the rows `2 * query` (high bytes) and `2 * query + 1` (low bytes) of `powers`, and returns
/// their sums lane by lane.
#[inline(always)]
fn store_powers<S: Simd>(
    s: S,
    scores: &[f32],
    greatest: f32,
    factor: f32,
    powers: &mut QuantizedRows,
    query: usize,
) -> S::F32 {
    let (greatest, factor) = (s.splat(greatest), s.splat(factor));
    let log2_greatest = s.splat(LOG2_GREATEST);
    let stride = powers.stride;
    let planes = &mut powers.codes[PLANES * query * stride..][..PLANES * stride];
    let (high, low) = planes.split_at_mut(stride);
    let (high, low) = (
        high.as_chunks_mut::<LANES>().0,
        low.as_chunks_mut::<LANES>().0,
    );
    let mut sum = s.splat(0.0);
    for ((score, high), low) in scores.as_chunks::<LANES>().0.iter().zip(high).zip(low) {
        // At most 0, so that a power is at most the greatest.
        let below = s.sub(s.load(score), greatest);
        let power = exp2_of_codes(s, s.fma(below, factor, log2_greatest));
        sum = s.add(sum, power);
        s.store_u16_planes(s.round_to_i32(power), low, high);
    }
    sum
}

/// From the sums of powers and values to the output: `fma(f32(high), 256, f32(low)) * (scale of the feature * 1 / sum of the powers)`.
struct Outputs<'a> {
    /// (queries, stride), from the first feature of the head on.
    out: &'a mut [f32],
    stride: usize,
    /// Features of a head.
    columns: usize,
    /// (features padded to sixteen)
    scales: &'a [f32],
    /// (features padded to sixteen): what powers of zero give, if not zeros.
    surplus: Option<&'a [i32]>,
    inverse_sums: &'a [f32; LANES],
}

impl<S: Simd> FinishTile<S> for Outputs<'_> {
    #[inline(always)]
    fn finish<const VECTORS: usize>(&mut self, s: S, tile: FinishedTile<'_>) {
        let first = tile.first_vector * LANES;
        let scales = load_vectors::<S, VECTORS>(s, &self.scales[first..]);
        let columns = first..self.columns.min(first + VECTORS * LANES);
        for index in 0..tile.rows / PLANES {
            let query = tile.first_row / PLANES + index;
            let inverse_sum = s.splat(self.inverse_sums[query]);
            let high = tile.row::<VECTORS>(PLANES * index);
            let low = tile.row::<VECTORS>(PLANES * index + 1);
            let out = &mut self.out[query * self.stride..][columns.clone()];
            for (vector, out) in out.chunks_mut(LANES).enumerate() {
                let (mut high, mut low) = (s.load_i32(&high[vector]), s.load_i32(&low[vector]));
                if let Some(surplus) = self.surplus {
                    let surplus = s.load_i32(&surplus[first..].as_chunks().0[vector]);
                    high = s.sub_i32(high, surplus);
                    low = s.sub_i32(low, surplus);
                }
                let sum = s.fma(s.to_f32(high), s.splat(256.0), s.to_f32(low));
                s.store_up_to(s.mul(sum, s.mul(scales[vector], inverse_sum)), out);
            }
        }
    }
}
