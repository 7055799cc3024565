//! Read-only mapping of a file into memory: the only unsafe code of this crate.
//!
//! A page that is touched belongs to the process until it is released, and sixteen pages around it do as well. Where few and scattered
//! bytes are wanted, reading them from the file is cheaper: they pass through the system's cache, which belongs to nobody.
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A whole file, mapped read-only. Pages are read from disk when first touched, so opening is cheap at any size.
#[derive(Debug)]
pub(crate) struct MappedFile {
    map: memmap2::Mmap,
    /// The same file: it stays what was mapped, even if another one takes its name.
    file: File,
}

impl MappedFile {
    /// Maps the file at `path`, which must not be changed in place while it is mapped.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        // SAFETY: the mapping is private to this value, read-only, and lives as long as `map`; slices borrow from
        // `self`. What Rust cannot see is another process changing the file: shortening it would raise SIGBUS on
        // access, rewriting it would change bytes behind a shared reference. Both need somebody to modify a
        // checkpoint in place while a program has it open, which the documentation of `Checkpoint` forbids; fewbit
        // itself, the Hub cache and the safetensors writers replace files by renaming, which leaves a mapping intact.
        // Every byte pattern is a valid `u8`, and everything that is read is validated as untrusted data.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(MappedFile { map, file })
    }

    /// The bytes of the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Copies the bytes from `start` on, which are within the file, to `out` without keeping their pages in memory.
    fn read(&self, start: usize, out: &mut [u8]) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileExt;
            if self.file.read_exact_at(out, start as u64).is_ok() {
                return;
            }
        }
        // Without such a read, or where one fails, the mapping has the bytes.
        out.copy_from_slice(&self.map[start..start + out.len()]);
    }

    /// Advises the operating system to forget the pages of `range`, which is within the file. Reading them again is right, only slow.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        {
            use memmap2::UncheckedAdvice;
            // SAFETY: the advice is destructive for anonymous memory and for private writes only; this mapping is of a file and
            // read-only, so that a dropped page holds the same bytes when it is next read. memmap2 rounds the start down to a page.
            let _advice_only = unsafe {
                self.map
                    .unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len())
            };
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Advises the operating system to read `range`, which is within the file, into its cache, while this process goes on.
    fn read_ahead(&self, range: Range<usize>) {
        #[cfg(all(unix, not(target_vendor = "apple")))]
        if let Some(length) = std::num::NonZero::new(range.len() as u64) {
            use rustix::fs::{Advice, fadvise};
            // Advice only: what is not read ahead is read when it is touched.
            let _ = fadvise(
                &self.file,
                range.start as u64,
                Some(length),
                Advice::WillNeed,
            );
        }
        #[cfg(not(all(unix, not(target_vendor = "apple"))))]
        let _ = range;
    }
}

/// The bytes of one tensor in its mapped file, which stays mapped as long as this is kept: the file must not be changed in place, as
/// for [`Checkpoint`](crate::Checkpoint). (A tensor whose elements lie in another order in its file is a copy in memory.)
#[derive(Debug, Clone)]
pub struct MappedTensor(Source);

#[derive(Debug, Clone)]
enum Source {
    /// A range within the file.
    File(Arc<MappedFile>, Range<usize>),
    /// A range within the bytes.
    Memory(Arc<[u8]>, Range<usize>),
}

impl MappedTensor {
    pub(crate) fn new(file: Arc<MappedFile>, range: Range<usize>) -> Self {
        Self(Source::File(file, range))
    }

    /// A tensor that no file has in this order.
    pub(crate) fn in_memory(bytes: Vec<u8>) -> Self {
        let whole = 0..bytes.len();
        Self(Source::Memory(bytes.into(), whole))
    }

    /// The bytes `part` of it, which are within it.
    pub(crate) fn part(&self, part: Range<usize>) -> Self {
        let within = |whole: &Range<usize>| {
            assert!(part.start <= part.end && part.end <= whole.len());
            whole.start + part.start..whole.start + part.end
        };
        Self(match &self.0 {
            Source::File(file, range) => Source::File(Arc::clone(file), within(range)),
            Source::Memory(bytes, range) => Source::Memory(Arc::clone(bytes), within(range)),
        })
    }

    /// Little-endian, as stored; not aligned to anything.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Source::File(file, range) => &file.bytes()[range.clone()],
            Source::Memory(bytes, range) => &bytes[range.clone()],
        }
    }

    /// Copies the bytes from `start` on to `out`. Unlike a look at [`MappedTensor::bytes`], this leaves no pages in the memory of
    /// the process.
    ///
    /// # Panics
    /// If they are not within the tensor.
    pub fn read(&self, start: usize, out: &mut [u8]) {
        match &self.0 {
            Source::File(file, range) => {
                assert!(start <= range.len() && out.len() <= range.len() - start);
                file.read(range.start + start, out);
            }
            Source::Memory(bytes, range) => {
                out.copy_from_slice(&bytes[range.clone()][start..][..out.len()]);
            }
        }
    }

    /// Says that the bytes `part` of the tensor need not stay in memory. Reading them again is right, only slower.
    ///
    /// # Panics
    /// If `part` is not within the tensor.
    pub fn release(&self, part: Range<usize>) {
        match &self.0 {
            Source::File(file, range) => {
                assert!(part.start <= part.end && part.end <= range.len());
                file.release(range.start + part.start..range.start + part.end);
            }
            Source::Memory(_, range) => assert!(part.start <= part.end && part.end <= range.len()),
        }
    }

    /// Says that the bytes `part` of the tensor will be wanted soon: the system may read them into its cache meanwhile, which belongs to no
    /// process.
    ///
    /// # Panics
    /// If `part` is not within the tensor.
    pub fn read_ahead(&self, part: Range<usize>) {
        let (Source::File(_, range) | Source::Memory(_, range)) = &self.0;
        assert!(part.start <= part.end && part.end <= range.len());
        if let Source::File(file, range) = &self.0 {
            file.read_ahead(range.start + part.start..range.start + part.end);
        }
    }
}
