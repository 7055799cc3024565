//! Weights and inputs of layers as quantized ones have them, in floats: what quantization-aware training computes with.
//!
//! The bits are those of the codes that [`weight_codecs`](crate::weight_codecs) and the executor make. Everything runs on the threads of
//! [`weight_codecs::set_threads`](crate::weight_codecs::set_threads), in parts that the number of threads does not change.

use fewbit_kernels::{FloatBytes, Kernels};
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_numerics::finite::first_non_finite;
use fewbit_numerics::four_bit::FourBitType;
use fewbit_numerics::int4_groups::Int4Settings;
use fewbit_numerics::{double_quantization, fake_quantize};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use crate::weight_codecs::{
    ErrorFigures, choose_int4_parameters, dequantize_four_bit, in_pool, part_elements, part_of,
    quantize_four_bit_into,
};

/// Scales and zero points of the groups of a matrix, and the codes that its elements may have.
#[derive(Debug, Clone, Copy)]
pub struct Groups<'a> {
    /// Neighbouring elements that share a scale, at least 1; the last group may be short.
    pub group_size: usize,
    /// The codes.
    pub range: CodeRange,
    /// (ceil(n / `group_size`)), finite and not 0.
    pub scales: &'a [f32],
    /// As many; none where all are 0.
    pub zero_points: Option<&'a [i8]>,
}

impl Groups<'_> {
    fn parameters(&self, group: usize) -> AffineParameters {
        AffineParameters {
            scale: self.scales[group],
            zero_point: self
                .zero_points
                .map_or(0, |points| i32::from(points[group])),
        }
    }

    fn assert_for(&self, elements: usize) {
        let groups = elements.div_ceil(self.group_size);
        assert_eq!(self.scales.len(), groups, "a scale for each group");
        let points = self.zero_points.map_or(groups, <[i8]>::len);
        assert_eq!(points, groups, "a zero point for each group");
    }
}

/// int8 with a scale for each row of `columns`, absmax / 127.5: the values into `out` (n), the scales into `scales` (rows). Returns whether all elements
/// are finite; where they are not, the rest means nothing.
///
/// # Panics
/// If a slice does not have its length.
pub fn int8_rows(
    kernels: &Kernels,
    weights: &[f32],
    columns: usize,
    out: &mut [f32],
    scales: &mut [f32],
) -> bool {
    assert_eq!(weights.len(), out.len(), "one value for each element");
    let columns = columns.max(1);
    let part = part_elements(columns);
    let source = FloatBytes::of_f32(weights);
    let parts = out
        .par_chunks_mut(part)
        .zip(scales.par_chunks_mut(part / columns));
    let finite = parts
        .enumerate()
        .map_init(Vec::new, |codes, (index, (out, scales))| {
            codes.resize(out.len(), 0);
            let finite =
                kernels.quantize_int8(part_of(source, index, part), columns, codes, scales);
            kernels.dequantize_int8(codes, scales, columns, out);
            finite
        });
    in_pool(|| finite.reduce(|| true, |a, b| a & b))
}

/// Scales (n / group size) and zero points of int4 groups, as [`quantize_int4`](crate::weight_codecs::quantize_int4) chooses them. Returns whether all
/// elements are finite.
///
/// # Panics
/// If the weights are no whole groups, or a slice does not have its length.
pub fn choose_int4(
    kernels: &Kernels,
    weights: &[f32],
    settings: Int4Settings,
    scales: &mut [f32],
    zero_points: &mut [i8],
) -> bool {
    let group_size = settings.group_size;
    assert!(weights.len().is_multiple_of(group_size), "whole groups");
    let groups = weights.len() / group_size;
    assert_eq!((scales.len(), zero_points.len()), (groups, groups));
    let part = part_elements(group_size);
    let groups = part / group_size;
    let parts = weights
        .par_chunks(part)
        .zip(scales.par_chunks_mut(groups))
        .zip(zero_points.par_chunks_mut(groups));
    let finite = parts.map(|((weights, scales), points)| {
        if first_non_finite(weights).is_some() {
            return false;
        }
        points.fill(0);
        let points = settings.asymmetric.then_some(points);
        choose_int4_parameters(kernels, weights, settings, None, (scales, points));
        true
    });
    in_pool(|| finite.reduce(|| true, |a, b| a & b))
}

/// What the codes of `x` (n) with the parameters of `groups` stand for, into `out` (n). Returns whether all elements are finite.
///
/// # Panics
/// If a slice does not have its length.
pub fn with_groups(x: &[f32], groups: Groups<'_>, out: &mut [f32]) -> bool {
    assert_eq!(x.len(), out.len(), "one value for each element");
    groups.assert_for(x.len());
    let part = part_elements(groups.group_size);
    let parts = out.par_chunks_mut(part).zip(x.par_chunks(part)).enumerate();
    let finite = parts.map(|(index, (out, x))| {
        let first = index * (part / groups.group_size);
        let each = x
            .chunks(groups.group_size)
            .zip(out.chunks_mut(groups.group_size));
        for (group, (x, out)) in each.enumerate() {
            fake_quantize::fake_quantize(x, groups.parameters(first + group), groups.range, out);
        }
        first_non_finite(x).is_none()
    });
    in_pool(|| finite.reduce(|| true, |a, b| a & b))
}

