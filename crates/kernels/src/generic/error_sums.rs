//! The sums that the error of a quantized weight is made of.

use fewbit_numerics::error_statistics::{ErrorSums, LANES as SUMS};

use crate::float_bytes::Elements;
use crate::generic::panel_element::PanelElement;
use crate::simd::{LANES, Simd};

/// [`ErrorSums`] of elements and their approximations, bit for bit.
#[inline(always)]
pub(crate) fn error_sums<S: Simd, E: PanelElement>(
    s: S,
    reference: Elements<'_, E>,
    approximation: &[f32],
) -> ErrorSums {
    const { assert!(SUMS == LANES) };
    let mut sums = ErrorSums::default();
    let mut line = [0.0; LANES];
    let (whole, rest) = approximation.as_chunks::<LANES>();
    for (index, approximation) in whole.iter().enumerate() {
        s.store(reference.vector(s, index * LANES), &mut line);
        sums.add_line(&line, approximation);
    }
    s.store(reference.vector_up_to(s, whole.len() * LANES), &mut line);
    sums.add(&line[..rest.len()], rest);
    sums
}
