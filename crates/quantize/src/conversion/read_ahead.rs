//! Telling the system which bytes of the source are wanted next, so that it reads while others are converted.

use std::ops::Range;

use fewbit_checkpoint::Checkpoint;

/// Bytes that are on their way, at most: some tenths of a second of a fast disk.
const WINDOW: usize = 64 << 20;
/// Bytes that the system is told of at once.
const PART: usize = 8 << 20;

/// The tensors of the source in the order in which they are converted.
pub(crate) struct ReadAhead<'a> {
    checkpoint: &'a Checkpoint,
    /// Name and bytes of each tensor, the next one last.
    tensors: Vec<(&'a str, usize)>,
    /// Bytes of the next tensor that are on their way already.
    begun: usize,
    /// Bytes of all that are on their way or were.
    announced: usize,
    done: usize,
}

impl<'a> ReadAhead<'a> {
    /// Of `tensors` of the checkpoint, each with its bytes. They begin to be read.
    pub(crate) fn new(checkpoint: &'a Checkpoint, tensors: Vec<(&'a str, usize)>) -> Self {
        let mut tensors = tensors;
        tensors.reverse();
        let mut ahead = Self {
            checkpoint,
            tensors,
            begun: 0,
            announced: 0,
            done: 0,
        };
        ahead.advance(0);
        ahead
    }

    /// Says that so many bytes more were converted.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.done += bytes;
        while self.announced < self.done + WINDOW
            && let Some((tensor, part)) = self.next_part()
        {
            self.announced += part.len();
            self.checkpoint.read_ahead(tensor, part);
        }
    }

    fn next_part(&mut self) -> Option<(&'a str, Range<usize>)> {
        let &(tensor, bytes) = self.tensors.last()?;
        let part = self.begun..bytes.min(self.begun + PART);
        self.begun = part.end;
        if self.begun == bytes {
            self.tensors.pop();
            self.begun = 0;
        }
        Some((tensor, part))
    }
}
