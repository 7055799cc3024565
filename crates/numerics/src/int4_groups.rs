//! int4 weights: signed codes -8..=7 with a scale, and perhaps a zero point, for each group of neighbouring columns of a row.
//!
//! A code `q` stands for `(q - zero_point) * scale`, one rounding; symmetric groups have the zero point 0. Codes follow the rounding rule of [`crate::affine`]. Only how
//! scales are chosen differs:
//!
//! | | symmetric | asymmetric |
//! |---|---|---|
//! | [`GroupScales::Range`] | `absmax / 7.5` | `(max - min) / 15`, the range extended to hold zero |
//! | [`GroupScales::LeastSquaredError`] | the best of shares of that, and of what least squares fit to their codes | the best of ranges that are narrower at both ends, likewise |
//!
//! The first row is what compressed-tensors computes (`calculate_qparams`), but for the floors of scales.

use std::ops::Range;

use crate::absmax::absmax;
use crate::affine::{AffineParameters, CodeRange, MINIMUM_SCALE};
use crate::half_precision::{f16_bytes_to_f32, f32_to_f16_bytes};

/// The most columns of a row whose products with activations of twelve bits sum up in i32: each is at most 4095 * 15 in magnitude.
pub const MAX_INT4_COLUMNS: usize = i32::MAX as usize / (4095 * 15);

/// How the scale of a group is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupScales {
    /// From the largest magnitude, or from minimum and maximum.
    Range,
    /// With the least squared error of the weights, among the scales that are tried.
    LeastSquaredError,
}

/// How a matrix becomes int4 codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Int4Settings {
    /// Neighbouring columns of a row that share a scale, at least 1.
    pub group_size: usize,
    /// Whether groups have zero points.
    pub asymmetric: bool,
    /// How scales are chosen.
    pub scales: GroupScales,
    /// What the file has room for.
    pub storage: GroupStorage,
}

/// What a layout can hold of the parameters of a group. Codes are chosen under what will be stored, not under what it is rounded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupStorage {
    /// Whether scales are float16.
    pub half_scales: bool,
    /// The least zero point of asymmetric groups: -8, or -7 where the code of 0 is stored less one and 0 has no place.
    pub least_zero_point: i8,
}

impl Default for GroupStorage {
    /// F32 scales, every zero point.
    fn default() -> Self {
        Self {
            half_scales: false,
            least_zero_point: -8,
        }
    }
}

impl GroupStorage {
    /// The parameters nearest to these that have a place. A zero point that is too small is raised, and the scale widened by as much as keeps the largest
    /// weight in reach; a float16 scale is the nearest one, no smaller than 2^-24 and no larger than 65504 in magnitude.
    ///
    /// ```
    /// use fewbit_numerics::affine::AffineParameters;
    /// use fewbit_numerics::int4_groups::GroupStorage;
    ///
    /// let storage = GroupStorage { half_scales: true, least_zero_point: -7 };
    /// let stored = storage.stored(AffineParameters { scale: 1.4, zero_point: -8 });
    /// assert_eq!((stored.scale, stored.zero_point), (1.5, -7));
    /// let stored = storage.stored(AffineParameters { scale: -1e-30, zero_point: 0 });
    /// assert_eq!(stored.scale, -2f32.powi(-24));
    /// ```
    pub fn stored(self, parameters: AffineParameters) -> AffineParameters {
        let AffineParameters {
            mut scale,
            mut zero_point,
        } = parameters;
        let least = i32::from(self.least_zero_point);
        if zero_point < least {
            scale *= (7 - zero_point) as f32 / (7 - least) as f32;
            zero_point = least;
        }
        if self.half_scales {
            scale = nearest_half_scale(scale);
        }
        AffineParameters { scale, zero_point }
    }
}

/// The float16 nearest to a scale (finite), of those that are neither 0 nor infinite.
fn nearest_half_scale(scale: f32) -> f32 {
    const LEAST: f32 = 1.0 / 16_777_216.0;
    const GREATEST: f32 = 65504.0;
    let magnitude = scale.abs().clamp(LEAST, GREATEST);
    let mut bytes = [0; 2];
    f32_to_f16_bytes(&[magnitude], &mut bytes);
    let mut rounded = [0.0];
    f16_bytes_to_f32(&bytes, &mut rounded);
    rounded[0].copysign(scale)
}

