//! The scale of each NF4 or FP4 block with the least squared error: [`fewbit_numerics::four_bit_scales`], bit for bit.

use fewbit_numerics::four_bit::{FourBitType, MINIMUM_ABSMAX};
use fewbit_numerics::four_bit_scales::SHARES;

use crate::generic::four_bit_codec::{Buckets, Encoder};
use crate::generic::side_by_side::{SideBySide, Sums};
use crate::simd::{LANES, Simd};

/// Whole blocks, and their scales.
pub(crate) struct FitFourBitScales<'a> {
    pub(crate) values: &'a [f32],
    /// What the squared error of each element counts.
    pub(crate) importance: Option<&'a [f32]>,
    pub(crate) block_size: usize,
    pub(crate) kind: FourBitType,
    /// The largest magnitudes at first.
    pub(crate) scales: &'a mut [f32],
}

#[inline(always)]
pub(crate) fn fit<S: Simd>(s: S, call: FitFourBitScales<'_>) {
    let buckets = Buckets::new(call.kind);
    let encoder = Encoder::new(s, call.kind, &buckets);
    match (buckets.splits_at_zero, call.importance.is_some()) {
        (true, true) => fit_blocks::<S, true, true>(s, call, encoder),
        (true, false) => fit_blocks::<S, true, false>(s, call, encoder),
        (false, true) => fit_blocks::<S, false, true>(s, call, encoder),
        (false, false) => fit_blocks::<S, false, false>(s, call, encoder),
    }
}

#[inline(always)]
fn fit_blocks<S: Simd, const ZERO: bool, const WEIGHTED: bool>(
    s: S,
    call: FitFourBitScales<'_>,
    encoder: Encoder<S>,
) {
    let FitFourBitScales {
        values,
        importance,
        block_size,
        kind,
        scales,
    } = call;
    let by_rank = kind
        .ascending_codes()
        .map(|code| kind.table()[usize::from(code)]);
    let error_of = BlockError::<S, ZERO, WEIGHTED> {
        encoder,
        by_rank: s.load(&by_rank),
    };
    let mut blocks = SideBySide::new();
    let elements = block_size * LANES;
    for (index, scales) in scales.chunks_mut(LANES).enumerate() {
        let part = index * elements..(index * elements + block_size * scales.len());
        let importance = importance.map(|importance| &importance[part.clone()]);
        blocks.fill(&values[part], importance, block_size);
        let absmax = s.load_partial(scales, 0.0);
        let (mut best, mut best_error) = (absmax, error_of.fit(s, &blocks, absmax).0);
        for share in SHARES {
            let scale = s.mul(absmax, s.splat(f32::from(share) / 64.0));
            let (error, fitted) = error_of.fit(s, &blocks, scale);
            keep_better(s, scale, error, &mut best, &mut best_error);
            let (error, _) = error_of.fit(s, &blocks, fitted);
            keep_better(s, fitted, error, &mut best, &mut best_error);
        }
        s.store_partial(best, scales);
    }
}

/// Keeps scales that are positive, finite and of less error.
#[inline(always)]
fn keep_better<S: Simd>(
    s: S,
    scale: S::F32,
    error: S::F32,
    best: &mut S::F32,
    best_error: &mut S::F32,
) {
    let infinity = s.splat(f32::INFINITY);
    let error = s.select(s.less(scale, infinity), error, infinity);
    let error = s.select(s.less(s.splat(0.0), scale), error, infinity);
    let better = s.less(error, *best_error);
    *best = s.select(better, scale, *best);
    *best_error = s.select(better, error, *best_error);
}

/// The error that a block has with a scale.
struct BlockError<S: Simd, const ZERO: bool, const WEIGHTED: bool> {
    encoder: Encoder<S>,
    /// The code table in ascending order.
    by_rank: S::F32,
}

impl<S: Simd, const ZERO: bool, const WEIGHTED: bool> BlockError<S, ZERO, WEIGHTED> {
    /// The error, and the scale with which the same codes have the least. Scales of 0 or less and such as are not finite give anything.
    #[inline(always)]
    fn fit(&self, s: S, blocks: &SideBySide, scale: S::F32) -> (S::F32, S::F32) {
        let (one, least) = (s.splat(1.0), s.splat(MINIMUM_ABSMAX));
        let inverse = s.div(one, s.max(scale, least));
        let minus_one = s.splat(-1.0);
        let mut sums = Sums::new(s);
        for (index, x) in blocks.values.iter().enumerate() {
            let x = s.load(x);
            // What is beyond the ends of the table has the codes of these.
            let position = s.min(s.max(s.mul(x, inverse), minus_one), one);
            let ranks = self.encoder.ranks::<ZERO>(s, position);
            let value = s.lookup(self.by_rank, ranks);
            sums.add::<WEIGHTED>(s, blocks, index, [x, value, scale]);
        }
        (sums.error, sums.fitted_scale(s))
    }
}
