//! The sums that the error of a quantized weight is made of.

use fewbit_numerics::error_statistics::ErrorSums;

use crate::float_bytes::Elements;
use crate::generic::panel_element::PanelElement;
use crate::simd::{LANES, Simd};

/// Elements that are widened before they are summed: they stay in the first-level cache.
const PART: usize = 64 * LANES;

/// [`ErrorSums`] of elements and their approximations, bit for bit.
#[inline(always)]
pub(crate) fn error_sums<S: Simd, E: PanelElement>(
    s: S,
    reference: Elements<'_, E>,
    approximation: &[f32],
) -> ErrorSums {
    let mut sums = ErrorSums::default();
    let mut widened = [0.0; PART];
    for (part, approximation) in approximation.chunks(PART).enumerate() {
        let widened = &mut widened[..approximation.len()];
        for (index, line) in widened.chunks_mut(LANES).enumerate() {
            let x = reference.vector_up_to(s, part * PART + index * LANES);
            s.store_up_to(x, line);
        }
        sums.add(widened, approximation);
    }
    sums
}
