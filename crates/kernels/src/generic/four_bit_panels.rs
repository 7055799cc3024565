//! Products with panels of NF4 and FP4 codes, which are decoded in registers.

use std::ptr::null_mut;

use fewbit_numerics::four_bit::FourBitType;

use crate::aligned::Scratch;
use crate::float_tile::{Columns, Rows};
use crate::generic::f32_tile::{self, TILE_ROWS, store_tile};
use crate::packed_four_bit::{PackedFourBit, WORD_CODES};
use crate::simd::{LANES, Simd};

/// Rows of the tile that decodes: as many as leave its codes, scales and sums in registers.
const DECODING_ROWS: usize = 4;

/// Panels to multiply at once, of which `left` are left, with any number of rows.
#[inline(always)]
pub(crate) fn panels_at_once<S: Simd>(left: usize) -> usize {
    f32_tile::panels_at_once::<S>(TILE_ROWS, left)
}

/// The codes and scales of one panel.
#[derive(Clone, Copy)]
struct Panel<'a> {
    words: &'a [[i32; LANES]],
    ends: &'a [usize],
    absmax: &'a [[f32; LANES]],
}

impl<'a> Panel<'a> {
    #[inline(always)]
    fn new(weight: &'a PackedFourBit, panel: usize) -> Self {
        let groups = weight.in_features.div_ceil(WORD_CODES);
        let (words, absmax) = (&weight.words, &weight.runs.absmax);
        let runs = weight.runs.first[panel]..weight.runs.first[panel + 1];
        Self {
            words: &words.as_chunks().0[panel * groups..][..groups],
            ends: &weight.runs.ends[runs.clone()],
            absmax: &absmax.as_chunks().0[runs],
        }
    }
}

/// The product of [`f32_tile`](crate::generic::f32_tile) with `count` panels of `table[code] * absmax`, bit for bit, of as many of the first rows as one tile takes: how
/// many these are. Where more rows follow, the decoded panels are left in `decoded` for them, `[count][in_features][16]`.
///
/// How many panels that may be is for [`panels_at_once`] to say.
#[inline(always)]
pub(crate) fn multiply_first_rows<S: Simd>(
    s: S,
    x: Rows<'_, f32>,
    weight: &PackedFourBit,
    first: usize,
    count: usize,
    decoded: &mut Scratch,
    out: &mut Columns<'_>,
) -> usize {
    let (columns, depth) = (out.columns.count(), weight.in_features);
    assert!(x.count > 0 && x.values.len() >= (x.count - 1) * x.stride + depth);
    assert!(out.columns.rows() >= x.count);
    assert!(columns <= count * LANES && columns > (count - 1) * LANES);
    let height = x.count.min(DECODING_ROWS);
    // SAFETY: by the assertions above, each row of x has as many elements as the weight has columns, and so many lines are made room for.
    unsafe {
        if height == x.count {
            match count {
                4 if S::TILE_PANELS >= 4 => rows::<S, 4>(s, x, weight, first, out),
                2 if S::TILE_PANELS >= 2 => rows::<S, 2>(s, x, weight, first, out),
                _ => rows::<S, 1>(s, x, weight, first, out),
            }
        } else {
            let lines = decoded.slice::<f32>(count * depth * LANES).as_mut_ptr();
            match count {
                4 if S::TILE_PANELS >= 4 => {
                    tile::<S, DECODING_ROWS, 4, true>(s, x, weight, first, lines, out);
                }
                2 if S::TILE_PANELS >= 2 => {
                    tile::<S, DECODING_ROWS, 2, true>(s, x, weight, first, lines, out);
                }
                _ => tile::<S, DECODING_ROWS, 1, true>(s, x, weight, first, lines, out),
            }
        }
    }
    height
}

/// All of at most [`DECODING_ROWS`] rows.
///
/// # Safety
///
/// As for [`tile`].
#[inline(always)]
unsafe fn rows<S: Simd, const PANELS: usize>(
    s: S,
    x: Rows<'_, f32>,
    weight: &PackedFourBit,
    first: usize,
    out: &mut Columns<'_>,
) {
    // SAFETY: this function's contract.
    unsafe {
        match x.count {
            4 => tile::<S, 4, PANELS, false>(s, x, weight, first, null_mut(), out),
            3 => tile::<S, 3, PANELS, false>(s, x, weight, first, null_mut(), out),
            2 => tile::<S, 2, PANELS, false>(s, x, weight, first, null_mut(), out),
            _ => tile::<S, 1, PANELS, false>(s, x, weight, first, null_mut(), out),
        }
    }
}

