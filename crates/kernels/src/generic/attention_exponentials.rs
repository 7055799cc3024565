//! The exponentials of the softmax as integers, for attention with both products in integers.

use crate::aligned::Scratch;
use crate::generic::attention_sequence::WIDE_EXPONENTIAL_OFFSET;
use crate::generic::exponential::exp2_of_codes;
use crate::generic::vector::lane_sums;
use crate::int8_tile::Int8Tile;
use crate::quantized_rows::{PLANES, QuantizedRows};
use crate::simd::{LANES, Simd};

/// log2 of the code of the greatest exponential, 65000: the polynomial may exceed it by one part in a thousand and stay below 2^16.
const LOG2_GREATEST: f32 = 15.988_152;

/// The exponentials of at most sixteen queries as the tile reads them.
pub(crate) struct ExponentialRows<'a, A> {
    /// Rows of codes, [`planes`](Self::planes) for each query.
    pub(crate) codes: &'a [A],
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    /// Rows of a query: one of codes of sixteen bits, or [`PLANES`] of bytes.
    pub(crate) planes: usize,
    /// For each query, the inverse of the sum of its unrounded exponentials.
    pub(crate) inverse_sums: [f32; LANES],
}

/// The scores of a block of queries, whose differences from the greatest are the exponents of the softmax.
pub(crate) struct Exponents<'a> {
    /// (count, stride)
    pub(crate) scores: &'a [f32],
    pub(crate) stride: usize,
    /// Of each query.
    pub(crate) greatest: &'a [f32; LANES],
    /// What scores are multiplied by, if they are no exponents yet.
    pub(crate) factors: Option<&'a [f32; LANES]>,
    pub(crate) count: usize,
}

impl Exponents<'_> {
    /// Computes the exponentials, with their codes in `planes` or `activations`.
    #[inline(always)]
    pub(crate) fn store<'a, S: Simd, T: Int8Tile>(
        &self,
        s: S,
        t: T,
        planes: &'a mut QuantizedRows,
        activations: &'a mut Scratch,
    ) -> ExponentialRows<'a, T::Activation> {
        let mut sums = [s.splat(0.0); LANES];
        let (codes, stride) = if T::WIDE {
            let length = self.count * self.stride;
            self.store_wide(s, activations.slice(length), &mut sums);
            (&*activations.slice(length), self.stride)
        } else {
            planes.resize(self.count, self.stride, PLANES);
            self.store_planes(s, planes, &mut sums);
            t.activations(planes, activations)
        };
        let mut inverse_sums = [0.0; LANES];
        let inverse = s.div(s.splat(1.0), lane_sums(s, sums));
        s.store(inverse, &mut inverse_sums);
        ExponentialRows {
            codes,
            stride,
            planes: if T::WIDE { 1 } else { PLANES },
            inverse_sums,
        }
    }

    /// Writes the exponentials less [`WIDE_EXPONENTIAL_OFFSET`] to `codes` (count, stride).
    #[inline(always)]
    fn store_wide<S: Simd>(&self, s: S, codes: &mut [i16], sums: &mut [S::F32; LANES]) {
        let rows = codes.chunks_exact_mut(self.stride).zip(sums);
        for (query, (codes, sum)) in rows.enumerate() {
            let mut row = WideRow(codes.as_chunks_mut().0);
            *sum = self.store_row(s, query, &mut row);
        }
    }

    /// Writes the exponentials of each query to a row of `rows`.
    #[inline(always)]
    fn store_planes<S: Simd>(&self, s: S, rows: &mut QuantizedRows, sums: &mut [S::F32; LANES]) {
        for (query, sum) in (0..self.count).zip(sums) {
            let (high, low) = rows.planes_mut(query);
            let mut row = PlaneRows {
                high: high.as_chunks_mut().0,
                low: low.as_chunks_mut().0,
            };
            *sum = self.store_row(s, query, &mut row);
        }
    }

    /// Stores the rounded exponentials of one query and returns the sum of the unrounded ones, lane by lane.
    #[inline(always)]
    fn store_row<S: Simd>(&self, s: S, query: usize, row: &mut impl ExponentialRow<S>) -> S::F32 {
        let greatest = s.splat(self.greatest[query]);
        let factor = match self.factors {
            Some(factors) => s.splat(factors[query]),
            None => s.splat(1.0),
        };
        let log2_greatest = s.splat(LOG2_GREATEST);
        let scores = &self.scores[query * self.stride..][..self.stride];
        let mut sum = s.splat(0.0);
        for (vector, score) in scores.as_chunks::<LANES>().0.iter().enumerate() {
            // At most 0, so that an exponential is at most the greatest.
            let below = s.sub(s.load(score), greatest);
            let exponential = exp2_of_codes(s, s.fma(below, factor, log2_greatest));
            sum = s.add(sum, exponential);
            row.store(s, vector, s.round_to_i32(exponential));
        }
        sum
    }
}

/// Memory for the exponentials of one query, as codes of sixteen bits.
trait ExponentialRow<S: Simd> {
    /// Sixteen codes, of the keys from `16 * vector` on.
    fn store(&mut self, s: S, vector: usize, codes: S::I32);
}

/// Codes less [`WIDE_EXPONENTIAL_OFFSET`].
struct WideRow<'a>(&'a mut [[i16; LANES]]);

impl<S: Simd> ExponentialRow<S> for WideRow<'_> {
    #[inline(always)]
    fn store(&mut self, s: S, vector: usize, codes: S::I32) {
        let lowered = s.sub_i32(codes, s.splat_i32(WIDE_EXPONENTIAL_OFFSET));
        s.store_i16(lowered, &mut self.0[vector]);
    }
}

/// High and low bytes of codes.
struct PlaneRows<'a> {
    high: &'a mut [[u8; LANES]],
    low: &'a mut [[u8; LANES]],
}

impl<S: Simd> ExponentialRow<S> for PlaneRows<'_> {
    #[inline(always)]
    fn store(&mut self, s: S, vector: usize, codes: S::I32) {
        s.store_u16_planes(codes, &mut self.low[vector], &mut self.high[vector]);
    }
}
