//! Rotary position embeddings.

use crate::simd::{LANES, Simd};

/// Rows of heads that turn by angles of their own.
pub(crate) struct Rotate<'a> {
    /// (rows, columns), in place; columns are whole heads.
    pub(crate) x: &'a mut [f32],
    pub(crate) columns: usize,
    /// (rows, head_size): for each row the cosines, and then the sines, of the pairs of features.
    pub(crate) turns: &'a [f32],
    pub(crate) head_size: usize,
}

/// Of each head, features i and i + head_size / 2: (x1, x2) becomes `(x1 * cos - x2 * sin, x2 * cos + x1 * sin)`, every operation rounded.
#[inline(always)]
pub(crate) fn rotate<S: Simd>(s: S, call: Rotate<'_>) {
    let Rotate {
        x,
        columns,
        turns,
        head_size,
    } = call;
    if columns == 0 || head_size == 0 {
        return;
    }
    let rows = x.chunks_exact_mut(columns);
    for (row, turns) in rows.zip(turns.chunks_exact(head_size)) {
        let (cosines, sines) = turns.split_at(head_size / 2);
        for head in row.chunks_exact_mut(head_size) {
            let (first, second) = head.split_at_mut(head_size / 2);
            let pairs = first.chunks_mut(LANES).zip(second.chunks_mut(LANES));
            let angles = cosines.chunks(LANES).zip(sines.chunks(LANES));
            for ((first, second), (cos, sin)) in pairs.zip(angles) {
                let (x1, x2) = (s.load_up_to(first, 0.0), s.load_up_to(second, 0.0));
                let (cos, sin) = (s.load_up_to(cos, 0.0), s.load_up_to(sin, 0.0));
                s.store_up_to(s.sub(s.mul(x1, cos), s.mul(x2, sin)), first);
                s.store_up_to(s.add(s.mul(x2, cos), s.mul(x1, sin)), second);
            }
        }
    }
}
