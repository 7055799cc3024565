//! The float microkernel: rows of activations times panels of weights.

use crate::aligned::Scratch;
use crate::float_tile::{AttentionTile, Columns, Combine, FloatTile, Rows};
use crate::generic::panel_element::PanelElement;
use crate::simd::{LANES, Simd};

/// Rows of a full tile: six rows of sixteen outputs are twelve of the sixteen AVX2 registers, six of 64 are 24 of the 32 of AVX-512.
pub(crate) const TILE_ROWS: usize = 6;

/// Every set has it: the numbers as they are.
#[derive(Clone, Copy)]
pub(crate) struct F32Tile(());

impl F32Tile {
    /// # Safety
    ///
    /// None needed: it is unsafe because that of a set with its own instructions is.
    #[inline(always)]
    pub(crate) unsafe fn assume_supported() -> Self {
        F32Tile(())
    }
}

impl<S: Simd, E: PanelElement> FloatTile<S, E> for F32Tile {
    type Activation = f32;

    #[inline(always)]
    fn activations<'a>(
        self,
        _s: S,
        x: Rows<'a, f32>,
        _depth: usize,
        _scratch: &'a mut Scratch,
    ) -> Rows<'a, f32> {
        x
    }

    #[inline(always)]
    fn multiply(
        self,
        s: S,
        x: Rows<'_, f32>,
        panels: &[E],
        panel_count: usize,
        depth: usize,
        out: &mut Columns<'_>,
    ) {
        multiply(s, x, panels, panel_count, depth, out);
    }
}

impl<S: Simd> AttentionTile<S> for F32Tile {
    type Element = f32;

    const NUMBERS: usize = 1;

    #[inline(always)]
    fn elements(self, s: S, numbers: &[f32]) -> S::F32 {
        s.load_up_to(numbers, 0.0)
    }

    #[inline(always)]
    fn combine(self, _s: S, first: S::F32, _second: S::F32) -> S::F32 {
        first
    }

    #[inline(always)]
    fn store(self, s: S, elements: S::F32, line: &mut [f32; LANES]) {
        s.store(elements, line);
    }
}

/// `y(r, o) = (0 + sum over k ascending of x(r, k) * panel(k, o)) + bias(o)`: for each output one chain of fused multiply-adds and at
/// most one addition, whatever the number of rows and the tile that computes it. `out = y`, `out = y + out` or `out = y * out`.
///
/// `panels` are `panel_count` consecutive panels of `depth` lines; `out` has the columns of these panels. How many panels go with how many
/// rows is for [`panels_at_once`] to say.
#[inline(always)]
fn multiply<S: Simd, E: PanelElement>(
    s: S,
    x: Rows<'_, f32>,
    panels: &[E],
    panel_count: usize,
    depth: usize,
    out: &mut Columns<'_>,
) {
    let columns = out.columns.count();
    if x.count == 0 || columns == 0 {
        return;
    }
    assert!(x.values.len() >= (x.count - 1) * x.stride + depth);
    assert!(panels.len() >= panel_count * depth * LANES);
    assert!(out.columns.rows() >= x.count);
    assert!(columns <= panel_count * LANES && columns > (panel_count - 1) * LANES);
    assert!(out.bias.is_none_or(|bias| bias.len() == columns));
    let panels = panels.as_ptr();
    // SAFETY: by the assertions above, rows 0..count of x with `depth` elements, the panels and the output columns are in bounds; the row
    // tiles cover exactly these rows.
    unsafe {
        match panel_count {
            4 if S::TILE_PANELS >= 4 => rows::<S, E, 4>(s, x, panels, depth, out),
            4 => tile::<S, E, 1, 4>(s, x, 0, panels, depth, out),
            2 if S::TILE_PANELS >= 2 => rows::<S, E, 2>(s, x, panels, depth, out),
            2 if x.count == 1 => tile::<S, E, 1, 2>(s, x, 0, panels, depth, out),
            2 => tile::<S, E, 2, 2>(s, x, 0, panels, depth, out),
            _ => rows::<S, E, 1>(s, x, panels, depth, out),
        }
    }
}

/// All rows, tile by tile.
///
/// # Safety
///
/// As for [`tile`], for all rows of x.
#[inline(always)]
unsafe fn rows<S: Simd, E: PanelElement, const PANELS: usize>(
    s: S,
    x: Rows<'_, f32>,
    panels: *const E,
    depth: usize,
    out: &mut Columns<'_>,
) {
    for (row, rows) in row_tiles(x.count, TILE_ROWS) {
        // SAFETY: this function's contract.
        unsafe {
            match rows {
                6 => tile::<S, E, 6, PANELS>(s, x, row, panels, depth, out),
                5 => tile::<S, E, 5, PANELS>(s, x, row, panels, depth, out),
                4 => tile::<S, E, 4, PANELS>(s, x, row, panels, depth, out),
                3 => tile::<S, E, 3, PANELS>(s, x, row, panels, depth, out),
                2 => tile::<S, E, 2, PANELS>(s, x, row, panels, depth, out),
                _ => tile::<S, E, 1, PANELS>(s, x, row, panels, depth, out),
            }
        }
    }
}

