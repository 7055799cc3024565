//! NF4 and FP4 codes with one scale for each block of the flattened weight.

use fewbit_numerics::four_bit::{FourBitType, pack};
use fewbit_numerics::four_bit_scales::reciprocal;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::int8::TILE_ROWS;
use super::{ColumnQuantizer, InverseFactor, round_rows};

/// Scales of the blocks of a flattened weight, which may cross its rows.
#[derive(Debug, Clone, Copy)]
pub struct FourBitScales<'a> {
    /// The code table.
    pub kind: FourBitType,
    /// Elements that share a scale.
    pub block_size: usize,
    /// What values of the table are multiplied with when they are read: (ceil(elements / block_size)).
    pub scales: &'a [f32],
}

/// The code whose value is nearest.
#[derive(Debug)]
pub struct FourBitCodes<'a> {
    blocks: FourBitScales<'a>,
    first_element: usize,
    codes: &'a mut [u8],
}

impl<'a> FourBitCodes<'a> {
    /// For the codes, one a byte, of a row that begins with the element `first_element` of the flattened weight.
    pub fn new(blocks: FourBitScales<'a>, first_element: usize, codes: &'a mut [u8]) -> Self {
        Self {
            blocks,
            first_element,
            codes,
        }
    }
}

impl ColumnQuantizer for FourBitCodes<'_> {
    fn quantize(&mut self, column: usize, remaining: &[f64]) -> f64 {
        let FourBitScales {
            kind,
            block_size,
            scales,
        } = self.blocks;
        let scale = scales[(self.first_element + column) / block_size];
        let code = kind.encode(remaining[0] as f32 * reciprocal(scale));
        self.codes[column] = code;
        f64::from(kind.table()[usize::from(code)] * scale)
    }
}

/// Rounds a weight (rows, columns; row-major, finite) to codes of 4 bits, two a byte, under scales that are there already, on the threads of the current pool.
///
/// # Panics
/// If `weights` are no whole rows of the factor's columns, or there are too few scales for them.
pub fn four_bit_codes(
    weights: &[f32],
    factor: &InverseFactor,
    blocks: FourBitScales<'_>,
) -> Vec<u8> {
    let columns = factor.columns().len();
    assert_eq!(weights.len() % columns, 0, "whole rows");
    let mut codes = vec![0; weights.len()];
    let tile = TILE_ROWS * columns;
    weights
        .par_chunks(tile)
        .zip(codes.par_chunks_mut(tile))
        .enumerate()
        .for_each(|(index, (weights, codes))| {
            let rows = (index * tile..).step_by(columns);
            let rows = rows.zip(codes.chunks_exact_mut(columns));
            let rows = rows.map(|(first, codes)| FourBitCodes::new(blocks, first, codes));
            round_rows(weights, factor, &mut rows.collect::<Vec<_>>());
        });
    pack(&codes, blocks.kind)
}

/// The nearest codes of a flattened weight (finite), two a byte, on the threads of the current pool.
///
/// # Panics
/// If there are too few scales.
pub fn nearest_four_bit_codes(weights: &[f32], blocks: FourBitScales<'_>) -> Vec<u8> {
    let FourBitScales {
        kind,
        block_size,
        scales,
    } = blocks;
    let mut codes = vec![0; weights.len()];
    let of_blocks = weights
        .par_chunks(block_size)
        .zip(codes.par_chunks_mut(block_size));
    of_blocks.zip(scales).for_each(|((weights, codes), scale)| {
        let reciprocal = reciprocal(*scale);
        for (code, weight) in codes.iter_mut().zip(weights) {
            *code = kind.encode(weight * reciprocal);
        }
    });
    pack(&codes, kind)
}
