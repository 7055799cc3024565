//! Attention of one sequence with both products in integers.

use std::f32::consts::LOG2_E;

use crate::aligned::Scratch;
use crate::attention::{AttentionInput, DistanceBias};
use crate::generic::attention_codes::{HeadRows, quantize_heads, value_segment};
use crate::generic::attention_exponentials::{ExponentialRows, Exponents};
use crate::generic::attention_sequence::{PaddedSizes, QUERY_OFFSET, has_exponential_offset};
use crate::generic::int8_panels::{Int8Rows, TileEpilogue, TileSums, multiply_panels};
use crate::generic::vector::lane_maxima;
use crate::int8_tile::{INT8_GROUP, Int8Accumulators, Int8Tile};
use crate::quantized_rows::{PLANES, QuantizedRows};
use crate::quantized_sequence::QuantizedSequence;
use crate::simd::{LANES, Simd};
use crate::workspace::Workspace;

/// Queries that are handled together: one for each lane, so that what is left of a row at its end is reduced for all of them at once.
const QUERY_BLOCK: usize = LANES;

/// Queries become codes as [`attention_codes`](crate::generic::attention_codes) says, `sequence` holds those of keys and values. The
/// exponentials of the softmax, `65000 * 2^(y - max(y))`, are rounded to integers of sixteen bits for the product with the values; the sum
/// that divides it is that of the unrounded ones.
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
    let (heads, query_count) = (input.heads, input.query_tokens.len());
    if query_count == 0 || heads * input.head_size == 0 {
        return;
    }
    let Workspace {
        padded_queries,
        query_codes,
        query_scales,
        activations,
        scores,
        exponentials: exponential_codes,
        exponential_activations,
        ..
    } = workspace;
    let keys_and_values = KeysAndValues::of::<T>(sequence, input);
    let tokens = keys_and_values.sizes.tokens;
    let query_scales = query_scales.slice(query_count * heads);
    quantize_queries(s, input, padded_queries, query_codes, query_scales);
    let (codes, stride) = t.activations(query_codes, activations);
    let queries = Queries {
        codes,
        stride,
        scales: query_scales,
    };
    let scores = scores.slice::<f32>(QUERY_BLOCK * tokens);
    let mut accumulators = Int8Accumulators::new();
    let group = heads / input.key_value_heads;
    for head in 0..heads {
        for first in (0..query_count).step_by(QUERY_BLOCK) {
            let mut block = QueryBlock {
                s,
                t,
                input,
                keys_and_values: &keys_and_values,
                head,
                key_head: head / group,
                first,
                count: QUERY_BLOCK.min(query_count - first),
                accumulators: &mut accumulators,
            };
            let factors = block.score_factors(&queries);
            let greatest = block.multiply_keys(&queries, &factors, scores);
            let exponents = Exponents {
                scores,
                stride: tokens,
                greatest: &greatest,
                factors: input.bias.is_none().then_some(&factors),
                count: block.count,
            };
            let exponentials = exponents.store(s, t, exponential_codes, exponential_activations);
            block.multiply_values(&exponentials, out);
        }
    }
}

/// Queries of one head that are handled together, and what they attend to.
struct QueryBlock<'a, S, T> {
    s: S,
    t: T,
    input: &'a AttentionInput<'a>,
    keys_and_values: &'a KeysAndValues<'a>,
    head: usize,
    /// The head of keys and values that it attends to.
    key_head: usize,
    /// The first query.
    first: usize,
    /// At most [`QUERY_BLOCK`].
    count: usize,
    accumulators: &'a mut Int8Accumulators,
}

