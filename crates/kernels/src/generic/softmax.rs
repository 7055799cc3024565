//! The softmax of one row of scores.

use std::f32::consts::LOG2_E;

use crate::generic::exponential::exp2;
use crate::simd::{LANES, Simd};

/// Replaces raw scores by `2^(y - max(y))`, y being `score * (scale * log2(e))` or, with a bias, `fma(score, scale * log2(e), bias * log2(e))`,
/// and returns their sum: the softmax before its division. The sum is lane by lane in ascending order, then the tree of [`Simd::reduce_sum`].
///
/// `scores` is padded to whole vectors; the elements from `count` on become 0.
#[inline(always)]
pub(crate) fn exponentials<S: Simd>(
    s: S,
    scores: &mut [f32],
    count: usize,
    scale: f32,
    bias: Option<&[f32]>,
) -> f32 {
    let scale = s.splat(scale * LOG2_E);
    let nothing = s.splat(f32::NEG_INFINITY);
    let mut greatest = nothing;
    let vectors = scores.as_chunks_mut::<LANES>().0;
    for (index, vector) in vectors.iter_mut().enumerate() {
        let start = index * LANES;
        let present = LANES.min(count - start);
        let score = s.load(vector);
        let mut y = match bias {
            Some(bias) => {
                let bias = s.load_up_to(&bias[start..start + present], 0.0);
                s.fma(score, scale, s.mul(bias, s.splat(LOG2_E)))
            }
            None => s.mul(score, scale),
        };
        if present < LANES {
            y = s.select(s.first_lanes(present), y, nothing);
        }
        greatest = s.max(y, greatest);
        s.store(y, vector);
    }
    let greatest = s.splat(s.reduce_max(greatest));
    let mut sum = s.splat(0.0);
    for vector in vectors {
        let value = exp2(s, s.sub(s.load(vector), greatest));
        sum = s.add(sum, value);
        s.store(value, vector);
    }
    s.reduce_sum(sum)
}
