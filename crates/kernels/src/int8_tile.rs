//! What an instruction set must offer for int8 products: a tile of exact integer sums.

use crate::aligned::{AlignedVec, Plain, Scratch};
pub(crate) use crate::panel_layout::{
    INT8_GROUP, INT8_LINE, INT8_PANEL_VECTORS, LineOrder, PanelLayout,
};
use crate::quantized_rows::QuantizedRows;
use crate::simd::{LANES, Simd};

/// Rows of the accumulator block that a tile fills.
pub(crate) const INT8_TILE_ROWS: usize = 6;

/// Integer sums of one tile, row by row.
#[repr(C, align(64))]
pub(crate) struct Int8Accumulators(pub(crate) [[[i32; LANES]; INT8_PANEL_VECTORS]; INT8_TILE_ROWS]);

impl Int8Accumulators {
    pub(crate) fn new() -> Self {
        Self([[[0; LANES]; INT8_PANEL_VECTORS]; INT8_TILE_ROWS])
    }
}

/// Sums of one tile in floats, row by row.
#[repr(C, align(64))]
pub(crate) struct FloatAccumulators(
    pub(crate) [[[f32; LANES]; INT8_PANEL_VECTORS]; INT8_TILE_ROWS],
);

impl FloatAccumulators {
    pub(crate) fn new() -> Self {
        Self([[[0.0; LANES]; INT8_PANEL_VECTORS]; INT8_TILE_ROWS])
    }
}

/// Operands of one tile whose weights have a scale for each group of columns.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "only the tile of AVX-512 reads nibbles")
)]
pub(crate) struct ScaledGroups<A> {
    /// The first of the groups; the others follow in activations and weights.
    pub(crate) group: Int8Operands<A>,
    /// Rows of codes that stand for one row: of high and of low bytes, or one.
    pub(crate) planes: usize,
    /// How many groups there are.
    pub(crate) count: usize,
    /// `[vectors][count][16]`
    pub(crate) scales: *const f32,
    /// `[vectors][count][16]` sums of weights; read only where [`Int8Tile::ACTIVATION_OFFSET`] is not 0.
    pub(crate) group_sums: *const i32,
    /// What the weights are: bytes, unless [`Int8Tile::READS_NIBBLES`].
    pub(crate) source: CodeSource,
}

/// Where a tile takes int4 codes from.
///
/// Lines of nibbles are those of two lines: the low nibbles are those of the first, the high ones those of the next, both plus an offset. Offsets are
/// `[vectors][count][64]` bytes, the same for all columns of an output; null: 8 for all.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "only the tile of AVX-512 reads nibbles")
)]
pub(crate) enum CodeSource {
    /// The weights are bytes. Where [`Int8Tile::READS_NIBBLES`], those of a whole panel.
    Bytes,
    /// The weights are lines of nibbles.
    Nibbles { offsets: *const i8 },
    /// The weights are lines of nibbles of a whole panel, and are to be stored as lines of bytes.
    KeptNibbles { offsets: *const i8, bytes: *mut i8 },
}

/// Operands of one tile. Pointers, because the slices would be checked in the innermost loops.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(
        dead_code,
        reason = "only the tile of AVX-512 takes several vectors, and only x86-64 prefetches"
    )
)]
pub(crate) struct Int8Operands<A> {
    /// First row of activations: `rows` rows of `groups * INT8_GROUP` elements.
    pub(crate) activations: *const A,
    /// Elements from one row of activations to the next.
    pub(crate) stride: usize,
    /// 1..=[`INT8_TILE_ROWS`]
    pub(crate) rows: usize,
    /// Weights of the first sixteen outputs, laid out as [`PanelLayout`] says; at the start of a cache line.
    pub(crate) weights: *const i8,
    /// Bytes from one group of a panel to the next: a multiple of [`INT8_LINE`].
    pub(crate) group_stride: usize,
    /// Groups of [`INT8_GROUP`] columns.
    pub(crate) groups: usize,
    /// Vectors of outputs, 1..=[`Int8Tile::VECTORS`].
    pub(crate) vectors: usize,
    /// The weights that come next, to be prefetched evenly while this tile runs. Only a hint: they may be anywhere.
    pub(crate) prefetch: Prefetch,
}

