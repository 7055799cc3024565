//! Memory that starts at a cache line.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::weight_memory::WeightMemory;

/// Number types for which every bit pattern, all zeros included, is a value.
///
/// # Safety
///
/// Implementors have no padding, no invalid bit patterns and an alignment of at most 64 bytes.
pub(crate) unsafe trait Plain: Copy + 'static {}

// SAFETY: primitive numbers have no padding and no invalid bit patterns.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for i16 {}
// SAFETY: as above.
unsafe impl Plain for i8 {}
// SAFETY: as above.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([u8; 64]);

/// A buffer that is reused with any element type and grows to the largest length asked for.
#[derive(Default)]
pub(crate) struct Scratch {
    lines: Vec<CacheLine>,
}

impl Scratch {
    /// The first `length` elements, holding whatever was last written there.
    pub(crate) fn slice<T: Plain>(&mut self, length: usize) -> &mut [T] {
        let bytes = length
            .checked_mul(size_of::<T>())
            .expect("the length of a buffer fits in the address space");
        let lines = bytes.div_ceil(size_of::<CacheLine>());
        if self.lines.len() < lines {
            self.lines.resize(lines, CacheLine([0; 64]));
        }
        // SAFETY: the lines hold at least `bytes` initialized bytes, aligned to 64 >= align_of::<T>(), and every bit
        // pattern is a `T`; the borrow of `self` keeps them alive and unaliased.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), length) }
    }

    /// The first `length` elements of a buffer that was made that long before.
    pub(crate) fn filled<T: Plain>(&self, length: usize) -> &[T] {
        assert!(length.saturating_mul(size_of::<T>()) <= self.lines.len() * size_of::<CacheLine>());
        // SAFETY: as in `slice`; the borrow of `self` is shared.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), length) }
    }

    /// Bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.lines.capacity() * size_of::<CacheLine>()
    }
}

/// A fixed number of elements of a weight that start at a cache line; zeros at first.
pub(crate) struct AlignedVec<T> {
    memory: WeightMemory,
    length: usize,
    element: PhantomData<T>,
}

impl<T: Plain> AlignedVec<T> {
    pub(crate) fn zeroed(length: usize) -> Self {
        let bytes = length
            .checked_mul(size_of::<T>())
            .expect("the size of a weight fits in the address space");
        Self {
            memory: WeightMemory::zeroed(bytes),
            length,
            element: PhantomData,
        }
    }

    /// Bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }
}

impl<T: Plain> Deref for AlignedVec<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `zeroed` made room for `length` elements, aligned to 64 >= align_of::<T>(), and every bit pattern is a `T`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.length) }
    }
}

impl<T: Plain> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), self.length) }
    }
}

impl<T> fmt::Debug for AlignedVec<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{} elements]", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_begin_at_a_cache_line() {
        let mut scratch = Scratch::default();
        for length in [1, 15, 16, 17, 1000] {
            let slice = scratch.slice::<f32>(length);
            assert_eq!((slice.len(), slice.as_ptr() as usize % 64), (length, 0));
            let vector = AlignedVec::<i8>::zeroed(length);
            assert_eq!((vector.len(), vector.as_ptr() as usize % 64), (length, 0));
            assert!(vector.iter().all(|&element| element == 0));
        }
        assert!(scratch.slice::<u8>(0).is_empty());
        assert!(AlignedVec::<f32>::zeroed(0).is_empty());
    }

    #[test]
    fn scratch_keeps_the_greatest_size() {
        let mut scratch = Scratch::default();
        scratch.slice::<f32>(100).fill(1.0);
        let grown = scratch.memory_bytes();
        assert!(grown >= 400);
        scratch.slice::<u8>(3).fill(0);
        assert_eq!(scratch.memory_bytes(), grown);
        assert_eq!(scratch.slice::<f32>(100)[1..], [1.0; 99]);
    }
}