/// int4 codes of a row-major matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Int4Groups {
    /// Output features.
    pub rows: usize,
    /// Input features: a multiple of the group size.
    pub columns: usize,
    /// Columns of a group.
    pub group_size: usize,
    /// (rows, columns), row-major, -8..=7.
    pub codes: Vec<i8>,
    /// (rows, columns / `group_size`)
    pub scales: Vec<f32>,
    /// (rows, columns / `group_size`), -8..=7; none of symmetric groups.
    pub zero_points: Option<Vec<i8>>,
}

/// Quantizes `weights` (rows, columns; row-major, finite) group by group.
///
/// ```
/// use fewbit_numerics::int4_groups::{GroupScales, GroupStorage, Int4Settings, quantize_int4};
///
/// let weights = [7.5, -7.5, 1.0, 0.0, 0.0, 15.0, 3.0, 7.0];
/// let storage = GroupStorage::default();
/// let settings = Int4Settings { group_size: 4, asymmetric: true, scales: GroupScales::Range, storage };
/// let quantized = quantize_int4(&weights, 1, 8, settings);
/// assert_eq!(quantized.scales, [1.0, 1.0]);
/// assert_eq!(quantized.zero_points.unwrap(), [0, -8]);
/// assert_eq!(quantized.codes, [7, -8, 1, 0, -8, 7, -5, -1]);
/// ```
///
/// # Panics
/// If `weights.len()` is not `rows * columns`, or groups do not divide the columns.
pub fn quantize_int4(
    weights: &[f32],
    rows: usize,
    columns: usize,
    settings: Int4Settings,
) -> Int4Groups {
    let group_size = settings.group_size;
    assert_eq!(
        Some(weights.len()),
        rows.checked_mul(columns),
        "a matrix of {rows} x {columns}"
    );
    assert!(
        group_size > 0 && columns.is_multiple_of(group_size),
        "the group size ({group_size}) divides the number of columns ({columns})"
    );
    let groups = weights.len() / group_size;
    let mut quantized = Int4Groups {
        rows,
        columns,
        group_size,
        codes: vec![0; weights.len()],
        scales: vec![0.0; groups],
        zero_points: settings.asymmetric.then(|| vec![0; groups]),
    };
    quantize_int4_into(
        weights,
        settings,
        &mut quantized.codes,
        &mut quantized.scales,
        quantized.zero_points.as_deref_mut(),
    );
    quantized
}

/// [`quantize_int4`] of whole groups into memory that is there: codes (n), scales and zero points (n / `group_size`).
///
/// # Panics
/// If a slice does not have its length, or zero points are there for symmetric groups, or missing for asymmetric ones.
pub fn quantize_int4_into(
    weights: &[f32],
    settings: Int4Settings,
    codes: &mut [i8],
    scales: &mut [f32],
    mut zero_points: Option<&mut [i8]>,
) {
    let groups = weights.len() / settings.group_size;
    assert_eq!(weights.len(), groups * settings.group_size, "whole groups");
    assert_eq!((codes.len(), scales.len()), (weights.len(), groups));
    let expected = settings.asymmetric.then_some(groups);
    assert_eq!(zero_points.as_ref().map(|points| points.len()), expected);
    choose_groups(weights, settings, scales, zero_points.as_deref_mut());
    encode_groups(
        weights,
        settings.group_size,
        scales,
        zero_points.as_deref(),
        codes,
    );
}

/// Scales and zero points (n / `group_size`) of whole groups of `weights` (n, finite), as they are stored.
///
/// # Panics
/// If there is not a place for each group.
pub fn choose_groups(
    weights: &[f32],
    settings: Int4Settings,
    scales: &mut [f32],
    mut zero_points: Option<&mut [i8]>,
) {
    for (index, group) in weights.chunks_exact(settings.group_size).enumerate() {
        let parameters = group_parameters(group, settings.asymmetric, settings.scales);
        let parameters = settings.storage.stored(parameters);
        scales[index] = parameters.scale;
        if let Some(zero_points) = &mut zero_points {
            zero_points[index] = parameters.zero_point as i8;
        }
    }
}

