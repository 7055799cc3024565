//! Scores of attention between contents and relative positions: see [`RelativePositions`].
//!
//! Neighbouring queries and keys share most of their distances, so that a product of some of them with the buckets that they reach costs
//! little more than their product with one another. Its elements are then picked by distance.

use std::ops::Range;

use crate::aligned::{Plain, Scratch};
use crate::attention::{AttentionInput, RelativePositions};
use crate::float_tile::{AttentionTile, Columns, Combine, Rows};
use crate::generic::attention::{QUERY_BLOCK, pack_keys};
use crate::generic::f32_tile::panels_at_once;
use crate::generic::vector;
use crate::output_columns::OutputColumns;
use crate::panels::panel_count;
use crate::simd::{LANES, Simd};
use crate::workspace::PositionScratch;

/// Queries whose scores for the queries of positions are computed together: many enough that neighbouring keys share most buckets, few enough
/// that the scores stay in the second-level cache.
pub(crate) const POSITION_QUERIES: usize = 6 * QUERY_BLOCK;

/// Scores of positions of one head.
pub(crate) struct PositionScores<'a, 'i, E> {
    input: &'a AttentionInput<'i>,
    positions: RelativePositions<'i>,
    head: usize,
    /// Panels of the keys of the positions `packed`, if there are any.
    panels: &'a [E],
    packed: Range<usize>,
    /// (queries, padded window): scores for the keys of positions.
    scores: &'a mut Scratch,
    /// (window, 16): scores of sixteen keys for the queries of positions.
    products: &'a mut Scratch,
    /// ([`POSITION_QUERIES`], padded tokens): the same, picked by distance.
    picked: &'a mut Scratch,
    padded_tokens: usize,
}

impl RelativePositions<'_> {
    /// The buckets of the keys `0..tokens` for one query.
    #[inline(always)]
    fn of_query(&self, query: usize, tokens: usize) -> &[u32] {
        &self.buckets[self.center - query..][..tokens]
    }

    /// All buckets of some keys for some queries, neither being empty.
    #[inline(always)]
    fn reached(&self, queries: Range<usize>, keys: Range<usize>) -> Range<usize> {
        let first = self.buckets[self.center + keys.start - (queries.end - 1)];
        let last = self.buckets[self.center + keys.end - 1 - queries.start];
        first as usize..last as usize + 1
    }
}

impl<'a, 'i, E: Plain> PositionScores<'a, 'i, E> {
    /// Packs the keys of the positions that the queries of `input` reach. There are queries and features.
    #[inline(always)]
    pub(crate) fn of_head<S: Simd, T: AttentionTile<S, Element = E>>(
        s: S,
        t: T,
        input: &'a AttentionInput<'i>,
        positions: RelativePositions<'i>,
        head: usize,
        scratch: &'a mut PositionScratch,
    ) -> Self {
        let PositionScratch {
            keys: packed_keys,
            scores,
            products,
            picked,
        } = scratch;
        let (tokens, head_size) = (input.tokens, input.head_size);
        let packed = positions.reached(input.query_tokens.clone(), 0..tokens);
        let panels: &mut [E] = match positions.keys {
            None => &mut [],
            Some(keys) => {
                let depth = head_size.div_ceil(T::NUMBERS);
                let panels = packed_keys.slice(panel_count(packed.len()) * LANES * depth);
                let stride = positions.row_stride;
                let keys = &keys[packed.start * stride + head * head_size..];
                pack_keys(s, t, keys, stride, packed.len(), head_size, panels);
                panels
            }
        };
        Self {
            input,
            positions,
            head,
            panels,
            packed,
            scores,
            products,
            picked,
            padded_tokens: panel_count(tokens) * LANES,
        }
    }

    /// Picks the scores of all keys for the queries of positions, for the queries from `first` on, as many as [`POSITION_QUERIES`]. `keys`
    /// are the panels of the head.
    #[inline(always)]
    pub(crate) fn multiply_keys<S: Simd, T: AttentionTile<S, Element = E>>(
        &mut self,
        s: S,
        t: T,
        first: usize,
        keys: &[E],
        activations: &mut Scratch,
    ) {
        let Some(position_queries) = self.positions.queries else {
            return;
        };
        let (input, positions) = (self.input, self.positions);
        let (tokens, head_size) = (input.tokens, input.head_size);
        let all = &input.query_tokens;
        let queries = all.start + first..all.end.min(all.start + first + POSITION_QUERIES);
        let padded_tokens = self.padded_tokens;
        let picked = self.picked.slice::<f32>(queries.len() * padded_tokens);
        let panel_length = head_size.div_ceil(T::NUMBERS) * LANES;
        for (index, panel) in keys.chunks_exact(panel_length).enumerate() {
            let first_key = index * LANES;
            let keys = first_key..tokens.min(first_key + LANES);
            let window = positions.reached(queries.clone(), keys.clone());
            let start = window.start * positions.row_stride + self.head * head_size;
            let rows = Rows {
                values: &position_queries[start..],
                stride: positions.row_stride,
                count: window.len(),
            };
            let rows = t.activations(s, rows, head_size, activations);
            let products = self.products.slice::<f32>(window.len() * LANES);
            let mut columns = Columns {
                columns: OutputColumns::of_matrix(products, LANES),
                bias: None,
                combine: Combine::Replace,
            };
            t.multiply(s, rows, panel, 1, head_size, &mut columns);
            let rows = picked.chunks_exact_mut(padded_tokens);
            for (row, query) in rows.zip(queries.clone()) {
                let buckets = &positions.of_query(query, tokens)[keys.clone()];
                let row = &mut row[keys.clone()];
                for (lane, (score, &bucket)) in row.iter_mut().zip(buckets).enumerate() {
                    *score = products[(bucket as usize - window.start) * LANES + lane];
                }
            }
        }
    }

