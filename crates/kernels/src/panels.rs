//! The packed layout of float weights: panels of sixteen outputs.
//!
//! A weight (out_features, in_features) is cut into panels of sixteen consecutive output features. A panel holds, for each input
//! feature k in ascending order, the sixteen weights of that column next to one another, so that a vector of outputs is one load. Rows
//! that the last panel lacks are zeros.

use crate::aligned::{AlignedVec, Plain};
use crate::simd::LANES;

/// Panels of a weight with `out_features` output features.
pub(crate) fn panel_count(out_features: usize) -> usize {
    out_features.div_ceil(LANES)
}

/// Elements of all panels of a weight whose panels have `lines` lines of sixteen.
pub(crate) fn padded_elements(out_features: usize, lines: usize) -> usize {
    panel_count(out_features)
        .checked_mul(LANES)
        .and_then(|rows| rows.checked_mul(lines))
        .expect("a packed weight fits in the address space")
}

/// Checks that `length` elements are a matrix of that shape.
pub(crate) fn assert_shape(what: &str, length: usize, rows: usize, columns: usize) {
    assert_eq!(
        Some(length),
        rows.checked_mul(columns),
        "{what}: the number of elements is rows ({rows}) times columns ({columns})"
    );
}

/// Packs a matrix given element by element as `element(row, column)` into panels `[panel][column][16]`.
pub(crate) fn pack<T: Plain>(
    rows: usize,
    columns: usize,
    element: impl Fn(usize, usize) -> T,
) -> AlignedVec<T> {
    let mut packed = AlignedVec::zeroed(padded_elements(rows, columns));
    if columns == 0 {
        return packed;
    }
    for (index, panel) in packed.chunks_exact_mut(LANES * columns).enumerate() {
        let first = index * LANES;
        for lane in 0..LANES.min(rows - first) {
            for (column, line) in panel.chunks_exact_mut(LANES).enumerate() {
                line[lane] = element(first + lane, column);
            }
        }
    }
    packed
}