/// The codes (n) of whole groups with these scales and zero points (n / `group_size`).
///
/// # Panics
/// If a slice does not have its length.
pub fn encode_groups(
    weights: &[f32],
    group_size: usize,
    scales: &[f32],
    zero_points: Option<&[i8]>,
    codes: &mut [i8],
) {
    assert_eq!(weights.len(), scales.len() * group_size, "whole groups");
    assert_eq!(codes.len(), weights.len(), "one for each weight");
    if let Some(zero_points) = zero_points {
        assert_eq!(zero_points.len(), scales.len(), "one for each group");
    }
    let groups = weights
        .chunks_exact(group_size)
        .zip(codes.chunks_exact_mut(group_size));
    for (index, (group, codes)) in groups.enumerate() {
        let parameters = AffineParameters {
            scale: scales[index],
            zero_point: zero_points.map_or(0, |zero_points| zero_points[index].into()),
        };
        // In -8..=7 by the clamp of the rule.
        for (place, code) in codes
            .iter_mut()
            .zip(parameters.quantize_each(group, CodeRange::INT4))
        {
            *place = code as i8;
        }
    }
}

/// Scale and zero point of a group (finite).
///
/// The magnitude of the scale is finite and at least 2^-126, the least normal float; of zeros it is 2^-23. With the least squared error the scale of a symmetric
/// group may be negative: the code -8 then stands for the largest weight, which the codes up to 7 reach less well. Whoever dequantizes multiplies with it all the
/// same.
pub fn group_parameters(group: &[f32], asymmetric: bool, scales: GroupScales) -> AffineParameters {
    match scales {
        GroupScales::Range => GroupRange::of(group, asymmetric).initial(),
        GroupScales::LeastSquaredError => least_error(group, |_| 1.0, asymmetric),
    }
}

/// Those of [`GroupScales::LeastSquaredError`] where the squared error of element i counts `importance[i]` times (finite, not negative, of a size whose sums with
/// squares of the group are finite), as in [`least_weighted_error_scale`](crate::four_bit_scales::least_weighted_error_scale).
///
/// A group of no importance has the parameters of its range.
///
/// ```
/// use fewbit_numerics::int4_groups::weighted_group_parameters;
///
/// // The first two elements alone count: the third is clipped.
/// let parameters = weighted_group_parameters(&[6.0, -7.0, 9.5], &[1.0, 1.0, 0.0], false);
/// assert_eq!((parameters.scale, parameters.zero_point), (1.0, 0));
/// ```
///
/// # Panics
/// If there is not one importance for each element.
pub fn weighted_group_parameters(
    group: &[f32],
    importance: &[f32],
    asymmetric: bool,
) -> AffineParameters {
    assert_eq!(group.len(), importance.len(), "one for each element");
    least_error(group, |index| importance[index], asymmetric)
}

fn least_error(
    group: &[f32],
    importance: impl Fn(usize) -> f32,
    asymmetric: bool,
) -> AffineParameters {
    let range = GroupRange::of(group, asymmetric);
    let mut search = Search {
        group,
        importance,
        best: range.initial(),
        error: f32::INFINITY,
    };
    for index in 0..GroupRange::candidates(asymmetric) {
        search.try_parameters(range.candidate(index));
    }
    search.best
}

/// What the codes of a group have to reach, and the parameters that the search for the least squared error starts from. Of each of them, and of its zero point
/// with the scale that least squares fit to its codes, the first with the least error is taken.
#[derive(Debug, Clone, Copy)]
pub struct GroupRange {
    asymmetric: bool,
    min: f32,
    max: f32,
}

impl GroupRange {
    /// That of a group (finite). It holds zero.
    pub fn of(group: &[f32], asymmetric: bool) -> Self {
        let (min, max) = match asymmetric {
            true => group
                .iter()
                .fold((0.0f32, 0.0f32), |(min, max), &x| (min.min(x), max.max(x))),
            false => {
                let largest = absmax(group);
                (-largest, largest)
            }
        };
        Self {
            asymmetric,
            min,
            max,
        }
    }

