//! What an instruction set must offer for int8 products: a tile of exact integer sums.

use crate::aligned::{AlignedVec, Plain, Scratch};
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
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(
        dead_code,
        reason = "only the tile of AVX-512 takes several vectors and prefetches"
    )
)]
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
    /// The weights that come next, to be asked for evenly while this tile runs. Only a hint: they may be anywhere.
    pub(crate) prefetch: Prefetch,
}

/// Cache lines to ask for.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "only the tile of AVX-512 prefetches")
)]
pub(crate) struct Prefetch {
    pub(crate) line: *const i8,
    /// How many of 256 groups ask for a line, on average; more than 256 where a group asks for several.
    pub(crate) rate: usize,
}

impl Prefetch {
    /// Nothing to ask for.
    pub(crate) const NONE: Self = Self {
        line: std::ptr::null(),
        rate: 0,
    };
}

/// Products of u8 activations and i8 weights, exact in i32 for all codes.
///
/// An implementation is a zero-sized token, as for [`crate::simd::Simd`].
pub(crate) trait Int8Tile: Copy {
    /// What the tile reads for one activation code.
    type Activation: Plain;

    /// The most vectors of outputs that one call computes: a divisor of [`INT8_PANEL_VECTORS`].
    const VECTORS: usize;

    /// What the activations are lowered by: the tile multiplies `code - ACTIVATION_OFFSET`, and the caller lowers the zero point as much.
    const ACTIVATION_OFFSET: i32 = 0;

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

    /// Runs `rounds` rounds of the tile's multiply-adds and returns their number: on registers alone where that is written, else on the
    /// first-level cache.
    #[inline(always)]
    fn multiply_registers(self, rounds: usize) -> usize {
        const GROUPS: usize = 16;
        let mut scratch = Scratch::default();
        let x = QuantizedRows::from_parts(
            &[1; INT8_TILE_ROWS * GROUPS * INT8_GROUP],
            vec![1.0; INT8_TILE_ROWS],
            vec![0; INT8_TILE_ROWS],
            GROUPS * INT8_GROUP,
        );
        let group_stride = Self::VECTORS * LANES * INT8_GROUP;
        let weights = AlignedVec::<i8>::zeroed(GROUPS * group_stride);
        let (activations, stride) = self.activations(&x, &mut scratch);
        let operands = Int8Operands {
            activations: activations.as_ptr(),
            stride,
            rows: INT8_TILE_ROWS,
            weights: weights.as_ptr(),
            group_stride,
            groups: GROUPS,
            vectors: Self::VECTORS,
            prefetch: Prefetch::NONE,
        };
        let mut accumulators = Int8Accumulators::new();
        let calls = rounds.div_ceil(GROUPS);
        for _ in 0..calls {
            // SAFETY: the operands are as many as they say.
            unsafe { self.multiply(std::hint::black_box(operands), &mut accumulators) };
        }
        std::hint::black_box(&accumulators.0);
        calls * GROUPS * INT8_TILE_ROWS * group_stride
    }
}
