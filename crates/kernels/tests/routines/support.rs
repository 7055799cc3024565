//! Numbers to test with, and failures collected before they are reported.

use fewbit_kernels::{Exactness, Kernels, Operation};
use std::fmt::Display;

/// Unit roundoff of f32: the relative error of one rounding.
pub(crate) const ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;

/// What the kernel table says of the routine of that operation.
pub(crate) fn exactness(kernels: &Kernels, operation: Operation) -> Exactness {
    let mut routines = kernels.routines().iter();
    let routine = routines.find(|routine| routine.operation == operation);
    routine.expect("a routine for each operation").exactness
}

/// Failed comparisons; all are found before the test fails.
#[derive(Default)]
pub(crate) struct Failures {
    /// What is being checked, put before each message.
    pub(crate) context: String,
    messages: Vec<String>,
    count: usize,
}

impl Failures {
    /// Notes a failure unless `holds`.
    pub(crate) fn check(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.count += 1;
            if self.messages.len() < 20 {
                self.messages
                    .push(format!("{}: {}", self.context, message()));
            }
        }
    }

    /// Bit equality; all NaN are one.
    pub(crate) fn same_bits(&mut self, what: impl Display, found: &[f32], expected: &[f32]) {
        self.check(found.len() == expected.len(), || {
            format!("{what}: lengths differ")
        });
        let different = found
            .iter()
            .zip(expected)
            .position(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()));
        self.check(different.is_none(), || {
            let index = different.unwrap_or(0);
            let (found, expected) = (found[index], expected[index]);
            format!("{what}: element {index}: expected {expected:e}, found {found:e}")
        });
    }

    /// Panics if there was any.
    pub(crate) fn finish(self) {
        let messages = self.messages.join("\n");
        assert!(self.count == 0, "{} failures:\n{messages}", self.count);
    }
}

/// A small deterministic generator (xorshift).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// In 0..bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() >> 11) as usize % bound
    }

    /// In -1..1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Numbers in -scale..scale.
    pub(crate) fn floats(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.unit() * scale).collect()
    }

    /// Ordinary numbers with zeros of both signs, subnormals and very small and large numbers among them; finite.
    pub(crate) fn rough(&mut self, count: usize) -> Vec<f32> {
        const ODD: [f32; 12] = [
            0.0,
            -0.0,
            f32::from_bits(1),
            -f32::MIN_POSITIVE / 3.0,
            f32::MIN_POSITIVE,
            1e-30,
            -1e-20,
            1.0,
            -65504.0,
            1e18,
            -3e37,
            f32::MAX,
        ];
        (0..count)
            .map(|_| match self.below(3) {
                0 => ODD[self.below(ODD.len())],
                _ => self.unit(),
            })
            .collect()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next_u64() as u8).collect()
    }

    pub(crate) fn signed_bytes(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| self.next_u64() as i8).collect()
    }
}
