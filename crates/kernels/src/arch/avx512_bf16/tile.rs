//! The bf16 tile: `vdpbf16ps` adds two products of bf16 numbers to each f32 lane.

use std::arch::x86_64::*;

use crate::aligned::{Plain, Scratch};
use crate::arch::avx512_vnni::Avx512;
use crate::float_tile::{AttentionTile, Columns, FloatTile, Rows};
use crate::generic::f32_tile::{TILE_ROWS, row_tiles, store_tile};
use crate::generic::panel_element::Bf16;
use crate::simd::{LANES, Simd};

/// The token of AVX-512 BF16 (and F, BW and VL): one exists only where [`Bf16Tile::assume_supported`] was promised them. That is what
/// makes every intrinsic below sound to execute.
///
/// Operands are rounded to nearest even. The instructions round sums likewise, whatever the thread's settings, and take subnormal operands
/// and results as zeros.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Tile(());

/// Two bfloat16 numbers that are next to one another along the depth, the first in the low half.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Bf16Pair(#[allow(dead_code, reason = "read as bits by the tile")] u32);

// SAFETY: a transparent wrapper of u32.
unsafe impl Plain for Bf16Pair {}

impl Bf16Tile {
    /// The token.
    ///
    /// # Safety
    ///
    /// The CPU has the instruction set.
    #[inline(always)]
    pub(crate) unsafe fn assume_supported() -> Self {
        Bf16Tile(())
    }

    /// Sixteen pairs from two vectors of sixteen numbers that follow one another.
    #[inline(always)]
    fn adjacent(self, low: __m512, high: __m512) -> __m512i {
        // SAFETY: the token; both types are 64 bytes without invalid patterns.
        unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
    }

    /// Pairs (element i of the lower half, element i of the upper half).
    #[inline(always)]
    fn interleave(self, halves: __m512i) -> __m512i {
        const ORDER: [u16; 2 * LANES] = {
            let mut order = [0; 2 * LANES];
            let mut lane = 0;
            while lane < LANES {
                order[2 * lane] = lane as u16;
                order[2 * lane + 1] = (LANES + lane) as u16;
                lane += 1;
            }
            order
        };
        // SAFETY: the token; ORDER is 64 bytes.
        unsafe { _mm512_permutexvar_epi16(_mm512_loadu_si512(ORDER.as_ptr().cast()), halves) }
    }

    /// Sixteen pairs from at most 32 numbers, the others zeros.
    #[inline(always)]
    fn pairs(self, s: Avx512, numbers: &[f32]) -> __m512i {
        let (low, high) = numbers.split_at(numbers.len().min(LANES));
        self.adjacent(s.load_up_to(low, 0.0), s.load_up_to(high, 0.0))
    }
}

/// How a panel keeps its weights.
trait PairedPanel: Plain {
    /// Elements of a panel.
    fn panel_elements(depth: usize) -> usize;

    /// The weights of columns k and k + 1 of sixteen outputs, in pairs.
    ///
    /// # Safety
    ///
    /// The panel has both columns. k is even.
    unsafe fn pairs(t: Bf16Tile, panel: *const Self, k: usize) -> __m512i;

    /// The weights of the last of an odd number of columns, each paired with zero.
    ///
    /// # Safety
    ///
    /// The panel ends with column k. k is even.
    unsafe fn last(t: Bf16Tile, panel: *const Self, k: usize) -> __m512i;
}

/// Column after column, as all sets have them: paired on the way.
impl PairedPanel for Bf16 {
    #[inline(always)]
    fn panel_elements(depth: usize) -> usize {
        depth * LANES
    }

    #[inline(always)]
    unsafe fn pairs(t: Bf16Tile, panel: *const Self, k: usize) -> __m512i {
        // SAFETY: the token; two columns are 64 bytes, in bounds by this function's contract.
        t.interleave(unsafe { _mm512_loadu_si512(panel.add(k * LANES).cast()) })
    }

