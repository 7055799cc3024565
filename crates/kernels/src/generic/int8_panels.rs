//! The loops over the tiles of a product of u8 activations and panels of i8 codes.

use crate::generic::f32_tile::row_tiles;
use crate::int8_tile::{
    INT8_GROUP, INT8_PANEL_VECTORS, INT8_TILE_ROWS, Int8Accumulators, Int8Operands, Int8Tile,
    Prefetch,
};
use crate::simd::{LANES, Simd};

/// Outputs of a whole panel.
pub(crate) const PANEL_OUTPUTS: usize = INT8_PANEL_VECTORS * LANES;

/// How many bytes ahead of a panel memory is asked for, at least: enough for a long panel at the start of the next weight.
const PREFETCH_DISTANCE: usize = 96 << 10;

/// Panels `[outputs / 64][groups][64][4]`, the last one as narrow as whole vectors of sixteen outputs allow.
#[derive(Clone, Copy)]
pub(crate) struct Int8Panels<'a> {
    /// Starts at a cache line.
    pub(crate) codes: &'a [i8],
    /// A multiple of sixteen.
    pub(crate) outputs: usize,
    /// Groups of four inputs.
    pub(crate) groups: usize,
    /// Whether what follows the panels in memory is worth asking for: weights lie there in the order of their use.
    pub(crate) prefetch: bool,
}

/// Where the inputs of group `group` of an output lie in [`Int8Panels`] of `outputs` outputs and `groups` groups, in groups.
#[inline(always)]
pub(crate) fn place_of_group(outputs: usize, groups: usize, output: usize, group: usize) -> usize {
    let panel = output - output % PANEL_OUTPUTS;
    let width = PANEL_OUTPUTS.min(outputs - panel);
    panel * groups + group * width + output - panel
}

/// Activations in the form that a tile reads, each row padded to whole groups.
#[derive(Clone, Copy)]
pub(crate) struct Int8Rows<'a, A> {
    pub(crate) codes: &'a [A],
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    /// Rows that stay together in a tile, 1 or 2; `rows` are a multiple.
    pub(crate) unit: usize,
}

/// The sums of some vectors of one tile.
pub(crate) struct FinishedTile<'a> {
    sums: &'a Int8Accumulators,
    /// Vectors of the tile before these.
    offset: usize,
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    /// Vectors of sixteen outputs before these.
    pub(crate) first_vector: usize,
}

impl FinishedTile<'_> {
    /// The sums of the tile's row `index`.
    #[inline(always)]
    pub(crate) fn row<const VECTORS: usize>(&self, index: usize) -> &[[i32; LANES]; VECTORS] {
        let vectors = &self.sums.0[index][self.offset..][..VECTORS];
        vectors.try_into().expect("as many vectors as asked for")
    }
}

/// What happens to the sums of a tile, `VECTORS` vectors of each row at a time: a constant, so that what belongs to the outputs stays in
/// registers.
pub(crate) trait FinishTile<S: Simd> {
    fn finish<const VECTORS: usize>(&mut self, s: S, tile: FinishedTile<'_>);
}

/// Panels outside, row tiles inside: a panel is read once and stays in the cache for all rows. While they run, later panels are asked
/// for, so that few rows do not wait for memory. The tiles of a panel come with rows ascending.
#[inline(always)]
pub(crate) fn multiply_panels<S: Simd, T: Int8Tile>(
    s: S,
    t: T,
    x: Int8Rows<'_, T::Activation>,
    panels: Int8Panels<'_>,
    accumulators: &mut Int8Accumulators,
    finish: &mut impl FinishTile<S>,
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
    for first in (0..outputs).step_by(PANEL_OUTPUTS) {
        let panel_start = first * groups * INT8_GROUP;
        let panel_vectors = PANEL_OUTPUTS.min(outputs - first) / LANES;
        let group_stride = panel_vectors * LANES * INT8_GROUP;
        let panel = &codes[panel_start..][..groups * group_stride];
        // Each of the row tiles asks for its share of what comes later.
        let later = panel
            .as_ptr()
            .wrapping_add(panel.len().max(PREFETCH_DISTANCE));
        let tiles = || row_tiles(x.rows / x.unit, INT8_TILE_ROWS / x.unit);
        let count = tiles().count();
        let share = (groups * panel_vectors).div_ceil(count);
        for vector in (0..panel_vectors).step_by(T::VECTORS) {
            let vectors = T::VECTORS.min(panel_vectors - vector);
            for (tile, (row, rows)) in tiles().enumerate() {
                let (row, rows) = (row * x.unit, rows * x.unit);
                // A panel that is read once is a stream that the CPU follows by itself.
                let prefetch = if !prefetch || count == 1 || vector > 0 {
                    Prefetch::NONE
                } else {
                    let line = tile * share * LANES * INT8_GROUP;
                    Prefetch {
                        line: later.wrapping_add(line),
                        rate: (share * 256).div_ceil(groups.max(1)),
                    }
                };
                let last = (row + rows - 1) * x.stride;
                let operands = Int8Operands {
                    activations: x.codes[row * x.stride..last + groups * INT8_GROUP].as_ptr(),
                    stride: x.stride,
                    rows,
                    weights: panel.as_ptr().wrapping_add(vector * LANES * INT8_GROUP),
                    group_stride,
                    groups,
                    vectors,
                    prefetch,
                };
                // SAFETY: activations and panel were cut to the sizes that the tile reads, panels are whole cache lines, and there are as
                // many vectors as the panel has from this one on.
                unsafe { t.multiply(operands, accumulators) };
                let mut offset = 0;
                while offset < vectors {
                    let tile = FinishedTile {
                        sums: accumulators,
                        offset,
                        first_row: row,
                        rows,
                        first_vector: first / LANES + vector + offset,
                    };
                    offset += match vectors - offset {
                        4.. if T::VECTORS >= 4 => {
                            finish.finish::<4>(s, tile);
                            4
                        }
                        2.. if T::VECTORS >= 2 => {
                            finish.finish::<2>(s, tile);
                            2
                        }
                        _ => {
                            finish.finish::<1>(s, tile);
                            1
                        }
                    };
                }
            }
        }
    }
}
