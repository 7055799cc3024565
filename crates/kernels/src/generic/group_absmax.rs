//! The largest magnitude of groups of elements: what every symmetric scale and every block is measured by.

use crate::float_bytes::Elements;
use crate::generic::panel_element::PanelElement;
use crate::simd::{LANES, Simd};

/// Vectors whose maxima are independent of one another.
const CHAINS: usize = 4;

/// Floats to measure, and where the results go.
pub(crate) struct GroupAbsmax<'a, E> {
    pub(crate) source: Elements<'a, E>,
    pub(crate) group_size: usize,
    pub(crate) absmax: &'a mut [f32],
}

/// The largest magnitude of each group, of which the last may be short. Returns whether all elements are finite.
#[inline(always)]
pub(crate) fn group_absmax<S: Simd, E: PanelElement>(s: S, call: GroupAbsmax<'_, E>) -> bool {
    let GroupAbsmax {
        source,
        group_size,
        absmax,
    } = call;
    let mut largest = s.splat(0.0);
    for (group, absmax) in absmax.iter_mut().enumerate() {
        let start = group * group_size;
        let end = source.len().min(start.saturating_add(group_size));
        let lanes = absmax_lanes(s, source.range(start..end));
        largest = s.max_magnitude(largest, lanes);
        *absmax = s.reduce_max(lanes);
    }
    is_finite(s, largest)
}

/// Lanes of which the greatest is the largest magnitude; a NaN in the elements is one in a lane.
#[inline(always)]
pub(crate) fn absmax_lanes<S: Simd, E: PanelElement>(s: S, elements: Elements<'_, E>) -> S::F32 {
    let mut largest = [s.splat(0.0); CHAINS];
    let lines = elements.len() / (CHAINS * LANES);
    for line in 0..lines {
        for (index, largest) in largest.iter_mut().enumerate() {
            let x = elements.vector(s, (line * CHAINS + index) * LANES);
            *largest = s.max_magnitude(*largest, x);
        }
    }
    let mut first = lines * CHAINS * LANES;
    while first < elements.len() {
        largest[0] = s.max_magnitude(largest[0], elements.vector_up_to(s, first));
        first += LANES;
    }
    let [a, b, c, d] = largest;
    s.max_magnitude(s.max_magnitude(a, b), s.max_magnitude(c, d))
}

/// Whether all lanes are, which have no sign.
#[inline(always)]
pub(crate) fn is_finite<S: Simd>(s: S, largest: S::F32) -> bool {
    let mut lanes = [0.0; LANES];
    s.store(largest, &mut lanes);
    let mut finite = true;
    for lane in lanes {
        finite &= lane <= f32::MAX;
    }
    finite
}