    #[inline(always)]
    unsafe fn last(_t: Bf16Tile, panel: *const Self, k: usize) -> __m512i {
        // SAFETY: the token; a column is 32 bytes, in bounds by this function's contract.
        unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(panel.add(k * LANES).cast())) }
    }
}

/// In pairs already; an odd last column is paired with zeros.
impl PairedPanel for Bf16Pair {
    #[inline(always)]
    fn panel_elements(depth: usize) -> usize {
        depth.div_ceil(2) * LANES
    }

    #[inline(always)]
    unsafe fn pairs(_t: Bf16Tile, panel: *const Self, k: usize) -> __m512i {
        // SAFETY: the token; a line of pairs is 64 bytes, in bounds by this function's contract.
        unsafe { _mm512_loadu_si512(panel.add(k / 2 * LANES).cast()) }
    }

    #[inline(always)]
    unsafe fn last(t: Bf16Tile, panel: *const Self, k: usize) -> __m512i {
        // SAFETY: this function's contract; the line has the zeros too.
        unsafe { Self::pairs(t, panel, k) }
    }
}

/// For each output one chain of `vdpbf16ps` over the pairs ascending, from 0.
impl<E: PairedPanel> FloatTile<Avx512, E> for Bf16Tile {
    type Activation = Bf16Pair;

    #[inline(always)]
    fn activations<'a>(
        self,
        s: Avx512,
        x: Rows<'a, f32>,
        depth: usize,
        scratch: &'a mut Scratch,
    ) -> Rows<'a, Bf16Pair> {
        let stride = depth.div_ceil(2 * LANES) * LANES;
        let pairs = scratch.slice::<Bf16Pair>(x.count * stride);
        if depth > 0 {
            for (row, pairs) in pairs.chunks_exact_mut(stride).enumerate() {
                let numbers = &x.values[row * x.stride..][..depth];
                let lines = pairs.as_chunks_mut::<LANES>().0;
                for (line, numbers) in lines.iter_mut().zip(numbers.chunks(2 * LANES)) {
                    let pairs = self.pairs(s, numbers);
                    // SAFETY: the token; a line is 64 bytes.
                    unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), pairs) };
                }
            }
        }
        Rows {
            values: pairs,
            stride,
            count: x.count,
        }
    }

    #[inline(always)]
    fn multiply(
        self,
        s: Avx512,
        x: Rows<'_, Bf16Pair>,
        panels: &[E],
        panel_count: usize,
        depth: usize,
        out: &mut Columns<'_>,
    ) {
        let columns = out.columns.count();
        if x.count == 0 || columns == 0 {
            return;
        }
        assert!(x.values.len() >= (x.count - 1) * x.stride + depth.div_ceil(2));
        assert!(panels.len() >= panel_count * E::panel_elements(depth));
        assert!(out.columns.rows() >= x.count);
        assert!(columns <= panel_count * LANES && columns > (panel_count - 1) * LANES);
        assert!(out.bias.is_none_or(|bias| bias.len() == columns));
        let panels = panels.as_ptr();
        // SAFETY: by the assertions above, rows 0..count of x, the panels and the output columns are in bounds; the row tiles cover exactly
        // these rows.
        unsafe {
            match panel_count {
                4 => self.rows::<E, 4>(s, x, panels, depth, out),
                2 => self.rows::<E, 2>(s, x, panels, depth, out),
                _ => self.rows::<E, 1>(s, x, panels, depth, out),
            }
        }
    }
}

impl AttentionTile<Avx512> for Bf16Tile {
    type Element = Bf16Pair;

    const NUMBERS: usize = 2;

    #[inline(always)]
    fn elements(self, s: Avx512, numbers: &[f32]) -> __m512 {
        // SAFETY: the token.
        unsafe { _mm512_castsi512_ps(self.pairs(s, numbers)) }
    }

    #[inline(always)]
    fn combine(self, _s: Avx512, first: __m512, second: __m512) -> __m512 {
        // SAFETY: the token.
        unsafe { _mm512_castsi512_ps(self.interleave(self.adjacent(first, second))) }
    }

