//! int8 codes with one scale a row, or for each group of its columns.

use fewbit_numerics::absmax::absmax;
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_numerics::rows::{Int8Rows, row_scale};
use fewbit_numerics::saturation::{first_code, saturation_proof_scale, second_code, single_code};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::{ColumnOrder, ColumnQuantizer, InverseFactor, round_rows};

/// Rows that a thread rounds at a time: they share each row of the factor while it is in the cache.
pub(super) const TILE_ROWS: usize = 16;

/// The nearest of the codes -128..=127.
#[derive(Debug)]
pub struct NearestCodes<'a> {
    scales: &'a [f32],
    group_size: usize,
    codes: &'a mut [i8],
}

impl<'a> NearestCodes<'a> {
    /// For the codes of one row with the scales of its groups of so many columns, at least 1.
    pub fn new(scales: &'a [f32], group_size: usize, codes: &'a mut [i8]) -> Self {
        Self {
            scales,
            group_size,
            codes,
        }
    }
}

impl ColumnQuantizer for NearestCodes<'_> {
    fn quantize(&mut self, column: usize, remaining: &[f64]) -> f64 {
        let parameters = AffineParameters {
            scale: self.scales[column / self.group_size],
            zero_point: 0,
        };
        let code = parameters.quantize(remaining[0] as f32, CodeRange::INT8);
        set(&mut self.codes[column], code, parameters)
    }
}

/// Codes of which no pair can saturate 16 bits ([`fewbit_numerics::saturation`]).
#[derive(Debug)]
pub struct SaturationProofCodes<'a> {
    parameters: AffineParameters,
    codes: &'a mut [i8],
}

impl<'a> SaturationProofCodes<'a> {
    /// For the codes of one row with this scale.
    pub fn new(scale: f32, codes: &'a mut [i8]) -> Self {
        let zero_point = 0;
        Self {
            parameters: AffineParameters { scale, zero_point },
            codes,
        }
    }
}

impl ColumnQuantizer for SaturationProofCodes<'_> {
    fn quantize(&mut self, column: usize, remaining: &[f64]) -> f64 {
        let parameters = self.parameters;
        let code = match remaining {
            _ if column % 2 == 1 => {
                let first = i32::from(self.codes[column - 1]);
                second_code(remaining[0], first, parameters)
            }
            [first, second, ..] => first_code(*first, *second, parameters),
            _ => single_code(remaining[0], parameters),
        };
        set(&mut self.codes[column], code, parameters)
    }
}

/// Takes down a code, which is one of int8, and returns what it stands for.
fn set(place: &mut i8, code: i32, parameters: AffineParameters) -> f64 {
    *place = code as i8;
    f64::from(parameters.dequantize(code))
}

/// Rounds a weight (rows, columns; row-major, finite) to int8, one scale a row, on the threads of the current pool.
///
/// Codes of which no pair can saturate need a factor whose order keeps pairs together.
///
/// Scales are those of rounding to nearest ([`row_scale`], or [`saturation_proof_scale`]); they do not depend on the texts.
///
/// # Panics
/// If `weights` are no whole rows of the factor's columns, or the factor's order separates pairs that may not saturate.
pub fn int8_rows(weights: &[f32], factor: &InverseFactor, saturation_proof: bool) -> Int8Rows {
    let columns = factor.columns().len();
    assert!(
        !saturation_proof || factor.order() != ColumnOrder::FallingSquares,
        "pairs of columns stay together"
    );
    int8_codes(weights, factor, columns, saturation_proof)
}

/// Rounds a weight (rows, columns; row-major, finite) to int8, with a scale for each group of `group_size` columns, that of rounding to nearest
/// ([`row_scale`] of the group), on the threads of the current pool. The rows of the result are the groups.
///
/// # Panics
/// If `weights` are no whole rows of the factor's columns, or groups do not divide these.
pub fn int8_groups(weights: &[f32], factor: &InverseFactor, group_size: usize) -> Int8Rows {
    int8_codes(weights, factor, group_size, false)
}

/// Codes under the scales of groups; of codes of which no pair can saturate a group is a whole row.
fn int8_codes(
    weights: &[f32],
    factor: &InverseFactor,
    group_size: usize,
    saturation_proof: bool,
) -> Int8Rows {
    let columns = factor.columns().len();
    assert_eq!(weights.len() % columns, 0, "whole rows");
    assert_eq!(columns % group_size, 0, "whole groups");
    let scales: Vec<f32> = weights
        .chunks_exact(group_size)
        .map(|group| match saturation_proof {
            true => saturation_proof_scale(absmax(group)),
            false => row_scale(absmax(group)),
        })
        .collect();
    let groups = columns / group_size;
    let mut codes = vec![0; weights.len()];
    let tile = TILE_ROWS * columns;
    weights
        .par_chunks(tile)
        .zip(codes.par_chunks_mut(tile))
        .zip(scales.par_chunks(TILE_ROWS * groups))
        .for_each(|((weights, codes), scales)| {
            let rows = scales.chunks_exact(groups);
            let rows = rows.zip(codes.chunks_exact_mut(columns));
            if saturation_proof {
                let rows = rows.map(|(scales, codes)| SaturationProofCodes::new(scales[0], codes));
                round_rows(weights, factor, &mut rows.collect::<Vec<_>>());
            } else {
                let rows = rows.map(|(scales, codes)| NearestCodes::new(scales, group_size, codes));
                round_rows(weights, factor, &mut rows.collect::<Vec<_>>());
            }
        });
    Int8Rows {
        rows: scales.len(),
        columns: group_size,
        codes,
        scales,
    }
}
