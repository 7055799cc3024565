//! What an instruction set must offer for int8 products: a tile of exact integer sums.

use crate::aligned::{Plain, Scratch};
use crate::quantized_rows::QuantizedRows;
use crate::simd::LANES;

/// Consecutive columns of one row that the int8 weights keep together.
pub(crate) const INT8_GROUP: usize = 4;

/// Rows of the accumulator block that a tile fills.
pub(crate) const INT8_TILE_ROWS: usize = 6;

/// Vectors of sixteen outputs in a panel of int8 weights; the last panel of a weight may have fewer.
pub(crate) const INT8_PANEL_VECTORS: usize = 4;

/// Integer sums of one tile, row by row.
#[repr(C, align(64))]
pub(crate) struct Int8Accumulators(pub(crate) [[[i32; LANES]; INT8_PANEL_VECTORS]; INT8_TILE_ROWS]);

impl Int8Accumulators {
    pub(crate) fn new() -> Self {
        Self([[[0; LANES]; INT8_PANEL_VECTORS]; INT8_TILE_ROWS])
    }
}

/// Operands of one tile. Pointers, because the slices would be checked in the innermost loops.
#[derive(Clone, Copy)]
pub(crate) struct Int8Operands<A> {
    /// First row of activations: `rows` rows of `groups * INT8_GROUP` elements.
    pub(crate) activations: *const A,
    /// Elements from one row of activations to the next.
    pub(crate) stride: usize,
    /// 1..=[`INT8_TILE_ROWS`]
    pub(crate) rows: usize,
    /// Weights of the first output, laid out `[groups][outputs of the panel][INT8_GROUP]`; at the start of a cache line.
    pub(crate) weights: *const i8,
    /// Bytes from one group of a panel to the next: a multiple of 64.
    pub(crate) group_stride: usize,
    /// Groups of [`INT8_GROUP`] columns.
    pub(crate) groups: usize,
    /// Vectors of outputs, 1..=[`Int8Tile::VECTORS`].
    pub(crate) vectors: usize,
    /// Where the weights that come next begin, and how many cache lines of them to ask for with each group. Only a hint: it may
    /// point anywhere.
    pub(crate) prefetch: *const i8,
    pub(crate) prefetch_lines: usize,
}

/// Products of u8 activations and i8 weights, exact in i32 for all codes.
///
/// An implementation is a zero-sized token, as for [`crate::simd::Simd`].
pub(crate) trait Int8Tile: Copy {
    /// What the tile reads for one activation code.
    type Activation: Plain;

    /// The most vectors of outputs that one call computes: a divisor of [`INT8_PANEL_VECTORS`].
    const VECTORS: usize;

    /// The token.
    ///
    /// # Safety
    ///
    /// The CPU has the instruction set.
    unsafe fn assume_supported() -> Self;

    /// The codes of all rows as the tile reads them, each row padded with zeros to whole groups, and the elements from one row to
    /// the next; `scratch` is there to be used.
    fn activations<'a>(
        self,
        x: &'a QuantizedRows,
        scratch: &'a mut Scratch,
    ) -> (&'a [Self::Activation], usize);

    /// `accumulators[row][vector][output]` = the sum over all columns of activation times weight, for the first `rows` rows and
    /// `vectors` vectors. No intermediate value saturates.
    ///
    /// # Safety
    ///
    /// The operands are as [`Int8Operands`] says.
    unsafe fn multiply(
        self,
        operands: Int8Operands<Self::Activation>,
        accumulators: &mut Int8Accumulators,
    );
}
