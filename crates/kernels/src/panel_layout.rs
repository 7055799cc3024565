//! How the codes of int8 weights lie in memory.

use crate::simd::LANES;

/// Consecutive columns of one row that the int8 weights keep together.
pub(crate) const INT8_GROUP: usize = 4;

/// Columns of two lines of int4 weights, whose codes are the low and the high nibbles of one.
pub(crate) const INT4_PAIR: usize = 2 * INT8_GROUP;

/// The most vectors of sixteen outputs in a panel of int8 weights.
pub(crate) const INT8_PANEL_VECTORS: usize = 4;

/// Bytes of one group of sixteen outputs: a cache line.
pub(crate) const INT8_LINE: usize = LANES * INT8_GROUP;

/// How the codes of sixteen outputs and one group of columns lie in their [`INT8_LINE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineOrder {
    /// `[outputs][4]`: for instructions that sum four products.
    Fours,
    /// `[2][outputs][2]`: for instructions that sum two products.
    Pairs,
}

impl LineOrder {
    /// Puts a line of [`LineOrder::Fours`] in this order.
    #[inline(always)]
    pub(crate) fn arrange(self, line: &mut [i8; INT8_LINE]) {
        if self == LineOrder::Pairs {
            let fours = *line;
            let (first, second) = line.split_at_mut(INT8_LINE / 2);
            let pairs = first.as_chunks_mut::<2>().0.iter_mut();
            let pairs = pairs.zip(second.as_chunks_mut::<2>().0);
            for (four, (first, second)) in fours.as_chunks::<4>().0.iter().zip(pairs) {
                *first = [four[0], four[1]];
                *second = [four[2], four[3]];
            }
        }
    }
}

/// How a tile's weights lie in memory: panels `[outputs / (16 * vectors)][groups][vectors][line of 64 bytes]`, the last one as narrow as
/// whole vectors of sixteen outputs allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PanelLayout {
    /// Vectors of sixteen outputs in a panel, 1..=[`INT8_PANEL_VECTORS`].
    pub(crate) vectors: usize,
    pub(crate) order: LineOrder,
}

impl PanelLayout {
    /// Where the line of the sixteen outputs from `first` on and of `group` starts, of `outputs` outputs and `groups` groups, in bytes.
    #[inline(always)]
    pub(crate) fn line(self, outputs: usize, groups: usize, first: usize, group: usize) -> usize {
        let panel_outputs = self.vectors * LANES;
        let panel = first - first % panel_outputs;
        let width = panel_outputs.min(outputs - panel);
        (panel * groups + group * width + first - panel) * INT8_GROUP
    }
}