    /// Adds to `scores` (queries, padded tokens) of the queries from `first` on, of which `rows` are in the form that the tile reads: for each
    /// the score of the query for the key of the position, then the one that [`PositionScores::multiply_keys`] has picked for its block.
    #[inline(always)]
    pub(crate) fn add<S: Simd, T: AttentionTile<S, Element = E>>(
        &mut self,
        s: S,
        t: T,
        first: usize,
        rows: Rows<'_, T::Activation>,
        scores: &mut [f32],
    ) {
        let (positions, tokens) = (self.positions, self.input.tokens);
        let first_query = self.input.query_tokens.start + first;
        let queries = first_query..first_query + rows.count;
        if positions.keys.is_some() {
            let window = positions.reached(queries.clone(), 0..tokens);
            let first_panel = (window.start - self.packed.start) / LANES;
            let panels = first_panel..panel_count(window.end - self.packed.start);
            let columns = panels.len() * LANES;
            let first_bucket = self.packed.start + first_panel * LANES;
            let by_bucket = self.scores.slice::<f32>(rows.count * columns);
            multiply_panels(
                s,
                t,
                rows,
                self.panels,
                panels,
                self.input.head_size,
                by_bucket,
            );
            let score_rows = scores.chunks_exact_mut(self.padded_tokens);
            let by_bucket = by_bucket.chunks_exact(columns);
            for ((row, by_bucket), query) in score_rows.zip(by_bucket).zip(queries) {
                let buckets = positions.of_query(query, tokens);
                add_by_bucket(s, row, buckets, by_bucket, first_bucket);
            }
        }
        if positions.queries.is_some() {
            let start = first % POSITION_QUERIES * self.padded_tokens;
            let length = rows.count * self.padded_tokens;
            let picked = &self.picked.filled::<f32>(start + length)[start..];
            vector::add(s, &mut scores[..length], picked);
        }
    }
}

/// The products of rows with some of the panels, to `out` (rows, panels * 16).
#[inline(always)]
fn multiply_panels<S: Simd, T: AttentionTile<S>>(
    s: S,
    t: T,
    rows: Rows<'_, T::Activation>,
    panels: &[T::Element],
    wanted: Range<usize>,
    depth: usize,
    out: &mut [f32],
) {
    let panel_length = depth.div_ceil(T::NUMBERS) * LANES;
    let columns = wanted.len() * LANES;
    let mut panel = wanted.start;
    while panel < wanted.end {
        let at_once = panels_at_once::<S>(rows.count, wanted.end - panel);
        let first = (panel - wanted.start) * LANES;
        let mut out = OutputColumns::of_matrix(out, columns);
        let mut columns = Columns {
            columns: out.part(first..first + at_once * LANES),
            bias: None,
            combine: Combine::Replace,
        };
        let panels = &panels[panel * panel_length..];
        t.multiply(s, rows, panels, at_once, depth, &mut columns);
        panel += at_once;
    }
}

/// Adds to each element of `scores` that of `by_bucket` with its bucket, whose first one is that of `first_bucket`. `scores` is padded to whole
/// vectors.
#[inline(always)]
fn add_by_bucket<S: Simd>(
    s: S,
    scores: &mut [f32],
    buckets: &[u32],
    by_bucket: &[f32],
    first_bucket: usize,
) {
    let vectors = scores.as_chunks_mut::<LANES>().0;
    let (whole, rest) = buckets.as_chunks::<LANES>();
    let add = |vector: &mut [f32; LANES], lanes: &[f32; LANES]| {
        s.store(s.add(s.load(vector), s.load(lanes)), vector);
    };
    let pick = |buckets: &[u32], lanes: &mut [f32; LANES]| {
        for (lane, &bucket) in lanes.iter_mut().zip(buckets) {
            *lane = by_bucket[bucket as usize - first_bucket];
        }
    };
    for (vector, buckets) in vectors.iter_mut().zip(whole) {
        // Near tokens have a bucket for each distance: next to one another.
        let first = buckets[0];
        let follow = buckets.iter().zip(first..);
        if follow.fold(0, |wrong, (bucket, expected)| wrong | (bucket ^ expected)) == 0 {
            let start = first as usize - first_bucket;
            if let Some(lanes) = by_bucket[start..].first_chunk() {
                add(vector, lanes);
                continue;
            }
        }
        let mut lanes = [0.0; LANES];
        pick(buckets, &mut lanes);
        add(vector, &lanes);
    }
    if let Some(vector) = vectors.get_mut(whole.len()) {
        let mut lanes = [0.0; LANES];
        pick(rest, &mut lanes);
        add(vector, &lanes);
    }
}
