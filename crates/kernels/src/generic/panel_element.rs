//! Storage types of float panels.

use crate::aligned::Plain;
use crate::simd::{LANES, Simd};

/// A number as a panel stores it; widened to f32 exactly, in registers.
pub(crate) trait PanelElement: Plain {
    fn widen<S: Simd>(s: S, line: &[Self; LANES]) -> S::F32;
}

impl PanelElement for f32 {
    #[inline(always)]
    fn widen<S: Simd>(s: S, line: &[Self; LANES]) -> S::F32 {
        s.load(line)
    }
}

/// The bits of an IEEE binary16 number.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F16(pub(crate) u16);

// SAFETY: a transparent wrapper of u16.
unsafe impl Plain for F16 {}

impl PanelElement for F16 {
    #[inline(always)]
    fn widen<S: Simd>(s: S, line: &[Self; LANES]) -> S::F32 {
        s.load_f16(&line.map(|bits| bits.0))
    }
}

/// The bits of a bfloat16 number.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Bf16(pub(crate) u16);

// SAFETY: a transparent wrapper of u16.
unsafe impl Plain for Bf16 {}

impl PanelElement for Bf16 {
    #[inline(always)]
    fn widen<S: Simd>(s: S, line: &[Self; LANES]) -> S::F32 {
        s.load_bf16(&line.map(|bits| bits.0))
    }
}
