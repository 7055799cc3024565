//! The int8 tile in plain loops.

use super::lanes::Scalar;
use crate::aligned::Scratch;
use crate::int8_tile::{
    INT8_GROUP, INT8_PANEL_VECTORS, Int8Accumulators, Int8Operands, Int8Tile, LineOrder,
    PanelLayout,
};
use crate::quantized_rows::QuantizedRows;
use crate::simd::{LANES, Simd};

impl Int8Tile for Scalar {
    type Activation = u8;

    const LAYOUT: PanelLayout = PanelLayout {
        vectors: INT8_PANEL_VECTORS,
        order: LineOrder::Fours,
    };

    const VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        // SAFETY: this function's contract.
        unsafe { <Self as Simd>::assume_supported() }
    }

    #[inline(always)]
    fn activations<'a>(self, x: &'a QuantizedRows, _scratch: &'a mut Scratch) -> (&'a [u8], usize) {
        (&x.codes, x.stride)
    }

    #[inline(always)]
    unsafe fn multiply(self, operands: Int8Operands<u8>, accumulators: &mut Int8Accumulators) {
        let columns = operands.groups * INT8_GROUP;
        for (row, sums) in accumulators.0[..operands.rows].iter_mut().enumerate() {
            // SAFETY: the caller passes `rows` rows, `stride` apart, of `groups` groups.
            let activations = unsafe {
                let row = operands.activations.add(row * operands.stride);
                std::slice::from_raw_parts(row, columns)
            };
            let mut line = [0; LANES];
            for (group, activations) in activations.chunks_exact(INT8_GROUP).enumerate() {
                // SAFETY: the caller passes `groups` groups of at least sixteen outputs, `group_stride` apart.
                let weights = unsafe {
                    let weights = operands.weights.add(group * operands.group_stride);
                    std::slice::from_raw_parts(weights, LANES * INT8_GROUP)
                };
                for (sum, weights) in line.iter_mut().zip(weights.chunks_exact(INT8_GROUP)) {
                    for (&activation, &weight) in activations.iter().zip(weights) {
                        *sum += i32::from(activation) * i32::from(weight);
                    }
                }
            }
            sums[0] = line;
        }
    }
}
