//! Floats as a file holds them.

use fewbit_numerics::half_precision::{bf16_bytes_to_f32, f16_bytes_to_f32, f32_bytes_to_f32};
use std::marker::PhantomData;
use std::ops::Range;

use crate::generic::panel_element::{Bf16, F16, PanelElement};
use crate::simd::{LANES, Simd};

/// A slice of floats of one of the types of weights, at any alignment, in the byte order of the machine.
///
/// ```
/// use fewbit_kernels::FloatBytes;
/// let bytes = [0x80, 0x3f, 0x00, 0xc0];
/// let floats = FloatBytes::bf16(&bytes);
/// assert_eq!(floats.len(), 2);
/// assert_eq!(floats.range(1..2).len(), 1);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct FloatBytes<'a>(pub(crate) Typed<'a>);

/// The type of the floats.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Typed<'a> {
    F32(Elements<'a, f32>),
    F16(Elements<'a, F16>),
    Bf16(Elements<'a, Bf16>),
}

impl<'a> FloatBytes<'a> {
    /// f32 numbers.
    pub fn of_f32(values: &'a [f32]) -> Self {
        // SAFETY: any bytes of numbers are bytes, and the length is theirs.
        let bytes = unsafe {
            std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values))
        };
        Self::f32(bytes)
    }

    /// Bytes of f32 numbers.
    ///
    /// # Panics
    ///
    /// If the number of bytes is not a multiple of 4.
    pub fn f32(bytes: &'a [u8]) -> Self {
        FloatBytes(Typed::F32(Elements::new(bytes)))
    }

    /// Bytes of IEEE binary16 numbers.
    ///
    /// # Panics
    ///
    /// If the number of bytes is odd.
    pub fn f16(bytes: &'a [u8]) -> Self {
        FloatBytes(Typed::F16(Elements::new(bytes)))
    }

    /// Bytes of bfloat16 numbers.
    ///
    /// # Panics
    ///
    /// If the number of bytes is odd.
    pub fn bf16(bytes: &'a [u8]) -> Self {
        FloatBytes(Typed::Bf16(Elements::new(bytes)))
    }

    /// Number of floats.
    pub fn len(&self) -> usize {
        match self.0 {
            Typed::F32(elements) => elements.len(),
            Typed::F16(elements) => elements.len(),
            Typed::Bf16(elements) => elements.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The floats, widened exactly to f32, into `out`.
    ///
    /// # Panics
    ///
    /// If `out` does not have [`len`](Self::len) elements.
    pub fn widen_into(&self, out: &mut [f32]) {
        match self.0 {
            Typed::F32(elements) => f32_bytes_to_f32(elements.bytes, out),
            Typed::F16(elements) => f16_bytes_to_f32(elements.bytes, out),
            Typed::Bf16(elements) => bf16_bytes_to_f32(elements.bytes, out),
        }
    }

    /// The floats of these indices.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    #[must_use]
    pub fn range(&self, range: Range<usize>) -> Self {
        FloatBytes(match self.0 {
            Typed::F32(elements) => Typed::F32(elements.range(range)),
            Typed::F16(elements) => Typed::F16(elements.range(range)),
            Typed::Bf16(elements) => Typed::Bf16(elements.range(range)),
        })
    }
}

/// Bytes of whole elements, which may be misaligned.
#[derive(Debug)]
pub(crate) struct Elements<'a, E> {
    bytes: &'a [u8],
    element: PhantomData<E>,
}

impl<E> Clone for Elements<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Elements<'_, E> {}

impl<'a, E: PanelElement> Elements<'a, E> {
    #[inline(always)]
    fn new(bytes: &'a [u8]) -> Self {
        assert!(
            bytes.len().is_multiple_of(size_of::<E>()),
            "{} bytes for each number, found {} bytes",
            size_of::<E>(),
            bytes.len()
        );
        Self {
            bytes,
            element: PhantomData,
        }
    }

    #[inline(always)]
    pub(crate) fn len(self) -> usize {
        self.bytes.len() / size_of::<E>()
    }

    #[inline(always)]
    pub(crate) fn range(self, range: Range<usize>) -> Self {
        Self {
            bytes: &self.bytes[range.start * size_of::<E>()..range.end * size_of::<E>()],
            element: PhantomData,
        }
    }

    /// Elements `first..first + 16`, widened exactly. There must be so many.
    #[inline(always)]
    pub(crate) fn vector<S: Simd>(self, s: S, first: usize) -> S::F32 {
        debug_assert!(first + LANES <= self.len());
        let bytes = &self.bytes[first * size_of::<E>()..][..LANES * size_of::<E>()];
        // SAFETY: there are as many bytes as the array has, and every bit pattern is an element (`Plain`).
        let line = unsafe { bytes.as_ptr().cast::<[E; LANES]>().read_unaligned() };
        E::widen(s, &line)
    }

    /// Elements from `first` on, at most sixteen; the lanes after the last are zero.
    #[inline(always)]
    pub(crate) fn vector_up_to<S: Simd>(self, s: S, first: usize) -> S::F32 {
        let count = self.len().saturating_sub(first);
        if count >= LANES {
            return self.vector(s, first);
        }
        if count == 0 {
            return s.splat(0.0);
        }
        let bytes = &self.bytes[first * size_of::<E>()..];
        // SAFETY: an element has no invalid bit patterns, zeros among them (`Plain`); fewer bytes than the array has are copied into it.
        let line = unsafe {
            let mut line = std::mem::zeroed::<[E; LANES]>();
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                line.as_mut_ptr().cast::<u8>(),
                bytes.len(),
            );
            line
        };
        E::widen(s, &line)
    }
}
