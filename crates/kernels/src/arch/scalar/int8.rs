//! The int8 tile in plain loops.

use super::lanes::Scalar;
use crate::simd::{INT8_GROUP, Int8Accumulators, Int8Tile, LANES};

impl Int8Tile for Scalar {
    type Activation = u8;

    #[inline(always)]
    fn prepare_activations(self, codes: &[u8], to: &mut [u8]) {
        let (head, rest) = to.split_at_mut(codes.len());
        head.copy_from_slice(codes);
        rest.fill(0);
    }

    #[inline(always)]
    unsafe fn int8_tile(
        self,
        activations: *const u8,
        stride: usize,
        rows: usize,
        weights: *const i8,
        groups: usize,
        accumulators: &mut Int8Accumulators,
    ) {
        // SAFETY: the caller passes a panel of `groups` groups of sixteen outputs.
        let weights = unsafe { std::slice::from_raw_parts(weights, groups * LANES * INT8_GROUP) };
        for (row, sums) in accumulators[..rows].iter_mut().enumerate() {
            // SAFETY: the caller passes `rows` rows, `stride` apart, of `groups` groups.
            let activations = unsafe {
                std::slice::from_raw_parts(activations.add(row * stride), groups * INT8_GROUP)
            };
            *sums = [0; LANES];
            let groups = activations
                .chunks_exact(INT8_GROUP)
                .zip(weights.chunks_exact(LANES * INT8_GROUP));
            for (activations, weights) in groups {
                for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(INT8_GROUP)) {
                    for (&activation, &weight) in activations.iter().zip(weights) {
                        *sum += i32::from(activation) * i32::from(weight);
                    }
                }
            }
        }
    }
}
