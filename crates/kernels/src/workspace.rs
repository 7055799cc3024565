//! Scratch memory that kernels reuse.

use crate::aligned::Scratch;

/// Scratch memory of the kernels. Each buffer grows to what the largest call needed and is then reused, so the steady
/// state allocates nothing. One for each thread.
///
/// What a workspace held before a call never changes the call's result.
#[derive(Default)]
pub struct Workspace {
    /// Weight panels decoded to f32, or none.
    pub(crate) panels: Scratch,
    /// Activations in the form that a tile reads, where that is not the one they have.
    pub(crate) activations: Scratch,
    /// Keys of one head, in panels.
    pub(crate) keys: Scratch,
    /// Values of one head, in panels.
    pub(crate) values: Scratch,
    /// Scores of one block of queries.
    pub(crate) scores: Scratch,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes held at the moment.
    pub fn memory_bytes(&self) -> usize {
        [
            &self.panels,
            &self.activations,
            &self.keys,
            &self.values,
            &self.scores,
        ]
        .iter()
        .map(|scratch| scratch.memory_bytes())
        .sum()
    }
}
