//! Attention of one sequence with both products in integers.

use std::f32::consts::LOG2_E;

use crate::attention::{AttentionInput, DistanceBias};
use crate::generic::attention_codes::{HeadRows, quantize_heads, value_segment};
use crate::generic::attention_sequence::{
    PaddedSizes, QUERY_OFFSET, WIDE_POWER_OFFSET, has_power_offset,
};
use crate::generic::exponential::exp2_of_codes;
use crate::generic::int8_panels::{FinishTile, FinishedTile, Int8Rows, multiply_panels};
use crate::generic::vector::{lane_maxima, lane_sums};
use crate::int8_tile::{INT8_GROUP, Int8Accumulators, Int8Tile};
use crate::quantized_rows::{PLANES, QuantizedRows};
use crate::quantized_sequence::QuantizedSequence;
use crate::simd::{LANES, Simd};
use crate::workspace::Workspace;

/// Queries that are handled together: one for each lane, so that what is left of a row at its end is reduced for all of them at once.
const QUERY_BLOCK: usize = LANES;

/// log2 of the code of the greatest power, 65000: the polynomial may exceed it by one part in a thousand and stay below 2^16.
const LOG2_GREATEST: f32 = 15.988_152;

/// Queries become codes as [`attention_codes`](crate::generic::attention_codes) says, `sequence` holds those of keys and values. The powers of
/// the softmax, `65000 * 2^(y - max(y))`, are rounded to integers of sixteen bits for the product with the values; the sum that divides it
/// is that of the unrounded ones.
///
/// `out` is (queries, heads * head_size).
#[inline(always)]
pub(crate) fn attend<S: Simd, T: Int8Tile>(
    s: S,
    t: T,
    input: &AttentionInput<'_>,
    sequence: &QuantizedSequence,
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
    let sizes = PaddedSizes::new(tokens, head_size);
    let queries = HeadRows::new(
        input.queries,
        row_stride,
        query_count,
        [heads, head_size],
        &mut workspace.padded_queries,
    );
    let query_codes = &mut workspace.query_codes;
    query_codes.resize(query_count, heads * sizes.features, 1);
    let query_scales = workspace.query_scales.slice(query_count * heads);
    let codes = &mut query_codes.codes;
    quantize_heads(s, queries, i32::from(QUERY_OFFSET), codes, query_scales);
    let (query_codes, query_stride) = t.activations(query_codes, &mut workspace.activations);

    let keys = sequence
        .keys
        .filled::<i8>(heads * sizes.tokens * sizes.features);
    let key_scales = sequence.key_scales.filled::<f32>(heads * sizes.tokens);
    let key_corrections = sequence.key_corrections.filled::<i32>(heads * sizes.tokens);
    let values = sequence
        .values
        .filled::<i8>(heads * sizes.tokens * sizes.features);
    let value_scales = sequence.value_scales.filled::<f32>(heads * sizes.features);
    let value_corrections = has_power_offset::<T>().then(|| {
        let length = heads * sizes.segments * sizes.features;
        sequence.value_corrections.filled::<i32>(length)
    });

    let scores = workspace.scores.slice::<f32>(QUERY_BLOCK * sizes.tokens);
    let mut accumulators = Int8Accumulators::new();
    for head in 0..heads {
        let panels = QuantizedSequence::key_panels(keys, sizes, head);
        for block in (0..query_count).step_by(QUERY_BLOCK) {
            let count = QUERY_BLOCK.min(query_count - block);
            let mut factors = [0.0; QUERY_BLOCK];
            for (factor, query) in factors.iter_mut().zip(block..block + count) {
                *factor = query_scales[query * heads + head] * (input.scale * LOG2_E);
            }
            let mut block_scores = Scores {
                tokens,
                head,
                first_query: query_tokens.start + block,
                bias: input.bias,
                factors: &factors,
                key_scales: &key_scales[head * sizes.tokens..][..sizes.tokens],
                corrections: &key_corrections[head * sizes.tokens..][..sizes.tokens],
                scores: &mut *scores,
                stride: sizes.tokens,
                greatest: [s.splat(f32::NEG_INFINITY); LANES],
            };
            let rows = Int8Rows {
                codes: &query_codes[block * query_stride + head * sizes.features..],
                stride: query_stride,
                rows: count,
                unit: 1,
            };
            multiply_panels(s, t, rows, panels, &mut accumulators, &mut block_scores);

            let mut greatest = [0.0; LANES];
            s.store(lane_maxima(s, block_scores.greatest), &mut greatest);
            let mut exponents = Exponents {
                scores,
                stride: sizes.tokens,
                greatest: &greatest,
                factors: input.bias.is_none().then_some(&factors),
                count,
                sums: [s.splat(0.0); LANES],
            };
            let power_activations = &mut workspace.power_activations;
            let (codes, stride) = if T::WIDE {
                let length = count * sizes.tokens;
                exponents.store_wide(s, power_activations.slice(length));
                (&*power_activations.slice(length), sizes.tokens)
            } else {
                let powers = &mut workspace.powers;
                powers.resize(count, sizes.tokens, PLANES);
                exponents.store_planes(s, powers);
                t.activations(powers, power_activations)
            };
            let inverse = s.div(s.splat(1.0), lane_sums(s, exponents.sums));
            let mut inverse_sums = [0.0; LANES];
            s.store(inverse, &mut inverse_sums);

            let unit = if T::WIDE { 1 } else { PLANES };
            for segment in 0..sizes.segments {
                let first_group = value_segment(sizes.value_groups, segment).start;
                let rows = Int8Rows {
                    codes: &codes[first_group * INT8_GROUP..],
                    stride,
                    rows: unit * count,
                    unit,
                };
                let index = head * sizes.segments + segment;
                let mut outputs = Outputs {
                    out: &mut out[block * width + head * head_size..],
                    stride: width,
                    columns: head_size,
                    scales: &value_scales[head * sizes.features..][..sizes.features],
                    corrections: value_corrections
                        .map(|all| &all[index * sizes.features..][..sizes.features]),
                    inverse_sums: &inverse_sums,
                    planes: unit,
                    add: segment > 0,
                };
                let panels = QuantizedSequence::value_panels(values, sizes, head, segment);
                multiply_panels(s, t, rows, panels, &mut accumulators, &mut outputs);
            }
        }
    }
}

