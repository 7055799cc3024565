//! Memory for weights, in large pages where the system has them.
//!
//! A pass over a model reads all its weights once, from memory or a far cache. With pages of 4 KiB that takes thousands of address
//! translations, and the CPU's prefetchers stop at every page. Weights therefore come one after the other from chunks that the
//! system is asked to back with large pages; where it declines, nothing changes but the speed.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A cache line, where every piece starts.
const LINE: usize = 64;

/// Size and alignment of a large page.
const LARGE_PAGE: usize = 2 << 20;

/// Pieces from a quarter of this on have memory of their own. What is not taken of a chunk is address space, and never becomes memory.
const CHUNK: usize = 16 * LARGE_PAGE;

/// Memory that pieces are cut from; freed with the last of them.
struct Chunk {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a chunk is memory and nothing else; who may write where is for the pieces to say.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// At least `bytes`, not initialized: what no piece is cut from never becomes memory.
    fn new(bytes: usize) -> Self {
        let layout = bytes
            .checked_next_multiple_of(LARGE_PAGE)
            .and_then(|bytes| Layout::from_size_align(bytes.max(LARGE_PAGE), LARGE_PAGE).ok())
            .expect("the size of a weight fits in the address space");
        // SAFETY: the layout has a size above zero.
        let start = NonNull::new(unsafe { alloc(layout) });
        let Some(start) = start else {
            handle_alloc_error(layout)
        };
        #[cfg(target_os = "linux")]
        {
            use rustix::mm::{Advice, madvise};
            // A large page that is filled in part takes memory as a whole: the rest of the bytes lies in usual pages.
            let whole_pages = bytes / LARGE_PAGE * LARGE_PAGE;
            // SAFETY: the range is in this allocation; the advice does not change what it holds. A refusal leaves pages of the usual size.
            let _refused =
                unsafe { madvise(start.as_ptr().cast(), whole_pages, Advice::LinuxHugepage) };
        }
        Self { start, layout }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and no piece is left.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// The chunk that the next piece is cut from, and how much of it is taken.
static CURRENT: Mutex<(Weak<Chunk>, usize)> = Mutex::new((Weak::new(), 0));

/// Zeroed bytes that start at a cache line and belong to one owner.
pub(crate) struct WeightMemory {
    start: NonNull<u8>,
    bytes: usize,
    _chunk: Arc<Chunk>,
}

// SAFETY: the bytes belong to this piece alone.
unsafe impl Send for WeightMemory {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for WeightMemory {}

impl WeightMemory {
    pub(crate) fn zeroed(bytes: usize) -> Self {
        let taken = bytes
            .checked_next_multiple_of(LINE)
            .expect("the size of a weight fits in the address space");
        if taken >= CHUNK / 4 {
            return Self::cut(Arc::new(Chunk::new(taken)), 0, bytes);
        }
        // A panic elsewhere leaves a chunk and a number of taken bytes that belong together: both are set at once, below.
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let chunk = current
            .0
            .upgrade()
            .filter(|chunk| current.1 + taken <= chunk.layout.size());
        let (chunk, start) = match chunk {
            Some(chunk) => (chunk, current.1),
            None => (Arc::new(Chunk::new(CHUNK)), 0),
        };
        *current = (Arc::downgrade(&chunk), start + taken);
        Self::cut(chunk, start, bytes)
    }

    /// The bytes start..start + bytes of a chunk, which no other piece has, zeroed.
    fn cut(chunk: Arc<Chunk>, start: usize, bytes: usize) -> Self {
        assert!(start + bytes <= chunk.layout.size());
        // SAFETY: within the allocation.
        let start = unsafe { chunk.start.add(start) };
        // SAFETY: the allocation has these bytes, and they are this piece's alone.
        unsafe { start.write_bytes(0, bytes) };
        Self {
            start,
            bytes,
            _chunk: chunk,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first byte, at the start of a cache line.
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(memory: &mut WeightMemory) -> &mut [u8] {
        // SAFETY: the piece has these bytes, all initialized.
        unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr(), memory.bytes()) }
    }

    #[test]
    fn pieces_are_zeroed_aligned_and_apart() {
        let sizes = [
            0,
            1,
            63,
            64,
            65,
            100_000,
            CHUNK / 4 - 64,
            CHUNK / 4,
            CHUNK + 1,
        ];
        let mut pieces: Vec<WeightMemory> = sizes
            .iter()
            .cycle()
            .take(5 * sizes.len())
            .map(|&bytes| WeightMemory::zeroed(bytes))
            .collect();
        for (index, piece) in pieces.iter_mut().enumerate() {
            assert_eq!(piece.as_ptr() as usize % LINE, 0);
            let bytes = slice(piece);
            assert!(bytes.iter().all(|&byte| byte == 0), "piece {index}");
            bytes.fill(index as u8 + 1);
        }
        for (index, piece) in pieces.iter_mut().enumerate() {
            assert!(slice(piece).iter().all(|&byte| byte == index as u8 + 1));
        }
    }

    #[test]
    fn memory_that_was_given_back_is_zeroed_again() {
        for _ in 0..4 {
            let mut piece = WeightMemory::zeroed(CHUNK);
            assert!(slice(&mut piece).iter().all(|&byte| byte == 0));
            slice(&mut piece).fill(7);
        }
    }
}