/// The codes of `x` (n) with the parameters of `groups`, into `codes` (n): those whose values [`with_groups`] gives.
///
/// # Panics
/// If a slice does not have its length, or the codes are no signed bytes.
pub fn codes_with_groups(x: &[f32], groups: Groups<'_>, codes: &mut [i8]) {
    assert_eq!(x.len(), codes.len(), "one code for each element");
    assert!(
        groups.range.min >= -128 && groups.range.max <= 127,
        "codes of a byte"
    );
    groups.assert_for(x.len());
    let each = x.chunks(groups.group_size);
    for (group, (x, codes)) in each.zip(codes.chunks_mut(groups.group_size)).enumerate() {
        let parameters = groups.parameters(group);
        for (code, &x) in codes.iter_mut().zip(x) {
            *code = parameters.quantize(x, groups.range) as i8;
        }
    }
}

/// The gradients with respect to `x` (n), into `out`, and to the scales, into `of_scales` (as many as there are groups), of values whose gradient is
/// `gradient` (n): those of [`fewbit_numerics::fake_quantize`].
///
/// # Panics
/// If a slice does not have its length.
pub fn gradients(
    x: &[f32],
    gradient: &[f32],
    groups: Groups<'_>,
    out: &mut [f32],
    of_scales: &mut [f32],
) {
    assert_eq!(
        (x.len(), x.len()),
        (gradient.len(), out.len()),
        "one for each element"
    );
    assert_eq!(of_scales.len(), groups.scales.len(), "one for each group");
    groups.assert_for(x.len());
    let size = groups.group_size;
    let part = part_elements(size);
    let parts = out
        .par_chunks_mut(part)
        .zip(of_scales.par_chunks_mut(part / size))
        .zip(x.par_chunks(part))
        .zip(gradient.par_chunks(part))
        .enumerate();
    in_pool(|| {
        parts.for_each(|(index, (((out, of_scales), x), gradient))| {
            let first = index * (part / size);
            let each = x.chunks(size).zip(gradient.chunks(size));
            let each = each.zip(out.chunks_mut(size)).zip(of_scales);
            for (group, (((x, gradient), out), of_scale)) in each.enumerate() {
                let parameters = groups.parameters(first + group);
                *of_scale = fake_quantize::gradients(x, gradient, parameters, groups.range, out);
            }
        });
    });
}

/// NF4 or FP4 blocks of a flattened weight, as [`quantize_four_bit`](crate::weight_codecs::quantize_four_bit) makes them, with their absmax values in 8 bits where
/// `double_quantization` says so: the values into `out` (n). Returns whether all elements are finite; where they are not, the rest means nothing.
///
/// # Panics
/// If `block_size` is odd or 0, or `out` does not have the length of the weights.
pub fn four_bit_blocks(
    kernels: &Kernels,
    weights: &[f32],
    block_size: usize,
    kind: FourBitType,
    double_quantization: bool,
    out: &mut [f32],
) -> bool {
    assert_eq!(weights.len(), out.len(), "one value for each element");
    let mut packed = vec![0; weights.len().div_ceil(2)];
    let mut absmax = vec![0.0; weights.len().div_ceil(block_size)];
    let source = FloatBytes::of_f32(weights);
    let into = (&mut packed[..], &mut absmax[..]);
    let found = quantize_four_bit_into(kernels, source, block_size, kind, into, ErrorFigures::Skip);
    if !found.finite {
        return false;
    }
    if double_quantization {
        absmax = double_quantization::quantize(&absmax).dequantize();
    }
    dequantize_four_bit(kernels, &packed, &absmax, block_size, kind, out);
    true
}

/// Rows of `columns`, each quantized over its own range to affine codes of `range`, as values into `out` (n). Returns whether all elements are finite.
///
/// # Panics
/// If a slice does not have its length.
pub fn rows(x: &[f32], columns: usize, range: CodeRange, out: &mut [f32]) -> bool {
    assert_eq!(x.len(), out.len(), "one value for each element");
    let columns = columns.max(1);
    let part = part_elements(columns);
    let parts = out.par_chunks_mut(part).zip(x.par_chunks(part));
    let finite = parts.map(|(out, x)| {
        let rows = x.chunks(columns).zip(out.chunks_mut(columns));
        // All of them, without stopping at the first.
        rows.map(|(x, out)| fake_quantize::fake_quantize_row(x, range, out))
            .fold(true, |all, finite| all & finite)
    });
    in_pool(|| finite.reduce(|| true, |a, b| a & b))
}