/// From the sums of queries and keys to scores: `f32(sum) * scale of the key`, and with a bias the exponent of two,
/// `fma(score, factor of the query, bias * log2(e))`. Keys beyond the last have minus infinity.
struct Scores<'a, S: Simd> {
    tokens: usize,
    head: usize,
    /// The token of the first row.
    first_query: usize,
    bias: Option<DistanceBias<'a>>,
    factors: &'a [f32; QUERY_BLOCK],
    /// (stride)
    key_scales: &'a [f32],
    /// (stride): what a query of zeros gives.
    corrections: &'a [i32],
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
        let corrections = load_sums::<S, VECTORS>(s, &self.corrections[first..]);
        // Only the last vector may have keys beyond the last.
        let whole = self.tokens - first >= VECTORS * LANES;
        for index in 0..tile.rows {
            let row = tile.first_row + index;
            let start = row * self.stride + first;
            let out = &mut self.scores[start..start + VECTORS * LANES];
            let mut greatest = self.greatest[row];
            let sums = tile.row::<VECTORS>(index);
            for (vector, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let sum = s.sub_i32(s.load_i32(&sums[vector]), corrections[vector]);
                let mut score = s.mul(s.to_f32(sum), scales[vector]);
                let token = first + vector * LANES;
                if let Some(bias) = self.bias {
                    let query = self.first_query + row;
                    let row_bias = bias.of_query(self.head, query, self.tokens);
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

/// The first `VECTORS` vectors of `numbers`.
#[inline(always)]
fn load_sums<S: Simd, const VECTORS: usize>(s: S, numbers: &[i32]) -> [S::I32; VECTORS] {
    let mut vectors = [s.splat_i32(0); VECTORS];
    for (vector, numbers) in vectors.iter_mut().zip(numbers.as_chunks().0) {
        *vector = s.load_i32(numbers);
    }
    vectors
}

/// The scores of a block of queries on their way to powers.
struct Exponents<'a, S: Simd> {
    /// (count, stride)
    scores: &'a [f32],
    stride: usize,
    greatest: &'a [f32; QUERY_BLOCK],
    /// What scores are multiplied by, if they are no exponents yet.
    factors: Option<&'a [f32; QUERY_BLOCK]>,
    count: usize,
    /// The powers of each query, lane by lane: filled here.
    sums: [S::F32; LANES],
}

impl<S: Simd> Exponents<'_, S> {
    /// Writes the powers less [`WIDE_POWER_OFFSET`] to `codes` (count, stride).
    #[inline(always)]
    fn store_wide(&mut self, s: S, codes: &mut [i16]) {
        for (query, codes) in codes.chunks_exact_mut(self.stride).enumerate() {
            let mut row = WideRow(codes.as_chunks_mut().0);
            self.store_row(s, query, &mut row);
        }
    }

    /// Writes the powers of each query to a row of `powers`.
    #[inline(always)]
    fn store_planes(&mut self, s: S, powers: &mut QuantizedRows) {
        for query in 0..self.count {
            let (high, low) = powers.planes_mut(query);
            let mut row = PlaneRows {
                high: high.as_chunks_mut().0,
                low: low.as_chunks_mut().0,
            };
            self.store_row(s, query, &mut row);
        }
    }

    /// Stores the rounded powers of one query and sums the unrounded ones.
    #[inline(always)]
    fn store_row(&mut self, s: S, query: usize, row: &mut impl PowerRow<S>) {
        let greatest = s.splat(self.greatest[query]);
        let factor = match self.factors {
            Some(factors) => s.splat(factors[query]),
            None => s.splat(1.0),
        };
        let log2_greatest = s.splat(LOG2_GREATEST);
        let scores = &self.scores[query * self.stride..][..self.stride];
        let mut sum = s.splat(0.0);
        for (vector, score) in scores.as_chunks::<LANES>().0.iter().enumerate() {
            // At most 0, so that a power is at most the greatest.
            let below = s.sub(s.load(score), greatest);
            let power = exp2_of_codes(s, s.fma(below, factor, log2_greatest));
            sum = s.add(sum, power);
            row.store(s, vector, s.round_to_i32(power));
        }
        self.sums[query] = sum;
    }
}

/// Where the powers of one query go: codes of sixteen bits.
trait PowerRow<S: Simd> {
    /// Sixteen codes, of the keys from `16 * vector` on.
    fn store(&mut self, s: S, vector: usize, codes: S::I32);
}

/// Codes less [`WIDE_POWER_OFFSET`].
struct WideRow<'a>(&'a mut [[i16; LANES]]);

