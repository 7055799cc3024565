//! Keys and values of a sequence in integers.

use crate::aligned::Scratch;
use crate::panel_layout::PanelLayout;

/// Keys and values of one sequence as codes in panels, for attention in integers on one instruction set. A reusable buffer that
/// [`Kernels::quantize_sequence`](crate::Kernels::quantize_sequence) fills, for any number of calls of
/// [`Kernels::attend`](crate::Kernels::attend), from any threads.
#[derive(Default)]
pub struct QuantizedSequence {
    pub(crate) tokens: usize,
    pub(crate) heads: usize,
    pub(crate) head_size: usize,
    /// The layout of the instruction set; none before the buffer is first filled.
    pub(crate) layout: Option<PanelLayout>,
    /// (heads, panels of tokens): i8.
    pub(crate) keys: Scratch,
    /// (heads, tokens padded to sixteen): f32.
    pub(crate) key_scales: Scratch,
    /// (heads, tokens padded to sixteen): i32, the zero-point corrections: the sums that the offset of the queries' codes adds.
    pub(crate) key_corrections: Scratch,
    /// (heads, segments, panels of features): i8.
    pub(crate) values: Scratch,
    /// (heads, features padded to sixteen): f32.
    pub(crate) value_scales: Scratch,
    /// (heads, segments, features padded to sixteen): i32, the zero-point corrections: the sums that the offset of the exponentials'
    /// codes adds.
    pub(crate) value_corrections: Scratch,
}

impl QuantizedSequence {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Length of the sequence that it holds.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes held at the moment.
    pub fn memory_bytes(&self) -> usize {
        [
            &self.keys,
            &self.key_scales,
            &self.key_corrections,
            &self.values,
            &self.value_scales,
            &self.value_corrections,
        ]
        .iter()
        .map(|scratch| scratch.memory_bytes())
        .sum()
    }
}