/// Values with one scale and zero point, into `out` (n), and whether the gradient passes them, into `passes` (n). Returns whether all elements are finite.
///
/// # Panics
/// If a slice does not have its length.
pub fn with_one_scale(
    x: &[f32],
    parameters: AffineParameters,
    range: CodeRange,
    out: &mut [f32],
    passes: &mut [u8],
) -> bool {
    assert_eq!(
        (x.len(), x.len()),
        (out.len(), passes.len()),
        "one for each element"
    );
    let part = part_elements(1);
    let parts = out
        .par_chunks_mut(part)
        .zip(passes.par_chunks_mut(part))
        .zip(x.par_chunks(part));
    let finite = parts.map(|((out, passes), x)| {
        fake_quantize::fake_quantize(x, parameters, range, out);
        fake_quantize::straight_through(x, parameters, range, passes);
        first_non_finite(x).is_none()
    });
    in_pool(|| finite.reduce(|| true, |a, b| a & b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weight_codecs::{ErrorFigures, quantize_int4};
    use fewbit_numerics::int4_groups::{GroupScales, GroupStorage};
    use fewbit_numerics::rows::{dequantize_groups, quantize_rows_int8};

    /// Several parts and a short one.
    fn weights(elements: usize) -> Vec<f32> {
        (0..elements)
            .map(|i| ((i * 7919 % 2003) as f32 - 1001.0) * 0.37)
            .collect()
    }

    #[test]
    fn int8_rows_are_what_their_codes_stand_for() {
        let kernels = Kernels::from_environment().expect("a supported instruction set");
        for [rows, columns] in [[0, 5], [1, 7], [300, 384]] {
            let weights = weights(rows * columns);
            let expected = quantize_rows_int8(&weights, rows, columns);
            let (mut out, mut scales) = (vec![f32::NAN; weights.len()], vec![0.0; rows]);
            assert!(int8_rows(kernels, &weights, columns, &mut out, &mut scales));
            assert_eq!(scales, expected.scales);
            let values: Vec<f32> =
                dequantize_groups(&expected.codes, &scales, None, columns).collect();
            assert_eq!(out, values);
        }
    }

    #[test]
    fn int4_groups_are_what_their_codes_stand_for() {
        let (rows, columns, group_size) = (70, 960, 32);
        let weights = weights(rows * columns);
        let kernels = Kernels::from_environment().expect("an instruction set of this CPU");
        for by in [GroupScales::Range, GroupScales::LeastSquaredError] {
            for asymmetric in [false, true] {
                let settings = Int4Settings {
                    group_size,
                    asymmetric,
                    scales: by,
                    storage: GroupStorage::default(),
                };
                let source = FloatBytes::of_f32(&weights);
                let (expected, _) = quantize_int4(
                    kernels,
                    source,
                    [rows, columns],
                    settings,
                    ErrorFigures::Skip,
                )
                .expect("finite numbers");
                let groups = weights.len() / group_size;
                let (mut scales, mut points) = (vec![0.0; groups], vec![9; groups]);
                assert!(choose_int4(
                    kernels,
                    &weights,
                    settings,
                    &mut scales,
                    &mut points
                ));
                assert_eq!(scales, expected.scales);
                let zero_points = expected.zero_points.clone().unwrap_or(vec![0; groups]);
                assert_eq!(points, zero_points);
                let groups = Groups {
                    group_size,
                    range: CodeRange::INT4,
                    scales: &scales,
                    zero_points: asymmetric.then_some(&points[..]),
                };
                let mut codes = vec![9; weights.len()];
                codes_with_groups(&weights, groups, &mut codes);
                assert_eq!(codes, expected.codes);
                let mut out = vec![f32::NAN; weights.len()];
                assert!(with_groups(&weights, groups, &mut out));
                let points = expected.zero_points.as_deref();
                let values: Vec<f32> =
                    dequantize_groups(&codes, &scales, points, group_size).collect();
                assert_eq!(out, values);
            }
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_reported_from_every_part() {
        let kernels = Kernels::from_environment().expect("a supported instruction set");
        let columns = 64;
        let mut weights = weights(1024 * columns);
        let (mut out, mut scales) = (weights.clone(), vec![1.0; 1024]);
        let mut passes = vec![0; weights.len()];
        let parameters = AffineParameters {
            scale: 1.0,
            zero_point: 0,
        };
        for place in [0, weights.len() / 2, weights.len() - 1] {
            let before = std::mem::replace(&mut weights[place], f32::INFINITY);
            assert!(!int8_rows(
                kernels,
                &weights,
                columns,
                &mut out,
                &mut scales
            ));
            assert!(!rows(&weights, columns, CodeRange::UINT8, &mut out));
            let one = (parameters, CodeRange::INT8);
            assert!(!with_one_scale(
                &weights,
                one.0,
                one.1,
                &mut out,
                &mut passes
            ));
            weights[place] = before;
        }
        assert!(rows(&weights, columns, CodeRange::UINT8, &mut out));
    }
}
