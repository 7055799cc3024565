//! Activation functions, lane by lane.

use crate::generic::coefficients::{GELU, GELU_END, TANH};
use crate::generic::exponential::{exp, polynomial};
use crate::row_operations::Activation;
use crate::simd::{LANES, Simd};

/// Applies `kind` to every element.
#[inline(always)]
pub(crate) fn activation<S: Simd>(s: S, kind: Activation, x: &mut [f32]) {
    if kind != Activation::Identity {
        with_function(kind, Map { s, x });
    }
}

/// What is to be done with the function of an activation.
pub(crate) trait WithFunction {
    fn with<F: Function>(self);
}

/// Does `task` with the function of `kind`: the one place where the two meet.
#[inline(always)]
pub(crate) fn with_function(kind: Activation, task: impl WithFunction) {
    match kind {
        Activation::Gelu => task.with::<Gelu>(),
        Activation::GeluTanh => task.with::<GeluTanh>(),
        Activation::QuickGelu => task.with::<QuickGelu>(),
        Activation::Relu => task.with::<Relu>(),
        Activation::Silu => task.with::<Silu>(),
        Activation::Tanh => task.with::<Tanh>(),
        Activation::Identity => task.with::<Identity>(),
    }
}

/// A function of each lane alone.
pub(crate) trait Function {
    fn apply<S: Simd>(s: S, x: S::F32) -> S::F32;
}

struct Map<'a, S> {
    s: S,
    x: &'a mut [f32],
}

impl<S: Simd> WithFunction for Map<'_, S> {
    #[inline(always)]
    fn with<F: Function>(self) {
        let s = self.s;
        let (vectors, tail) = self.x.as_chunks_mut::<LANES>();
        for vector in vectors {
            s.store(F::apply(s, s.load(vector)), vector);
        }
        if !tail.is_empty() {
            s.store_partial(F::apply(s, s.load_partial(tail, 0.0)), tail);
        }
    }
}

pub(crate) struct Gelu;
impl Function for Gelu {
    /// x * Phi(x) = max(x, 0) - r(|x|) with r(a) = a * (1 - Phi(a)), which is smooth, even and at most 0.17: a piecewise polynomial, 0 from
    /// [`GELU_END`] on. Within 4e-7 of the exact value for |x| <= 8, and within one rounding of x or 0 beyond.
    #[inline(always)]
    fn apply<S: Simd>(s: S, x: S::F32) -> S::F32 {
        const SEGMENTS: f32 = LANES as f32;
        let magnitude = s.abs(x);
        // What comes of a place beyond the last segment, or of a NaN, is not selected below.
        let place = s.mul(magnitude, s.splat(SEGMENTS / GELU_END));
        let segment = s.truncate(place);
        let t = s.sub(place, s.to_f32(segment));
        let mut remainder = s.lookup(s.load(&GELU[GELU.len() - 1]), segment);
        for index in (0..GELU.len() - 1).rev() {
            let coefficient = s.lookup(s.load(&GELU[index]), segment);
            remainder = s.fma(remainder, t, coefficient);
        }
        let inside = s.less(magnitude, s.splat(GELU_END));
        let remainder = s.select(inside, remainder, s.splat(0.0));
        s.sub(s.max(s.splat(0.0), x), remainder)
    }
}

/// x / (1 + exp(-z)) = x * sigmoid(z), for a z that has the sign of x. The exponential overflows to infinity for large negative z, which
/// gives the right limit 0 once minus infinity is kept out of the numerator.
#[inline(always)]
fn times_sigmoid<S: Simd>(s: S, x: S::F32, minus_z: S::F32) -> S::F32 {
    s.div(x, s.add(s.splat(1.0), exp(s, minus_z)))
}

/// x, but at least -1000, where all functions of this shape are 0. Keeps NaN.
#[inline(always)]
fn bounded_below<S: Simd>(s: S, x: S::F32) -> S::F32 {
    s.max(s.splat(-1000.0), x)
}

pub(crate) struct GeluTanh;
impl Function for GeluTanh {
    /// 0.5 * (1 + tanh(u)) = sigmoid(2 u), 2 u = x * (2 sqrt(2 / pi) + 2 sqrt(2 / pi) * 0.044715 * x^2).
    #[inline(always)]
    fn apply<S: Simd>(s: S, x: S::F32) -> S::F32 {
        let x = bounded_below(s, x);
        let square = s.mul(x, x);
        let slope = s.fma(square, s.splat(-0.071_354_814), s.splat(-1.595_769_2));
        times_sigmoid(s, x, s.mul(x, slope))
    }
}

pub(crate) struct QuickGelu;
impl Function for QuickGelu {
    #[inline(always)]
    fn apply<S: Simd>(s: S, x: S::F32) -> S::F32 {
        let x = bounded_below(s, x);
        times_sigmoid(s, x, s.mul(x, s.splat(-1.702)))
    }
}

pub(crate) struct Silu;
impl Function for Silu {
    #[inline(always)]
    fn apply<S: Simd>(s: S, x: S::F32) -> S::F32 {
        let x = bounded_below(s, x);
        times_sigmoid(s, x, s.mul(x, s.splat(-1.0)))
    }
}

pub(crate) struct Identity;
impl Function for Identity {
    #[inline(always)]
    fn apply<S: Simd>(_s: S, x: S::F32) -> S::F32 {
        x
    }
}

pub(crate) struct Relu;
impl Function for Relu {
    #[inline(always)]
    fn apply<S: Simd>(s: S, x: S::F32) -> S::F32 {
        s.max(s.splat(0.0), x)
    }
}

pub(crate) struct Tanh;
impl Function for Tanh {
    /// 1 - 2 / (exp(2 x) + 1), and an odd polynomial near 0, where that form would lose all relative accuracy.
    #[inline(always)]
    fn apply<S: Simd>(s: S, x: S::F32) -> S::F32 {
        let one = s.splat(1.0);
        let denominator = s.add(exp(s, s.add(x, x)), one);
        let far = s.sub(one, s.div(s.splat(2.0), denominator));
        let square = s.mul(x, x);
        let near = s.fma(s.mul(x, square), polynomial(s, square, &TANH), x);
        s.select(s.less(s.abs(x), s.splat(0.625)), near, far)
    }
}