impl<S: Simd, T: Int8Tile> QueryBlock<'_, S, T> {
    /// For each query, the factor that turns its scores into exponents of two.
    #[inline(always)]
    fn score_factors(&self, queries: &Queries<'_, T::Activation>) -> [f32; QUERY_BLOCK] {
        let mut factors = [0.0; QUERY_BLOCK];
        for (factor, query) in factors.iter_mut().zip(self.first..self.first + self.count) {
            let scale = queries.scales[query * self.input.heads + self.head];
            *factor = scale * (self.input.scale * LOG2_E);
        }
        factors
    }

    /// Fills `scores` ([`QUERY_BLOCK`], padded tokens), and returns the greatest score of each query.
    #[inline(always)]
    fn multiply_keys(
        &mut self,
        queries: &Queries<'_, T::Activation>,
        factors: &[f32; QUERY_BLOCK],
        scores: &mut [f32],
    ) -> [f32; LANES] {
        let (s, input, keys) = (self.s, self.input, self.keys_and_values);
        let sizes = keys.sizes;
        let first_key = self.key_head * sizes.tokens;
        let mut scores = Scores {
            tokens: input.tokens,
            head: self.head,
            first_query: input.query_tokens.start + self.first,
            bias: input.bias,
            factors,
            key_scales: &keys.key_scales[first_key..][..sizes.tokens],
            corrections: &keys.key_corrections[first_key..][..sizes.tokens],
            scores,
            stride: sizes.tokens,
            greatest: [s.splat(f32::NEG_INFINITY); LANES],
        };
        let rows = Int8Rows {
            codes: &queries.codes[self.first * queries.stride + self.head * sizes.features..],
            stride: queries.stride,
            rows: self.count,
            planes: 1,
        };
        let panels = QuantizedSequence::key_panels(keys.keys, sizes, self.key_head);
        multiply_panels(s, self.t, rows, panels, self.accumulators, &mut scores);
        let mut greatest = [0.0; LANES];
        s.store(lane_maxima(s, scores.greatest), &mut greatest);
        greatest
    }

    /// Writes the outputs: the values, weighted by the exponentials, divided by the sums of these.
    #[inline(always)]
    fn multiply_values(
        &mut self,
        exponentials: &ExponentialRows<'_, T::Activation>,
        out: &mut [f32],
    ) {
        let (input, values) = (self.input, self.keys_and_values);
        let (sizes, planes) = (values.sizes, exponentials.planes);
        let width = input.heads * input.head_size;
        for segment in 0..sizes.segments {
            let first_group = value_segment(sizes.value_groups, segment).start;
            let rows = Int8Rows {
                codes: &exponentials.codes[first_group * INT8_GROUP..],
                stride: exponentials.stride,
                rows: planes * self.count,
                planes,
            };
            let index = self.key_head * sizes.segments + segment;
            let mut outputs = Outputs {
                out: &mut out[self.first * width + self.head * input.head_size..],
                stride: width,
                columns: input.head_size,
                scales: &values.value_scales[self.key_head * sizes.features..][..sizes.features],
                corrections: values
                    .value_corrections
                    .map(|all| &all[index * sizes.features..][..sizes.features]),
                inverse_sums: &exponentials.inverse_sums,
                planes,
                add: segment > 0,
            };
            let panels =
                QuantizedSequence::value_panels(values.values, sizes, self.key_head, segment);
            multiply_panels(
                self.s,
                self.t,
                rows,
                panels,
                self.accumulators,
                &mut outputs,
            );
        }
    }
}

/// The codes of all queries as the tile reads them.
struct Queries<'a, A> {
    /// (queries, stride): of each query head after head.
    codes: &'a [A],
    stride: usize,
    /// (queries, heads)
    scales: &'a [f32],
}

/// What a [`QuantizedSequence`] holds.
struct KeysAndValues<'a> {
    sizes: PaddedSizes,
    keys: &'a [i8],
    key_scales: &'a [f32],
    key_corrections: &'a [i32],
    values: &'a [i8],
    value_scales: &'a [f32],
    /// None where they are zeros.
    value_corrections: Option<&'a [i32]>,
}

