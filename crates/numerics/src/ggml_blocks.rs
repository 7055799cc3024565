//! Blocks of ggml, in which GGUF files store weights: codes of a few bits with fp16 scales beside them.
//!
//! | type | elements | bytes | value of a code q |
//! |---|---|---|---|
//! | `Q8_0` | 32 | 34 | `d * q`, q in -128..=127 |
//! | `Q5_1` | 32 | 24 | `d * q + m` |
//! | `Q5_0` | 32 | 22 | `d * (q - 16)` |
//! | `Q4_0` | 32 | 18 | `d * (q - 8)` |
//! | `Q4_1` | 32 | 20 | `d * q + m` |
//! | `Q6_K` | 256 | 210 | `d * s * (q - 32)`, an 8-bit s for each 16 |
//! | `Q5_K` | 256 | 176 | `d * s * q - dmin * m`, 6-bit s and m for each 32 |
//! | `Q4_K` | 256 | 144 | `d * s * q - dmin * m`, 6-bit s and m for each 32 |
//!
//! The codes are those of ggml's reference quantizers (`quantize_row_*_ref`, without importance matrix) bit for bit, where these are
//! compiled without contraction of products and sums: every operation in f32, in the order written here.

mod groups_of_32;
mod super_blocks;

use half::f16;
use std::fmt;

/// A type of block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "ggml's names")]
pub enum BlockType {
    /// 8 bits, 32 elements.
    Q8_0,
    /// 4 bits, 32 elements, symmetric.
    Q4_0,
    /// 4 bits, 32 elements, with a minimum.
    Q4_1,
    /// 5 bits, 32 elements, symmetric.
    Q5_0,
    /// 5 bits, 32 elements, with a minimum.
    Q5_1,
    /// 4 bits, 256 elements in groups of 32 with 6-bit scales and minima.
    Q4_K,
    /// 5 bits, 256 elements in groups of 32 with 6-bit scales and minima.
    Q5_K,
    /// 6 bits, 256 elements in groups of 16 with 8-bit scales.
    Q6_K,
}

impl BlockType {
    /// Every type, from the most to the fewest bits.
    pub const ALL: [Self; 8] = [
        Self::Q8_0,
        Self::Q6_K,
        Self::Q5_K,
        Self::Q5_1,
        Self::Q5_0,
        Self::Q4_1,
        Self::Q4_0,
        Self::Q4_K,
    ];

    /// As ggml spells it, in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q4_K => "q4_k",
            Self::Q5_K => "q5_k",
            Self::Q6_K => "q6_k",
        }
    }

    /// Elements of a block.
    pub fn elements(self) -> usize {
        match self {
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
            _ => 32,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Blocks of finite `values`. None if all scales are within fp16; else the first block in which one is not, which stands for infinities.
///
/// ```
/// use fewbit_numerics::ggml_blocks::{BlockType, dequantize_blocks, quantize_blocks};
///
/// let values: Vec<f32> = (-16..16).map(|value| value as f32).collect();
/// let (mut blocks, mut back) = ([0; 18], [0.0; 32]);
/// assert_eq!(quantize_blocks(BlockType::Q4_0, &values, &mut blocks), None);
/// dequantize_blocks(BlockType::Q4_0, &blocks, &mut back);
/// assert_eq!(back[..6], [-16.0, -14.0, -14.0, -12.0, -12.0, -10.0]);
/// ```
///
/// # Panics
/// If `values` are no whole blocks, or `out` has not the bytes of as many.
pub fn quantize_blocks(kind: BlockType, values: &[f32], out: &mut [u8]) -> Option<usize> {
    expect_blocks(kind, values.len(), out.len());
    let blocks = values.chunks_exact(kind.elements());
    let mut beyond = None;
    for (index, (values, block)) in blocks.zip(out.chunks_exact_mut(kind.bytes())).enumerate() {
        let is_finite = match kind {
            BlockType::Q8_0 => groups_of_32::quantize_q8_0(values, block),
            BlockType::Q4_0 => groups_of_32::quantize_q4_0(values, block),
            BlockType::Q4_1 => groups_of_32::quantize_q4_1(values, block),
            BlockType::Q5_0 => groups_of_32::quantize_q5_0(values, block),
            BlockType::Q5_1 => groups_of_32::quantize_q5_1(values, block),
            BlockType::Q4_K => super_blocks::quantize_q4_k(values, block),
            BlockType::Q5_K => super_blocks::quantize_q5_k(values, block),
            BlockType::Q6_K => super_blocks::quantize_q6_k(values, block),
        };
        if !is_finite && beyond.is_none() {
            beyond = Some(index);
        }
    }
    beyond
}

/// What blocks stand for.
///
/// # Panics
/// If `blocks` are no whole blocks, or `out` has not the elements of as many.
pub fn dequantize_blocks(kind: BlockType, blocks: &[u8], out: &mut [f32]) {
    expect_blocks(kind, out.len(), blocks.len());
    let blocks = blocks.chunks_exact(kind.bytes());
    for (block, values) in blocks.zip(out.chunks_exact_mut(kind.elements())) {
        match kind {
            BlockType::Q8_0 => groups_of_32::dequantize_q8_0(block, values),
            BlockType::Q4_0 => groups_of_32::dequantize_q4_0(block, values),
            BlockType::Q4_1 => groups_of_32::dequantize_q4_1(block, values),
            BlockType::Q5_0 => groups_of_32::dequantize_q5_0(block, values),
            BlockType::Q5_1 => groups_of_32::dequantize_q5_1(block, values),
            BlockType::Q4_K => super_blocks::dequantize_q4_k(block, values),
            BlockType::Q5_K => super_blocks::dequantize_q5_k(block, values),
            BlockType::Q6_K => super_blocks::dequantize_q6_k(block, values),
        }
    }
}

fn expect_blocks(kind: BlockType, elements: usize, bytes: usize) {
    assert!(
        elements.is_multiple_of(kind.elements()),
        "{elements} elements are no whole blocks of {}",
        kind.elements()
    );
    assert_eq!(
        bytes,
        elements / kind.elements() * kind.bytes(),
        "bytes of {elements} elements in {kind}"
    );
}

/// Writes `value` as fp16 and returns what a reader gets.
fn put_f16(value: f32, place: &mut [u8]) -> f32 {
    let half = f16::from_f32(value);
    place.copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

fn get_f16(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// `1 / value`, and 0 for 0.
fn reciprocal_or_zero(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { 1.0 / value }
}

/// The first element of largest magnitude; 0 of zeros.
fn signed_largest(values: &[f32]) -> f32 {
    let mut largest = 0.0f32;
    for &value in values {
        if value.abs() > largest.abs() {
            largest = value;
        }
    }
    largest
}