/// How many of the `left` panels to multiply at once with that many rows: as many as a full tile takes, and more with one or two rows,
/// where few panels have too few chains to keep the multipliers busy.
#[inline(always)]
pub(crate) fn panels_at_once<S: Simd>(rows: usize, left: usize) -> usize {
    let most = match rows {
        1 => 4,
        2 => S::TILE_PANELS.max(2),
        _ => S::TILE_PANELS,
    };
    match left {
        4.. => most,
        2.. => most.min(2),
        _ => 1,
    }
}

/// Cuts rows into the fewest tiles of at most `most`, their heights differing by at most one: (first row, rows).
#[inline(always)]
pub(crate) fn row_tiles(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = rows.div_ceil(most);
    let mut row = 0;
    (0..tiles).map(move |tile| {
        let height = (rows - row).div_ceil(tiles - tile);
        let first = row;
        row += height;
        (first, height)
    })
}

/// One tile: `ROWS` rows from `row` on, `PANELS` panels.
///
/// # Safety
///
/// The rows have `depth` elements, the panels `depth` lines, and the output has these rows and columns.
#[inline(always)]
unsafe fn tile<S: Simd, E: PanelElement, const ROWS: usize, const PANELS: usize>(
    s: S,
    x: Rows<'_, f32>,
    row: usize,
    panels: *const E,
    depth: usize,
    out: &mut Columns<'_>,
) {
    let mut sums = [[s.splat(0.0); PANELS]; ROWS];
    // SAFETY: in bounds by this function's contract.
    unsafe {
        let x_row = x.values.as_ptr().add(row * x.stride);
        for k in 0..depth {
            let mut weights = [s.splat(0.0); PANELS];
            for (panel, weight) in weights.iter_mut().enumerate() {
                let line = panels.add((panel * depth + k) * LANES);
                // While the first rows run, the panels that come next are prefetched: few rows would wait for them.
                if S::PREFETCHES_FLOATS && row == 0 {
                    s.prefetch(line.wrapping_add(PANELS * depth * LANES).cast());
                }
                *weight = E::widen(s, &*line.cast::<[E; LANES]>());
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let activation = s.splat(*x_row.add(r * x.stride + k));
                for (sum, &weight) in sums.iter_mut().zip(&weights) {
                    *sum = s.fma(activation, weight, *sum);
                }
            }
        }
    }
    store_tile(s, &sums, row, out);
}

/// The epilogue of a tile: adds the bias, adds or multiplies by what the output holds, where asked for, and stores. The first row is `row`, the columns are those
/// of `out`.
#[inline(always)]
pub(crate) fn store_tile<S: Simd, const ROWS: usize, const PANELS: usize>(
    s: S,
    sums: &[[S::F32; PANELS]; ROWS],
    row: usize,
    out: &mut Columns<'_>,
) {
    // Loops of constant length: any other use of the sums would put them on the stack, and the products' loop with them.
    let count = out.columns.count();
    if count == PANELS * LANES {
        for (r, sums) in sums.iter().enumerate() {
            for (panel, &sum) in sums.iter().enumerate() {
                store_vector(s, sum, row + r, panel * LANES, LANES, out);
            }
        }
    } else {
        let mut lines = [[[0.0; LANES]; PANELS]; ROWS];
        for (lines, sums) in lines.iter_mut().zip(sums) {
            for (line, &sum) in lines.iter_mut().zip(sums) {
                s.store(sum, line);
            }
        }
        for (r, lines) in lines.iter().enumerate() {
            for (line, first) in lines.iter().zip((0..count).step_by(LANES)) {
                let columns = LANES.min(count - first);
                store_vector(s, s.load(line), row + r, first, columns, out);
            }
        }
    }
}

/// [`store_tile`] of the columns first..first + columns of a row.
#[inline(always)]
fn store_vector<S: Simd>(
    s: S,
    sum: S::F32,
    row: usize,
    first: usize,
    columns: usize,
    out: &mut Columns<'_>,
) {
    let mut value = sum;
    if let Some(bias) = out.bias {
        value = s.add(value, s.load_up_to(&bias[first..first + columns], 0.0));
    }
    let out_vector = out.columns.slice(row, first, columns);
    match out.combine {
        Combine::Replace => {}
        Combine::Add => value = s.add(value, s.load_up_to(out_vector, 0.0)),
        Combine::Multiply => value = s.mul(value, s.load_up_to(out_vector, 0.0)),
    }
    s.store_up_to(value, out_vector);
}