impl<'a> KeysAndValues<'a> {
    /// Of `sequence`, which holds the keys and values of `input`.
    #[inline(always)]
    fn of<T: Int8Tile>(sequence: &'a QuantizedSequence, input: &AttentionInput<'_>) -> Self {
        let sizes = PaddedSizes::new(input.tokens, input.head_size);
        let heads = input.key_value_heads;
        let codes = heads * sizes.tokens * sizes.features;
        let value_corrections = has_exponential_offset::<T>().then(|| {
            let length = heads * sizes.segments * sizes.features;
            sequence.value_corrections.filled::<i32>(length)
        });
        Self {
            sizes,
            keys: sequence.keys.filled(codes),
            key_scales: sequence.key_scales.filled(heads * sizes.tokens),
            key_corrections: sequence.key_corrections.filled(heads * sizes.tokens),
            values: sequence.values.filled(codes),
            value_scales: sequence.value_scales.filled(heads * sizes.features),
            value_corrections,
        }
    }
}

/// Fills `codes` with the codes of all queries and `scales` (queries, heads) with their scales.
#[inline(always)]
fn quantize_queries<S: Simd>(
    s: S,
    input: &AttentionInput<'_>,
    padded: &mut Scratch,
    codes: &mut QuantizedRows,
    scales: &mut [f32],
) {
    let (heads, head_size) = (input.heads, input.head_size);
    let count = input.query_tokens.len();
    let shape = [heads, head_size];
    let queries = HeadRows::new(input.queries, input.row_stride, count, shape, padded);
    codes.resize(count, heads * head_size.next_multiple_of(LANES), 1);
    let offset = i32::from(QUERY_OFFSET);
    quantize_heads(s, queries, offset, &mut codes.codes, scales);
}

/// Makes scores of the sums of products of queries and keys: `f32(sum) * scale of the key`, and with a bias the exponent of two,
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
    /// (stride), the zero-point corrections: the sums that a query of zeros gives.
    corrections: &'a [i32],
    /// (rows, stride)
    scores: &'a mut [f32],
    stride: usize,
    /// Lane by lane, for each row.
    greatest: [S::F32; LANES],
}

impl<S: Simd> TileEpilogue<S> for Scores<'_, S> {
    #[inline(always)]
    fn apply<const VECTORS: usize>(&mut self, s: S, tile: TileSums<'_>) {
        let first = tile.first_vector * LANES;
        let scales = load_vectors::<S, VECTORS>(s, &self.key_scales[first..]);
        let corrections = load_sums::<S, VECTORS>(s, &self.corrections[first..]);
        // Only the last vector may have keys beyond the last.
        let all_are_keys = self.tokens - first >= VECTORS * LANES;
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
                if !all_are_keys && self.tokens - token < LANES {
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

/// The first `VECTORS` vectors of the integers `numbers`.
#[inline(always)]
fn load_sums<S: Simd, const VECTORS: usize>(s: S, numbers: &[i32]) -> [S::I32; VECTORS] {
    let mut vectors = [s.splat_i32(0); VECTORS];
    for (vector, numbers) in vectors.iter_mut().zip(numbers.as_chunks().0) {
        *vector = s.load_i32(numbers);
    }
    vectors
}

/// Makes outputs of the sums of products of exponentials and values: `fma(f32(high), 256, f32(low))`, which is `f32` of the full sum, times
/// `scale of the feature * 1 / sum of the exponentials`.
struct Outputs<'a> {
    /// (queries, stride), from the first feature of the head on.
    out: &'a mut [f32],
    stride: usize,
    /// Features of a head.
    columns: usize,
    /// (features padded to sixteen)
    scales: &'a [f32],
    /// (features padded to sixteen), the zero-point corrections: the sums that exponentials of zero give. None where those are zeros.
    corrections: Option<&'a [i32]>,
    inverse_sums: &'a [f32; LANES],
    /// Rows of sums of a query: two of bytes, or one.
    planes: usize,
    /// Whether the output holds the products of earlier segments.
    add: bool,
}

impl<S: Simd> TileEpilogue<S> for Outputs<'_> {
    #[inline(always)]
    fn apply<const VECTORS: usize>(&mut self, s: S, tile: TileSums<'_>) {
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
