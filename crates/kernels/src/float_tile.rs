//! What an instruction set may replace in products of floats: how rows of activations meet panels of weights.
//!
//! [`F32Tile`](crate::generic::f32_tile::F32Tile) serves every set. One whose multiply-adds take narrower operands has its own, and with it
//! other bits ([`Exactness`](crate::Exactness)).

use crate::aligned::{Plain, Scratch};
use crate::output_columns::OutputColumns;
use crate::simd::Simd;

/// Rows of a row-major matrix.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    pub(crate) values: &'a [T],
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

impl<T> Rows<'_, T> {
    /// Without the first `rows` of them.
    #[inline(always)]
    pub(crate) fn after(self, rows: usize) -> Self {
        Self {
            values: &self.values[rows * self.stride..],
            count: self.count - rows,
            ..self
        }
    }
}

/// What a product does with what the output holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Combine {
    /// It takes its place.
    Replace,
    /// It is added to it.
    Add,
    /// It is multiplied by it.
    Multiply,
}

/// The columns that the product with some panels is written to, and what is added to it.
pub(crate) struct Columns<'a> {
    pub(crate) columns: OutputColumns<'a>,
    /// Added to each row, if any: one for each column.
    pub(crate) bias: Option<&'a [f32]>,
    /// What becomes of what the output holds.
    pub(crate) combine: Combine,
}

impl Columns<'_> {
    /// Without the first `rows` rows.
    #[inline(always)]
    pub(crate) fn after(self, rows: usize) -> Self {
        Self {
            columns: self.columns.after(rows),
            ..self
        }
    }
}

/// Products with panels of `E`.
pub(crate) trait FloatTile<S: Simd, E: Plain>: Copy {
    /// What the tile reads of an activation, or of several that are next to one another.
    type Activation: Plain;

    /// The rows of x, of `depth` numbers each, in the form that the tile reads: as they are or written to `scratch`.
    fn activations<'a>(
        self,
        s: S,
        x: Rows<'a, f32>,
        depth: usize,
        scratch: &'a mut Scratch,
    ) -> Rows<'a, Self::Activation>;

    /// `y(r, o) = (sum over k < depth of x(r, k) * panel(k, o)) + bias(o)`, then `out = y` or `out = y + out`. The order of the sum is the
    /// same for each output, whatever the number of rows and of panels.
    ///
    /// `panels` are `panel_count` consecutive panels: as many as [`panels_at_once`](crate::generic::f32_tile::panels_at_once) says, and
    /// `out` has their columns.
    fn multiply(
        self,
        s: S,
        x: Rows<'_, Self::Activation>,
        panels: &[E],
        panel_count: usize,
        depth: usize,
        out: &mut Columns<'_>,
    );
}

/// The products of attention, whose panels are packed anew in each call.
pub(crate) trait AttentionTile<S: Simd>: FloatTile<S, Self::Element> {
    /// An element of a panel, as wide as an f32.
    type Element: Plain;

    /// Numbers along the depth that one element holds: 1 or 2.
    const NUMBERS: usize;

    /// Sixteen elements, from at most `16 * NUMBERS` numbers that are next to one another; the others are zeros. In the bits of a vector.
    fn elements(self, s: S, numbers: &[f32]) -> S::F32;

    /// Sixteen elements, each from one number of each of the `NUMBERS` vectors (the first one, or both).
    fn combine(self, s: S, first: S::F32, second: S::F32) -> S::F32;

    /// Stores sixteen elements.
    fn store(self, s: S, elements: S::F32, line: &mut [Self::Element; 16]);
}