/// Cache lines to prefetch.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "only x86-64 prefetches")
)]
pub(crate) struct Prefetch {
    pub(crate) line: *const i8,
    /// How many of 256 groups prefetch a line, on average; more than 256 where a group prefetches several.
    pub(crate) rate: usize,
}

impl Prefetch {
    /// Nothing to prefetch.
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

    /// How the weights lie.
    const LAYOUT: PanelLayout;

    /// The most vectors of outputs that one call computes: a divisor of those of the layout.
    const VECTORS: usize;

    /// The most bytes of prepared activations that go through a panel before the next one comes: as many as stay in the second-level
    /// cache beside the panel.
    const ROW_BYTES: usize = usize::MAX;

    /// How many bytes ahead of a panel memory is prefetched, at least.
    const PREFETCH_DISTANCE: usize = 96 << 10;

    /// The fewest rows of codes for which memory is prefetched: what little is computed with a panel may leave the CPU's own prefetchers the time to fetch the next.
    const PREFETCH_ROWS: usize = INT8_TILE_ROWS + 1;

    /// What the activations are lowered by: the tile multiplies `code - ACTIVATION_OFFSET`, and the caller lowers the zero point as much.
    const ACTIVATION_OFFSET: i32 = 0;

    /// Whether [`multiply_groups`](Self::multiply_groups) takes weights as nibbles, too.
    const READS_NIBBLES: bool = false;

    /// Whether an activation is an i16, so that one product takes codes of sixteen bits.
    const WIDE: bool = size_of::<Self::Activation>() == size_of::<i16>();

    /// Makes the token.
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

    /// `sums[row][vector][output]` = over all groups in order, from 0 on, `fma(f32(acc), scale, sum)` with the exact sum `acc` of activation code times weight over
    /// the columns of a group. There are `rows / planes` rows.
    ///
    /// # Safety
    ///
    /// The operands are as [`ScaledGroups`] and [`Int8Operands`] say.
    #[inline(always)]
    unsafe fn multiply_groups<S: Simd>(
        self,
        s: S,
        operands: ScaledGroups<Self::Activation>,
        sums: &mut FloatAccumulators,
    ) {
        let ScaledGroups {
            group,
            planes,
            count,
            scales,
            group_sums,
            source: _,
        } = operands;
        let mut accumulators = Int8Accumulators::new();
        sums.0[..group.rows / planes].fill([[0.0; LANES]; INT8_PANEL_VECTORS]);
        let offset = match planes {
            1 => Self::ACTIVATION_OFFSET,
            _ => Self::ACTIVATION_OFFSET * 257,
        };
        for index in 0..count {
            let part = Int8Operands {
                activations: group
                    .activations
                    .wrapping_add(index * group.groups * INT8_GROUP),
                weights: group
                    .weights
                    .wrapping_add(index * group.groups * group.group_stride),
                prefetch: Prefetch {
                    line: group
                        .prefetch
                        .line
                        .wrapping_add(index * group.groups * group.prefetch.rate / 256 * INT8_LINE),
                    ..group.prefetch
                },
                ..group
            };
            // SAFETY: this function's contract.
            unsafe { self.multiply(part, &mut accumulators) };
            for vector in 0..group.vectors {
                let place = (vector * count + index) * LANES;
                // SAFETY: this function's contract.
                let scale = unsafe { &*scales.add(place).cast::<[f32; LANES]>() };
                let scale = s.load(scale);
                let lowered = match offset {
                    0 => s.splat_i32(0),
                    _ => {
                        // SAFETY: this function's contract.
                        let of_group = unsafe { &*group_sums.add(place).cast::<[i32; LANES]>() };
                        s.mul_i32(s.load_i32(of_group), s.splat_i32(offset))
                    }
                };
                for (row, sums) in sums.0[..group.rows / planes].iter_mut().enumerate() {
                    let mut exact = s.load_i32(&accumulators.0[planes * row][vector]);
                    if planes > 1 {
                        let low = s.load_i32(&accumulators.0[planes * row + 1][vector]);
                        exact = s.add_i32(s.mul_i32(exact, s.splat_i32(256)), low);
                    }
                    let exact = s.to_f32(s.add_i32(exact, lowered));
                    let sum = s.fma(exact, scale, s.load(&sums[vector]));
                    s.store(sum, &mut sums[vector]);
                }
            }
        }
    }

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
        let group_stride = Self::VECTORS * INT8_LINE;
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