    /// The parameters of the whole range: those of [`GroupScales::Range`].
    pub fn initial(&self) -> AffineParameters {
        self.parts(1.0, 1.0)
    }

    /// How many parameters are tried.
    pub fn candidates(asymmetric: bool) -> usize {
        1 + match asymmetric {
            true => ASYMMETRIC_SHARES.len() * ASYMMETRIC_SHARES.len(),
            false => 2 * SYMMETRIC_SHARES.len(),
        }
    }

    /// Those at `index` of [`GroupRange::candidates`]: first those of the whole range.
    pub fn candidate(&self, index: usize) -> AffineParameters {
        let Some(index) = index.checked_sub(1) else {
            return self.initial();
        };
        if self.asymmetric {
            let number = ASYMMETRIC_SHARES.len();
            let share = |index: usize| (ASYMMETRIC_SHARES.start + index) as f32 / 32.0;
            return self.parts(share(index / number), share(index % number));
        }
        let share = (SYMMETRIC_SHARES.start + index / 2) as f32 / 32.0;
        let parameters = self.parts(0.0, share);
        AffineParameters {
            scale: match index % 2 {
                0 => parameters.scale,
                _ => -parameters.scale,
            },
            ..parameters
        }
    }

    /// The parameters for so much of minimum and maximum; of symmetric groups the second alone counts.
    fn parts(&self, low: f32, high: f32) -> AffineParameters {
        match self.asymmetric {
            true => asymmetric_parameters(self.min * low, self.max * high),
            false => symmetric_parameters(self.max * high),
        }
    }
}

/// Shares of the largest magnitude that are tried, in 32nds. Those above it put the largest weight on a code before the last.
const SYMMETRIC_SHARES: Range<usize> = 20..37;

/// Shares of minimum and maximum that are tried together, in 32nds.
const ASYMMETRIC_SHARES: Range<usize> = 25..34;

/// `absmax / 7.5`. Unlike [`AffineParameters::symmetric`] it has no floor of 2^-23: groups of small weights keep their codes.
fn symmetric_parameters(largest: f32) -> AffineParameters {
    let scale = match largest {
        0.0 => MINIMUM_SCALE,
        _ => CodeRange::INT4
            .symmetric_scale(largest)
            .max(f32::MIN_POSITIVE),
    };
    AffineParameters {
        scale,
        zero_point: 0,
    }
}

/// Those of [`AffineParameters::affine`] without its floor of 2^-23.
fn asymmetric_parameters(min: f32, max: f32) -> AffineParameters {
    if min == 0.0 && max == 0.0 {
        return AffineParameters {
            scale: MINIMUM_SCALE,
            zero_point: 0,
        };
    }
    let scale = (max / 15.0 - min / 15.0).max(f32::MIN_POSITIVE);
    let zero_point = -8 - (min / scale).round_ties_even() as i32;
    AffineParameters {
        scale,
        zero_point: zero_point.clamp(-8, 7),
    }
}

/// The best parameters so far.
struct Search<'a, Importance> {
    group: &'a [f32],
    importance: Importance,
    best: AffineParameters,
    error: f32,
}