    #[inline(always)]
    fn store(self, _s: Avx512, elements: __m512, line: &mut [Bf16Pair; LANES]) {
        // SAFETY: the token; a line is 64 bytes.
        unsafe { _mm512_storeu_ps(line.as_mut_ptr().cast(), elements) }
    }
}

impl Bf16Tile {
    /// All rows, tile by tile.
    ///
    /// # Safety
    ///
    /// As for [`Bf16Tile::tile`], for all rows of x.
    #[inline(always)]
    unsafe fn rows<E: PairedPanel, const PANELS: usize>(
        self,
        s: Avx512,
        x: Rows<'_, Bf16Pair>,
        panels: *const E,
        depth: usize,
        out: &mut Columns<'_>,
    ) {
        for (row, rows) in row_tiles(x.count, TILE_ROWS) {
            // SAFETY: this function's contract.
            unsafe {
                match rows {
                    6 => self.tile::<E, 6, PANELS>(s, x, row, panels, depth, out),
                    5 => self.tile::<E, 5, PANELS>(s, x, row, panels, depth, out),
                    4 => self.tile::<E, 4, PANELS>(s, x, row, panels, depth, out),
                    3 => self.tile::<E, 3, PANELS>(s, x, row, panels, depth, out),
                    2 => self.tile::<E, 2, PANELS>(s, x, row, panels, depth, out),
                    _ => self.tile::<E, 1, PANELS>(s, x, row, panels, depth, out),
                }
            }
        }
    }

    /// One tile: `ROWS` rows from `row` on, `PANELS` panels.
    ///
    /// # Safety
    ///
    /// The rows have `depth` numbers in pairs, the panels `depth` columns, and the output has these rows and columns.
    #[inline(always)]
    unsafe fn tile<E: PairedPanel, const ROWS: usize, const PANELS: usize>(
        self,
        s: Avx512,
        x: Rows<'_, Bf16Pair>,
        row: usize,
        panels: *const E,
        depth: usize,
        out: &mut Columns<'_>,
    ) {
        let mut sums = [[s.splat(0.0); PANELS]; ROWS];
        let panel_elements = E::panel_elements(depth);
        // SAFETY: the token; in bounds by this function's contract.
        unsafe {
            let x_row = x.values.as_ptr().add(row * x.stride).cast::<i32>();
            for k in (0..depth - depth % 2).step_by(2) {
                let mut weights = [_mm512_setzero_si512(); PANELS];
                for (panel, weights) in weights.iter_mut().enumerate() {
                    *weights = E::pairs(self, panels.add(panel * panel_elements), k);
                }
                add_products(&mut sums, x_row.add(k / 2), x.stride, &weights);
            }
            if depth % 2 == 1 {
                let k = depth - 1;
                let mut weights = [_mm512_setzero_si512(); PANELS];
                for (panel, weights) in weights.iter_mut().enumerate() {
                    *weights = E::last(self, panels.add(panel * panel_elements), k);
                }
                add_products(&mut sums, x_row.add(k / 2), x.stride, &weights);
            }
        }
        store_tile(s, &sums, row, out);
    }
}

/// One pair of columns for each sum.
///
/// # Safety
///
/// The CPU has AVX-512 BF16; each of the rows has a pair at `x` plus a multiple of `stride`.
#[inline(always)]
unsafe fn add_products<const ROWS: usize, const PANELS: usize>(
    sums: &mut [[__m512; PANELS]; ROWS],
    x: *const i32,
    stride: usize,
    weights: &[__m512i; PANELS],
) {
    // SAFETY: this function's contract; all types are 64 bytes without invalid patterns.
    unsafe {
        for (r, sums) in sums.iter_mut().enumerate() {
            let pair = _mm512_set1_epi32(*x.add(r * stride));
            for (sum, &weights) in sums.iter_mut().zip(weights) {
                *sum = _mm512_dpbf16_ps(
                    *sum,
                    std::mem::transmute::<__m512i, __m512bh>(pair),
                    std::mem::transmute::<__m512i, __m512bh>(weights),
                );
            }
        }
    }
}
