//! Operations on whole vectors of any length. Remainders are partial vectors with a neutral fill: they give what the loop gives.

use crate::simd::{LANES, Simd};

/// Accumulators of a sum, so that additions need not wait for one another.
const ACCUMULATORS: usize = 4;

/// What a sum adds up for each element.
pub(crate) trait Term<S: Simd>: Copy {
    /// `sum` plus the term of x; a term of zero for x = [`Term::neutral`].
    fn accumulate(self, s: S, sum: S::F32, x: S::F32) -> S::F32;
    /// Stands in for the elements that a partial vector lacks.
    fn neutral(self) -> f32;
}

/// x
#[derive(Clone, Copy)]
pub(crate) struct Value;
impl<S: Simd> Term<S> for Value {
    #[inline(always)]
    fn accumulate(self, s: S, sum: S::F32, x: S::F32) -> S::F32 {
        s.add(sum, x)
    }
    #[inline(always)]
    fn neutral(self) -> f32 {
        0.0
    }
}

/// (x - center)^2
#[derive(Clone, Copy)]
pub(crate) struct SquaredDistance {
    pub(crate) center: f32,
}
impl<S: Simd> Term<S> for SquaredDistance {
    #[inline(always)]
    fn accumulate(self, s: S, sum: S::F32, x: S::F32) -> S::F32 {
        let distance = s.sub(x, s.splat(self.center));
        s.fma(distance, distance, sum)
    }
    #[inline(always)]
    fn neutral(self) -> f32 {
        self.center
    }
}

/// Sum of a term over all elements, in one fixed order: vectors go round-robin into four accumulators, those after the last whole round and
/// the partial one into the first; then ((0 + 1) + (2 + 3)) and the tree of [`Simd::reduce_sum`].
#[inline(always)]
pub(crate) fn sum<S: Simd, T: Term<S>>(s: S, term: T, x: &[f32]) -> f32 {
    let mut sums = [s.splat(0.0); ACCUMULATORS];
    let (rounds, rest) = x.as_chunks::<{ ACCUMULATORS * LANES }>();
    for round in rounds {
        let vectors = round.as_chunks::<LANES>().0;
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            *sum = term.accumulate(s, *sum, s.load(vector));
        }
    }
    let (vectors, tail) = rest.as_chunks::<LANES>();
    for vector in vectors {
        sums[0] = term.accumulate(s, sums[0], s.load(vector));
    }
    if !tail.is_empty() {
        sums[0] = term.accumulate(s, sums[0], s.load_partial(tail, term.neutral()));
    }
    s.reduce_sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

/// x += y
#[inline(always)]
pub(crate) fn add<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    let (x, x_tail) = x.as_chunks_mut::<LANES>();
    let (y, y_tail) = y.as_chunks::<LANES>();
    for (x, y) in x.iter_mut().zip(y) {
        s.store(s.add(s.load(x), s.load(y)), x);
    }
    if !x_tail.is_empty() {
        let sum = s.add(s.load_partial(x_tail, 0.0), s.load_partial(y_tail, 0.0));
        s.store_partial(sum, x_tail);
    }
}

/// x *= factor
#[inline(always)]
pub(crate) fn multiply<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    let (vectors, tail) = x.as_chunks_mut::<LANES>();
    for vector in vectors {
        s.store(s.mul(s.load(vector), factor), vector);
    }
    if !tail.is_empty() {
        s.store_partial(s.mul(s.load_partial(tail, 0.0), factor), tail);
    }
}

/// x /= divisor
#[inline(always)]
pub(crate) fn divide<S: Simd>(s: S, x: &mut [f32], divisor: f32) {
    let divisor = s.splat(divisor);
    let (vectors, tail) = x.as_chunks_mut::<LANES>();
    for vector in vectors {
        s.store(s.div(s.load(vector), divisor), vector);
    }
    if !tail.is_empty() {
        s.store_partial(s.div(s.load_partial(tail, 0.0), divisor), tail);
    }
}

/// x /= max(|x|, 1e-12), |x| being the Euclidean norm; a NaN anywhere makes all of x NaN.
#[inline(always)]
pub(crate) fn normalize<S: Simd>(s: S, x: &mut [f32]) {
    let norm = sum(s, SquaredDistance { center: 0.0 }, x).sqrt();
    // Written so that a NaN norm stays.
    let norm = if norm < 1e-12 { 1e-12 } else { norm };
    divide(s, x, norm);
}

/// The greatest lane of vector i in lane i.
#[inline(always)]
pub(crate) fn lane_maxima<S: Simd>(s: S, vectors: [S::F32; LANES]) -> S::F32 {
    let columns = s.transpose(vectors);
    let mut greatest = columns[0];
    for column in &columns[1..] {
        greatest = s.max(*column, greatest);
    }
    greatest
}

/// The sum of the lanes of vector i, added in ascending order, in lane i.
#[inline(always)]
pub(crate) fn lane_sums<S: Simd>(s: S, vectors: [S::F32; LANES]) -> S::F32 {
    let columns = s.transpose(vectors);
    let mut sum = columns[0];
    for column in &columns[1..] {
        sum = s.add(sum, *column);
    }
    sum
}
