//! How fast the multiply-add instructions of this CPU are, measured: what the products' speed is a share of.

use std::hint::black_box;
use std::time::Instant;

use crate::kernels::Kernels;

/// The arithmetic of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// u8 activations times i8 weights, summed in i32.
    Int8,
    /// Fused multiply-adds of f32.
    F32,
}

/// Runs; the best of them counts.
const RUNS: usize = 20;

/// Rounds of a run: a fraction of a millisecond, shorter than most interruptions are apart.
const ROUNDS: usize = 20_000;

/// Multiply-adds a second of one thread, in a loop that touches registers only (for sets without such a loop: the first-level cache), of
/// the instructions that the products of `kernels` use. The best of several short runs; takes some milliseconds.
///
/// ```
/// use fewbit_kernels::{Arithmetic, Kernels, multiply_adds_per_second};
/// let kernels = Kernels::from_environment()?;
/// assert!(multiply_adds_per_second(kernels, Arithmetic::Int8) > 1e6);
/// # Ok::<(), fewbit_kernels::IsaError>(())
/// ```
pub fn multiply_adds_per_second(kernels: &Kernels, arithmetic: Arithmetic) -> f64 {
    let run = match arithmetic {
        Arithmetic::Int8 => kernels.int8_peak,
        Arithmetic::F32 => kernels.float_peak,
    };
    (0..RUNS)
        .map(|_| {
            let begin = Instant::now();
            // SAFETY: the CPU has the instruction set of this table (see `Kernels::for_isa`).
            let multiply_adds = unsafe { run(black_box(ROUNDS)) };
            multiply_adds as f64 / begin.elapsed().as_secs_f64()
        })
        .fold(0.0, f64::max)
}
