//! The loops over the tiles of a product of u8 activations and panels of i8 codes.

use crate::generic::f32_tile::row_tiles;
use crate::int8_tile::{
    INT8_GROUP, INT8_LINE, INT8_TILE_ROWS, Int8Accumulators, Int8Operands, Int8Tile, Prefetch,
};
use crate::simd::{LANES, Simd};

/// Weights as [`PanelLayout`](crate::panel_layout::PanelLayout) says.
#[derive(Clone, Copy)]
pub(crate) struct Int8Panels<'a> {
    /// Starts at a cache line.
    pub(crate) codes: &'a [i8],
    /// A multiple of sixteen.
    pub(crate) outputs: usize,
    /// Groups of four inputs.
    pub(crate) groups: usize,
    /// Whether to prefetch what follows the panels in memory: weights lie there in the order of their use.
    pub(crate) prefetch: bool,
}

/// Activations in the form that a tile reads, each row padded to whole groups.
#[derive(Clone, Copy)]
pub(crate) struct Int8Rows<'a, A> {
    pub(crate) codes: &'a [A],
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    /// Rows that the codes of one row of numbers fill, which stay together in a tile: [`PLANES`](crate::quantized_rows::PLANES) where there
    /// is one of high and one of low bytes, else 1. `rows` are a multiple.
    pub(crate) planes: usize,
}

/// The sums of some vectors of one tile.
#[derive(Clone, Copy)]
pub(crate) struct TileSums<'a> {
    sums: &'a Int8Accumulators,
    /// Vectors of the tile before these.
    offset: usize,
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    /// Vectors of sixteen outputs before these.
    pub(crate) first_vector: usize,
}

impl TileSums<'_> {
    /// The sums of the tile's row `index`.
    #[inline(always)]
    pub(crate) fn row<const VECTORS: usize>(&self, index: usize) -> &[[i32; LANES]; VECTORS] {
        let vectors = &self.sums.0[index][self.offset..][..VECTORS];
        vectors.try_into().expect("as many vectors as asked for")
    }
}

/// What is computed from the sums of a tile before they are stored, `VECTORS` vectors of each row at a time: a constant, so that what belongs
/// to the outputs stays in registers.
pub(crate) trait TileEpilogue<S: Simd> {
    fn apply<const VECTORS: usize>(&mut self, s: S, tile: TileSums<'_>);
}

/// Panels outside, row tiles inside: a panel is read once and stays in the cache for all rows. While they run, later panels are
/// prefetched, so that few rows do not wait for memory. The tiles of a panel come with rows ascending.
#[inline(always)]
pub(crate) fn multiply_panels<S: Simd, T: Int8Tile>(
    s: S,
    t: T,
    x: Int8Rows<'_, T::Activation>,
    panels: Int8Panels<'_>,
    accumulators: &mut Int8Accumulators,
    epilogue: &mut impl TileEpilogue<S>,
) {
    let Int8Panels {
        codes,
        outputs,
        groups,
        prefetch,
    } = panels;
    if x.rows == 0 {
        return;
    }
    assert!(outputs.is_multiple_of(LANES) && codes.len() >= outputs * groups * INT8_GROUP);
    let row_bytes = x.stride * size_of::<T::Activation>();
    let most_rows = (T::ROW_BYTES / row_bytes.max(1)).max(INT8_TILE_ROWS);
    let panel_outputs = T::LAYOUT.vectors * LANES;
    for (block_row, block_rows) in row_tiles(x.rows / x.planes, most_rows / x.planes) {
        let (block_row, block_rows) = (block_row * x.planes, block_rows * x.planes);
        for first in (0..outputs).step_by(panel_outputs) {
            let panel_start = first * groups * INT8_GROUP;
            let panel_vectors = panel_outputs.min(outputs - first) / LANES;
            let group_stride = panel_vectors * INT8_LINE;
            let panel = &codes[panel_start..][..groups * group_stride];
            // Each of the row tiles prefetches its share of what comes later.
            let later = panel
                .as_ptr()
                .wrapping_add(panel.len().max(T::PREFETCH_DISTANCE));
            let tiles = || row_tiles(block_rows / x.planes, INT8_TILE_ROWS / x.planes);
            let count = tiles().count();
            let share = (groups * panel_vectors).div_ceil(count);
            for vector in (0..panel_vectors).step_by(T::VECTORS) {
                let vectors = T::VECTORS.min(panel_vectors - vector);
                for (tile, (row, rows)) in tiles().enumerate() {
                    let (row, rows) = (block_row + row * x.planes, rows * x.planes);
                    let prefetch = if !prefetch || vector > 0 || block_rows < T::PREFETCH_ROWS {
                        Prefetch::NONE
                    } else {
                        Prefetch {
                            line: later.wrapping_add(tile * share * INT8_LINE),
                            rate: (share * 256).div_ceil(groups.max(1)),
                        }
                    };
                    let last = (row + rows - 1) * x.stride;
                    let operands = Int8Operands {
                        activations: x.codes[row * x.stride..last + groups * INT8_GROUP].as_ptr(),
                        stride: x.stride,
                        rows,
                        weights: panel.as_ptr().wrapping_add(vector * INT8_LINE),
                        group_stride,
                        groups,
                        vectors,
                        prefetch,
                    };
                    // SAFETY: activations and panel were cut to the sizes that the tile reads, panels are whole cache lines, and there are
                    // as many vectors as the panel has from this one on.
                    unsafe { t.multiply(operands, accumulators) };
                    let tile = TileSums {
                        sums: accumulators,
                        offset: 0,
                        first_row: row,
                        rows,
                        first_vector: first / LANES + vector,
                    };
                    apply_by_vectors::<S, T>(s, tile, vectors, epilogue);
                }
            }
        }
    }
}

/// Applies `epilogue` to the `vectors` vectors of a tile, four, two or one at a time.
#[inline(always)]
fn apply_by_vectors<S: Simd, T: Int8Tile>(
    s: S,
    tile: TileSums<'_>,
    vectors: usize,
    epilogue: &mut impl TileEpilogue<S>,
) {
    let mut offset = 0;
    while offset < vectors {
        let tile = TileSums {
            offset,
            first_vector: tile.first_vector + offset,
            ..tile
        };
        offset += match vectors - offset {
            4.. if T::VECTORS >= 4 => {
                epilogue.apply::<4>(s, tile);
                4
            }
            2.. if T::VECTORS >= 2 => {
                epilogue.apply::<2>(s, tile);
                2
            }
            _ => {
                epilogue.apply::<1>(s, tile);
                1
            }
        };
    }
}
