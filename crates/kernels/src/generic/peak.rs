//! Loops of multiply-adds and nothing else.

use std::hint::black_box;

use crate::int8_tile::Int8Tile;
use crate::simd::{LANES, Simd};

/// Returns the multiply-adds of `rounds` rounds over as many sums as a tile of a float product has.
#[inline(always)]
pub(crate) fn float_peak<S: Simd>(s: S, rounds: usize) -> usize {
    match S::TILE_PANELS {
        1 => sums::<S, 6>(s, rounds),
        2 => sums::<S, 12>(s, rounds),
        _ => sums::<S, 24>(s, rounds),
    }
}

#[inline(always)]
fn sums<S: Simd, const SUMS: usize>(s: S, rounds: usize) -> usize {
    let factor = s.splat(black_box(0.5));
    let mut sums = [factor; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = s.fma(*sum, factor, factor);
        }
    }
    let mut total = s.splat(0.0);
    for sum in sums {
        total = s.add(total, sum);
    }
    black_box(s.reduce_sum(total));
    rounds * SUMS * LANES
}

/// Returns the multiply-adds of `rounds` rounds of the int8 tile's instruction.
#[inline(always)]
pub(crate) fn int8_peak<S: Simd, T: Int8Tile>(_s: S, t: T, rounds: usize) -> usize {
    t.multiply_registers(rounds)
}