impl<Importance: Fn(usize) -> f32> Search<'_, Importance> {
    /// Tries parameters, and their zero point with the scale that least squares fit to their codes.
    fn try_parameters(&mut self, parameters: AffineParameters) {
        let fitted = self.try_scale(parameters);
        if (f32::MIN_POSITIVE..f32::MAX).contains(&fitted.abs()) {
            self.try_scale(AffineParameters {
                scale: fitted,
                ..parameters
            });
        }
    }

    /// Keeps the parameters if they are better, and returns the scale with which their codes have the least error.
    fn try_scale(&mut self, parameters: AffineParameters) -> f32 {
        let codes = parameters.quantize_each(self.group, CodeRange::INT4);
        let (mut error, mut products, mut squares) = (0.0f32, 0.0f32, 0.0f32);
        for (index, (&x, code)) in self.group.iter().zip(codes).enumerate() {
            let value = (code - parameters.zero_point) as f32;
            let importance = (self.importance)(index);
            let difference = x - value * parameters.scale;
            error += importance * (difference * difference);
            products += importance * (x * value);
            squares += importance * (value * value);
        }
        if error < self.error {
            (self.best, self.error) = (parameters, error);
        }
        products / squares
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::dequantize_groups;

    /// Roughly normal numbers, shifted.
    fn weights(count: usize, mut state: u64, shift: f32) -> Vec<f32> {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
        };
        (0..count)
            .map(|_| shift + (0..6).map(|_| next()).sum::<f32>())
            .collect()
    }

    fn settings(group_size: usize, asymmetric: bool, scales: GroupScales) -> Int4Settings {
        Int4Settings {
            group_size,
            asymmetric,
            scales,
            storage: GroupStorage::default(),
        }
    }

    #[test]
    fn codes_are_chosen_under_the_scales_that_are_stored() {
        let storage = GroupStorage {
            half_scales: true,
            least_zero_point: -7,
        };
        for (seed, shift) in (0..20).flat_map(|seed| [(seed, 0.0), (seed, 4.0)]) {
            let group = weights(32, seed, shift);
            for asymmetric in [false, true] {
                let settings = Int4Settings {
                    storage,
                    ..settings(32, asymmetric, GroupScales::LeastSquaredError)
                };
                let quantized = quantize_int4(&group, 1, 32, settings);
                let scale = quantized.scales[0];
                assert_eq!(scale, nearest_half_scale(scale));
                let zero_point = quantized.zero_points.as_ref().map_or(0, |points| points[0]);
                assert!(zero_point >= -7, "{zero_point}");
                let parameters = AffineParameters {
                    scale,
                    zero_point: zero_point.into(),
                };
                for (code, weight) in quantized.codes.iter().zip(&group) {
                    assert_eq!(
                        i32::from(*code),
                        parameters.quantize(*weight, CodeRange::INT4)
                    );
                }
            }
        }
    }

    fn squared_error(weights: &[f32], quantized: &Int4Groups) -> f64 {
        let values = dequantize_groups(
            &quantized.codes,
            &quantized.scales,
            quantized.zero_points.as_deref(),
            quantized.group_size,
        );
        let pairs = weights.iter().zip(values);
        pairs.map(|(x, y)| f64::from(x - y).powi(2)).sum()
    }

    #[test]
    fn by_hand() {
        let weights = [7.5, -7.5, 3.2, -0.5, 0.0, 0.0, 0.0, 0.0];
        let quantized = quantize_int4(&weights, 2, 4, settings(4, false, GroupScales::Range));
        assert_eq!(quantized.scales, [1.0, MINIMUM_SCALE]);
        // 7.5 is clamped to 7, -7.5 goes to the even -8, and -0.5 to 0.
        assert_eq!(quantized.codes, [7, -8, 3, 0, 0, 0, 0, 0]);
        assert_eq!(quantized.zero_points, None);
        // -1..=2 in 15 steps of 0.2: zero is the code -3.
        let quantized = quantize_int4(
            &[-1.0, 2.0, 0.0, 0.5],
            1,
            4,
            settings(4, true, GroupScales::Range),
        );
        assert_eq!(quantized.zero_points.as_deref(), Some(&[-3][..]));
        assert_eq!(quantized.codes, [-8, 7, -3, -1]);
    }

    #[test]
    fn searched_scales_are_never_worse_and_mostly_better() {
        for asymmetric in [false, true] {
            for shift in [0.0, 0.3] {
                let mut better = 0;
                for seed in 0..100 {
                    let group = weights(64, seed, shift);
                    let error = |scales| {
                        let settings = settings(64, asymmetric, scales);
                        squared_error(&group, &quantize_int4(&group, 1, 64, settings))
                    };
                    let (range, searched) = (
                        error(GroupScales::Range),
                        error(GroupScales::LeastSquaredError),
                    );
                    // The search compares sums in f32 of 64 squares.
                    assert!(searched <= range * (1.0 + 64.0 * f64::from(f32::EPSILON)));
                    better += usize::from(searched < range);
                }
                assert!(better >= 95, "{asymmetric}, {shift}: {better}");
            }
        }
    }

    #[test]
    fn what_counts_more_gets_the_smaller_error() {
        for asymmetric in [false, true] {
            for seed in 0..50 {
                let group = weights(64, seed, 0.2);
                let importance: Vec<f32> = weights(64, seed + 500, 0.0)
                    .iter()
                    .map(|x| (4.0 * x).exp())
                    .collect();
                let error = |parameters: AffineParameters| -> f64 {
                    let codes = parameters.quantize_each(&group, CodeRange::INT4);
                    let pairs = group.iter().zip(codes).zip(&importance);
                    let weighted = |((x, code), w): ((&f32, i32), &f32)| {
                        f64::from(*w) * f64::from(x - parameters.dequantize(code)).powi(2)
                    };
                    pairs.map(weighted).sum()
                };
                let of = |scales| group_parameters(&group, asymmetric, scales);
                let weighted = weighted_group_parameters(&group, &importance, asymmetric);
                // The search compares sums in f32 of 64 squares.
                let bound = 1.0 + 64.0 * f64::from(f32::EPSILON);
                assert!(error(weighted) <= bound * error(of(GroupScales::Range)));
                let ones = weighted_group_parameters(&group, &[1.0; 64], asymmetric);
                assert_eq!(ones, of(GroupScales::LeastSquaredError));
                let none = weighted_group_parameters(&group, &[0.0; 64], asymmetric);
                assert_eq!(none, of(GroupScales::Range));
            }
        }
    }

    #[test]
    fn constant_groups_and_extremes_have_finite_scales_and_small_errors() {
        let extremes = [
            0.0,
            1.0,
            -3.5,
            // Codes at the ends of a range may stand for half a step more.
            f32::MAX / 2.0,
            f32::MIN / 2.0,
            f32::MIN_POSITIVE,
            -1e-42,
        ];
        for value in extremes {
            for asymmetric in [false, true] {
                for scales in [GroupScales::Range, GroupScales::LeastSquaredError] {
                    let group = [value; 32];
                    let quantized = quantize_int4(&group, 1, 32, settings(32, asymmetric, scales));
                    let scale = quantized.scales[0];
                    assert!(
                        (f32::MIN_POSITIVE..=f32::MAX).contains(&scale.abs()),
                        "{value}: {scale}"
                    );
                    let zero_points = quantized.zero_points.as_deref();
                    for back in dequantize_groups(&quantized.codes, &[scale], zero_points, 32) {
                        // Half a step, and the half step at the end that the codes do not have.
                        let error = (f64::from(back) - f64::from(value)).abs();
                        assert!(
                            error <= f64::from(scale.abs()) * 1.0001,
                            "{value}: {back}, {scale}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_weight_has_the_code_that_has_no_opposite() {
        let mut group = [0.5; 32];
        group[7] = 8.0;
        let found = group_parameters(&group, false, GroupScales::LeastSquaredError);
        // -8 reaches it exactly; 7 does not, unless all steps are wider.
        assert!(found.scale < 0.0, "{found:?}");
        assert_eq!(found.quantize(8.0, CodeRange::INT4), -8);
        for sign in [1.0, -1.0] {
            let group = group.map(|x| x * sign);
            let quantized = quantize_int4(
                &group,
                1,
                32,
                settings(32, false, GroupScales::LeastSquaredError),
            );
            assert_eq!(quantized.codes[7], -8);
        }
    }

    #[test]
    fn every_group_is_quantized_by_itself() {
        for asymmetric in [false, true] {
            let settings = settings(8, asymmetric, GroupScales::LeastSquaredError);
            let all = weights(3 * 24, 7, 0.1);
            let whole = quantize_int4(&all, 3, 24, settings);
            for (index, group) in all.chunks(8).enumerate() {
                let alone = quantize_int4(group, 1, 8, settings);
                assert_eq!(whole.codes[8 * index..][..8], alone.codes);
                assert_eq!(whole.scales[index], alone.scales[0]);
                assert_eq!(
                    whole.zero_points.as_ref().map(|points| points[index]),
                    alone.zero_points.map(|points| points[0])
                );
            }
        }
    }
}