/// The first `ROWS` rows and `PANELS` panels from `first` on, whose decoded lines go to `decoded` if `STORE`.
///
/// # Safety
///
/// Each row of x has as many elements as the weight has columns; with `STORE`, `decoded` has room for that many lines of each panel.
#[inline(always)]
unsafe fn tile<S: Simd, const ROWS: usize, const PANELS: usize, const STORE: bool>(
    s: S,
    x: Rows<'_, f32>,
    weight: &PackedFourBit,
    first: usize,
    decoded: *mut f32,
    out: &mut Columns<'_>,
) {
    let depth = weight.in_features;
    let mut tile = Tile::<S, ROWS, PANELS, STORE> {
        table: s.load(FourBitType::table(weight.kind)),
        sums: [[s.splat(0.0); PANELS]; ROWS],
        x: x.values.as_ptr(),
        stride: x.stride,
        decoded,
        depth,
    };
    let mut panels = [Panel {
        words: &[],
        ends: &[],
        absmax: &[],
    }; PANELS];
    for (index, panel) in panels.iter_mut().enumerate() {
        *panel = Panel::new(weight, first + index);
    }
    let mut runs = [0; PANELS];
    let mut column = 0;
    while column < depth {
        let mut end = depth;
        let mut scales = [s.splat(0.0); PANELS];
        for ((panel, &run), scale) in panels.iter().zip(&runs).zip(&mut scales) {
            end = end.min(panel.ends[run]);
            let line = &panel.absmax[run];
            prefetch_next::<S, f32, PANELS>(s, panel.absmax, line);
            *scale = s.load(line);
        }
        while column < end {
            let (group, skipped) = (column / WORD_CODES, column % WORD_CODES);
            let count = (WORD_CODES - skipped).min(end - column);
            let mut words = [s.splat_i32(0); PANELS];
            for (panel, word) in panels.iter().zip(&mut words) {
                let line = &panel.words[group];
                prefetch_next::<S, i32, PANELS>(s, panel.words, line);
                *word = s.load_i32(line);
            }
            for _ in 0..skipped {
                for word in &mut words {
                    *word = s.next_nibble(*word);
                }
            }
            // SAFETY: this function's contract; columns end at `depth`.
            unsafe {
                if count == WORD_CODES {
                    for _ in 0..WORD_CODES {
                        tile.next_column(s, &mut words, &scales);
                    }
                } else {
                    for _ in 0..count {
                        tile.next_column(s, &mut words, &scales);
                    }
                }
            }
            column += count;
        }
        for (panel, run) in panels.iter().zip(&mut runs) {
            *run += usize::from(panel.ends[*run] == end);
        }
    }
    store_tile(s, &tile.sums, 0, out);
}

/// The panels that come next begin where these end.
#[inline(always)]
fn prefetch_next<S: Simd, T, const PANELS: usize>(s: S, panel: &[[T; LANES]], line: &[T; LANES]) {
    s.prefetch(
        line.as_ptr()
            .wrapping_add(PANELS * panel.len() * LANES)
            .cast(),
    );
}

/// One chain of fused multiply-adds for each output.
struct Tile<S: Simd, const ROWS: usize, const PANELS: usize, const STORE: bool> {
    table: S::F32,
    sums: [[S::F32; PANELS]; ROWS],
    /// The element of the next column in the first row of x.
    x: *const f32,
    stride: usize,
    /// Where the line of the next column in the first panel goes.
    decoded: *mut f32,
    depth: usize,
}

impl<S: Simd, const ROWS: usize, const PANELS: usize, const STORE: bool>
    Tile<S, ROWS, PANELS, STORE>
{
    /// # Safety
    ///
    /// As for [`tile`]; called once for each column at most.
    #[inline(always)]
    unsafe fn next_column(
        &mut self,
        s: S,
        words: &mut [S::I32; PANELS],
        scales: &[S::F32; PANELS],
    ) {
        let mut weights = [s.splat(0.0); PANELS];
        for ((weight, word), &scale) in weights.iter_mut().zip(words).zip(scales) {
            *weight = s.mul(s.lookup(self.table, *word), scale);
            *word = s.next_nibble(*word);
        }
        if STORE {
            for (panel, &weight) in weights.iter().enumerate() {
                // SAFETY: this function's contract.
                let line = unsafe { &mut *self.decoded.add(panel * self.depth * LANES).cast() };
                s.store(weight, line);
            }
            self.decoded = self.decoded.wrapping_add(LANES);
        }
        for (row, sums) in self.sums.iter_mut().enumerate() {
            // SAFETY: this function's contract.
            let activation = s.splat(unsafe { *self.x.add(row * self.stride) });
            for (sum, &weight) in sums.iter_mut().zip(&weights) {
                *sum = s.fma(activation, weight, *sum);
            }
        }
        self.x = self.x.wrapping_add(1);
    }
}
