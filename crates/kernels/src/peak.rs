//! The most multiply-adds a second that one core can do.

use crate::Kernels;
use std::hint::black_box;
use std::time::Instant;

/// Which products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// 8-bit codes, 32-bit sums.
    Int8,
    /// f32 throughout.
    F32,
}

/// Multiply-adds a second of one thread, from registers, best of several short runs.
pub fn multiply_adds_per_second(_kernels: &Kernels, _arithmetic: Arithmetic) -> f64 {
    const LANES: usize = 64;
    const STEPS: usize = 100_000;
    let mut best = 0.0f64;
    for _ in 0..5 {
        let mut sums = black_box([1.0f32; LANES]);
        let factor = black_box(0.5f32);
        let started = Instant::now();
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = *sum * factor + factor;
            }
        }
        black_box(sums);
        best = best.max((LANES * STEPS) as f64 / started.elapsed().as_secs_f64());
    }
    best
}