impl<S: Simd> PowerRow<S> for WideRow<'_> {
    #[inline(always)]
    fn store(&mut self, s: S, vector: usize, codes: S::I32) {
        let lowered = s.sub_i32(codes, s.splat_i32(WIDE_POWER_OFFSET));
        s.store_i16(lowered, &mut self.0[vector]);
    }
}

/// High and low bytes of codes.
struct PlaneRows<'a> {
    high: &'a mut [[u8; LANES]],
    low: &'a mut [[u8; LANES]],
}

impl<S: Simd> PowerRow<S> for PlaneRows<'_> {
    #[inline(always)]
    fn store(&mut self, s: S, vector: usize, codes: S::I32) {
        s.store_u16_planes(codes, &mut self.low[vector], &mut self.high[vector]);
    }
}

/// From the sums of powers and values to the output: `fma(f32(high), 256, f32(low))`, which is `f32` of the whole sum, times
/// `scale of the feature * 1 / sum of the powers`.
struct Outputs<'a> {
    /// (queries, stride), from the first feature of the head on.
    out: &'a mut [f32],
    stride: usize,
    /// Features of a head.
    columns: usize,
    /// (features padded to sixteen)
    scales: &'a [f32],
    /// (features padded to sixteen): what powers of zero give, if not zeros.
    corrections: Option<&'a [i32]>,
    inverse_sums: &'a [f32; LANES],
    /// Rows of sums of a query: two of bytes, or one.
    planes: usize,
    /// Whether the output holds the products of earlier segments.
    add: bool,
}

impl<S: Simd> FinishTile<S> for Outputs<'_> {
    #[inline(always)]
    fn finish<const VECTORS: usize>(&mut self, s: S, tile: FinishedTile<'_>) {
        let first = tile.first_vector * LANES;
        let scales = load_vectors::<S, VECTORS>(s, &self.scales[first..]);
        let corrections = match self.corrections {
            Some(corrections) => load_sums::<S, VECTORS>(s, &corrections[first..]),
            None => [s.splat_i32(0); VECTORS],
        };
        let columns = first..self.columns.min(first + VECTORS * LANES);
        for index in 0..tile.rows / self.planes {
            let query = tile.first_row / self.planes + index;
            let inverse_sum = s.splat(self.inverse_sums[query]);
            let out = &mut self.out[query * self.stride..][columns.clone()];
            for (vector, out) in out.chunks_mut(LANES).enumerate() {
                let first_row = tile.row::<VECTORS>(self.planes * index);
                let sums = s.load_i32(&first_row[vector]);
                let mut sum = s.to_f32(s.sub_i32(sums, corrections[vector]));
                if self.planes == PLANES {
                    let low = tile.row::<VECTORS>(self.planes * index + 1);
                    let low = s.sub_i32(s.load_i32(&low[vector]), corrections[vector]);
                    sum = s.fma(sum, s.splat(256.0), s.to_f32(low));
                }
                let factor = s.mul(scales[vector], inverse_sum);
                let value = if self.add {
                    s.fma(sum, factor, s.load_up_to(out, 0.0))
                } else {
                    s.mul(sum, factor)
                };
                s.store_up_to(value, out);
            }
        }
    }
}
