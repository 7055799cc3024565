//! int4 codes with a scale, and perhaps a zero point, for each group of columns.

use fewbit_kernels::Kernels;
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_numerics::int4_groups::{Int4Groups, Int4Settings};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::int8::TILE_ROWS;
use super::{ColumnQuantizer, InverseFactor, round_rows};
use crate::weight_codecs::choose_int4_parameters;

/// Scales and zero points of the groups of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Int4Parameters {
    /// Input features: a multiple of the group size.
    pub columns: usize,
    /// Neighbouring columns of a row that share parameters.
    pub group_size: usize,
    /// Whether groups have zero points.
    pub asymmetric: bool,
    /// (rows, columns / `group_size`)
    pub groups: Vec<AffineParameters>,
}

impl Int4Parameters {
    /// Those of `weights` (rows, columns; row-major, finite), chosen as `settings` say, or with `importance`, one number for each column, by the weighted
    /// squared error; on the threads of the current pool.
    ///
    /// # Panics
    /// If `weights` are no whole rows, or groups do not divide the columns.
    pub fn of(
        kernels: &Kernels,
        weights: &[f32],
        columns: usize,
        settings: Int4Settings,
        importance: Option<&[f32]>,
    ) -> Self {
        let Int4Settings {
            group_size,
            asymmetric,
            ..
        } = settings;
        assert_eq!(weights.len() % columns, 0, "whole rows");
        assert_eq!(columns % group_size, 0, "whole groups");
        // As many rows as fill vectors with groups of whole rows.
        const ROWS: usize = 16;
        let importance = importance.map(|columns| columns.repeat(ROWS));
        let rows = weights.par_chunks(ROWS * columns);
        let groups = rows.flat_map_iter(|rows| {
            let mut scales = vec![0.0; rows.len() / group_size];
            let mut zero_points = asymmetric.then(|| vec![0; scales.len()]);
            let into = (&mut scales[..], zero_points.as_deref_mut());
            let importance = importance.as_ref().map(|every| &every[..rows.len()]);
            choose_int4_parameters(kernels, rows, settings, importance, into);
            let scales = scales.into_iter().enumerate();
            scales.map(move |(index, scale)| AffineParameters {
                scale,
                zero_point: zero_points
                    .as_ref()
                    .map_or(0, |points| i32::from(points[index])),
            })
        });
        Self {
            columns,
            group_size,
            asymmetric,
            groups: groups.collect(),
        }
    }

    /// The parameters with the codes that were chosen under them.
    fn with_codes(self, codes: Vec<i8>) -> Int4Groups {
        let groups = self.groups.iter();
        Int4Groups {
            rows: codes.len() / self.columns,
            columns: self.columns,
            group_size: self.group_size,
            codes,
            scales: groups.clone().map(|group| group.scale).collect(),
            // One of the codes, so that it fits.
            zero_points: self
                .asymmetric
                .then(|| groups.map(|group| group.zero_point as i8).collect()),
        }
    }
}

/// The nearest of the codes -8..=7.
#[derive(Debug)]
pub struct Int4Codes<'a> {
    groups: &'a [AffineParameters],
    group_size: usize,
    codes: &'a mut [i8],
}

impl<'a> Int4Codes<'a> {
    /// For the codes of one row with the parameters of its groups.
    pub fn new(groups: &'a [AffineParameters], group_size: usize, codes: &'a mut [i8]) -> Self {
        Self {
            groups,
            group_size,
            codes,
        }
    }
}

impl ColumnQuantizer for Int4Codes<'_> {
    fn quantize(&mut self, column: usize, remaining: &[f64]) -> f64 {
        let parameters = self.groups[column / self.group_size];
        let code = parameters.quantize(remaining[0] as f32, CodeRange::INT4);
        // In -8..=7 by the clamp of the rule.
        self.codes[column] = code as i8;
        f64::from(parameters.dequantize(code))
    }
}

/// Rounds a weight (rows, columns; row-major, finite) to int4 under parameters that are there already, on the threads of the current pool.
///
/// # Panics
/// If `weights` are no whole rows of the factor's columns, or the parameters are those of another weight.
pub fn int4_codes(
    weights: &[f32],
    factor: &InverseFactor,
    parameters: Int4Parameters,
) -> Int4Groups {
    let columns = factor.columns().len();
    let Int4Parameters {
        group_size,
        ref groups,
        ..
    } = parameters;
    assert_eq!(columns, parameters.columns, "a factor of the same columns");
    assert_eq!(weights.len(), groups.len() * group_size, "whole groups");
    let mut codes = vec![0; weights.len()];
    let tile = TILE_ROWS * columns;
    weights
        .par_chunks(tile)
        .zip(codes.par_chunks_mut(tile))
        .zip(groups.par_chunks(tile / group_size))
        .for_each(|((weights, codes), groups)| {
            let rows = groups.chunks_exact(columns / group_size);
            let rows = rows.zip(codes.chunks_exact_mut(columns));
            let rows = rows.map(|(groups, codes)| Int4Codes::new(groups, group_size, codes));
            round_rows(weights, factor, &mut rows.collect::<Vec<_>>());
        });
    parameters.with_codes(codes)
}

/// The nearest codes of a weight under parameters that are there already, on the threads of the current pool.
pub fn nearest_int4_codes(weights: &[f32], parameters: Int4Parameters) -> Int4Groups {
    let mut codes = vec![0; weights.len()];
    let size = parameters.group_size;
    let of_groups = weights.par_chunks(size).zip(codes.par_chunks_mut(size));
    of_groups
        .zip(&parameters.groups)
        .for_each(|((weights, codes), group)| {
            for (code, weight) in codes.iter_mut().zip(weights) {
                // In -8..=7 by the clamp of the rule.
                *code = group.quantize(*weight, CodeRange::INT4) as i8;
            }
        });
    parameters.with_codes(codes)
}
