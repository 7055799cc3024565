//! Scale and zero point of each int4 group with the least squared error: [`fewbit_numerics::int4_groups`], bit for bit.

use std::array::from_fn;

use fewbit_numerics::affine::AffineParameters;
use fewbit_numerics::int4_groups::GroupRange;

use crate::generic::side_by_side::{SideBySide, Sums};
use crate::simd::{LANES, Simd};

/// Whole groups, and where their parameters go.
pub(crate) struct FitInt4<'a> {
    pub(crate) values: &'a [f32],
    /// What the squared error of each element counts.
    pub(crate) importance: Option<&'a [f32]>,
    pub(crate) group_size: usize,
    pub(crate) asymmetric: bool,
    pub(crate) scales: &'a mut [f32],
    pub(crate) zero_points: Option<&'a mut [i8]>,
}

#[inline(always)]
pub(crate) fn fit<S: Simd>(s: S, call: FitInt4<'_>) {
    match call.importance.is_some() {
        true => fit_groups::<S, true>(s, call),
        false => fit_groups::<S, false>(s, call),
    }
}

#[inline(always)]
fn fit_groups<S: Simd, const WEIGHTED: bool>(s: S, call: FitInt4<'_>) {
    let FitInt4 {
        values,
        importance,
        group_size,
        asymmetric,
        scales,
        mut zero_points,
    } = call;
    let mut groups = SideBySide::new();
    let elements = group_size * LANES;
    for (index, scales) in scales.chunks_mut(LANES).enumerate() {
        let part = index * elements..(index * elements + group_size * scales.len());
        let importance = importance.map(|importance| &importance[part.clone()]);
        let values = &values[part];
        groups.fill(values, importance, group_size);
        let mut ranges = [GroupRange::of(&[], asymmetric); LANES];
        for (range, group) in ranges.iter_mut().zip(values.chunks_exact(group_size)) {
            *range = GroupRange::of(group, asymmetric);
        }
        let mut search = Search::<S, WEIGHTED> {
            best: Parameters::of(s, &ranges.map(|range| range.initial())),
            error: s.splat(f32::INFINITY),
        };
        for candidate in 0..GroupRange::candidates(asymmetric) {
            let parameters = ranges.map(|range| range.candidate(candidate));
            search.try_parameters(s, &groups, Parameters::of(s, &parameters));
        }
        s.store_partial(search.best.scale, scales);
        if let Some(zero_points) = &mut zero_points {
            let mut numbers = [0.0; LANES];
            s.store(search.best.zero_point, &mut numbers);
            let zero_points = &mut zero_points[index * LANES..][..scales.len()];
            for (zero_point, number) in zero_points.iter_mut().zip(numbers) {
                *zero_point = number as i8;
            }
        }
    }
}

/// [`AffineParameters`] of sixteen groups.
#[derive(Clone, Copy)]
struct Parameters<S: Simd> {
    scale: S::F32,
    /// As a float, which is exact.
    zero_point: S::F32,
}

impl<S: Simd> Parameters<S> {
    #[inline(always)]
    fn of(s: S, parameters: &[AffineParameters; LANES]) -> Self {
        Self {
            scale: s.load(&from_fn(|lane| parameters[lane].scale)),
            zero_point: s.load(&from_fn(|lane| parameters[lane].zero_point as f32)),
        }
    }
}

/// The best parameters so far.
struct Search<S: Simd, const WEIGHTED: bool> {
    best: Parameters<S>,
    error: S::F32,
}

impl<S: Simd, const WEIGHTED: bool> Search<S, WEIGHTED> {
    /// Tries parameters, and their zero point with the scale that least squares fit to their codes, where that is a normal number.
    #[inline(always)]
    fn try_parameters(&mut self, s: S, groups: &SideBySide, parameters: Parameters<S>) {
        let (error, fitted) = squared_error::<S, WEIGHTED>(s, groups, parameters);
        self.keep_better(s, parameters, error);
        let parameters = Parameters {
            scale: fitted,
            ..parameters
        };
        let (error, _) = squared_error::<S, WEIGHTED>(s, groups, parameters);
        let (magnitude, infinity) = (s.abs(fitted), s.splat(f32::INFINITY));
        let error = s.select(s.less(magnitude, s.splat(f32::MAX)), error, infinity);
        let small = s.less(magnitude, s.splat(f32::MIN_POSITIVE));
        let error = s.select(small, infinity, error);
        self.keep_better(s, parameters, error);
    }

    #[inline(always)]
    fn keep_better(&mut self, s: S, parameters: Parameters<S>, error: S::F32) {
        let better = s.less(error, self.error);
        self.error = s.select(better, error, self.error);
        self.best = Parameters {
            scale: s.select(better, parameters.scale, self.best.scale),
            zero_point: s.select(better, parameters.zero_point, self.best.zero_point),
        };
    }
}

/// The error, and the scale with which the same codes have the least. Scales of zero and such as are not finite give anything.
#[inline(always)]
fn squared_error<S: Simd, const WEIGHTED: bool>(
    s: S,
    groups: &SideBySide,
    parameters: Parameters<S>,
) -> (S::F32, S::F32) {
    let Parameters { scale, zero_point } = parameters;
    let inverse = s.div(s.splat(1.0), scale);
    let (low, high) = (
        s.sub(s.splat(-8.0), zero_point),
        s.sub(s.splat(7.0), zero_point),
    );
    let mut sums = Sums::new(s);
    for (index, x) in groups.values.iter().enumerate() {
        let x = s.load(x);
        // `code - zero_point`, by the rounding rule.
        let value = s.round_ties_even(s.min(s.max(s.mul(x, inverse), low), high));
        sums.add::<WEIGHTED>(s, groups, index, [x, value, scale]);
    }
    (sums.error, sums.fitted_scale(s))
}
