//! How the elements of a tensor are stored.
use fewbit_numerics::ggml_blocks::BlockType;
use std::fmt;

/// A type that is written, and whose elements are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16
    Bf16,
    /// Blocks along the rows.
    Blocks(BlockType),
}

impl TensorType {
    /// Every type: floats, then blocks from the most to the fewest bits.
    pub fn all() -> impl Iterator<Item = Self> {
        let floats = [Self::F32, Self::F16, Self::Bf16];
        floats
            .into_iter()
            .chain(BlockType::ALL.map(TensorType::Blocks))
    }

    /// ggml's number of the type.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Blocks(BlockType::Q4_0) => 2,
            Self::Blocks(BlockType::Q4_1) => 3,
            Self::Blocks(BlockType::Q5_0) => 6,
            Self::Blocks(BlockType::Q5_1) => 7,
            Self::Blocks(BlockType::Q8_0) => 8,
            Self::Blocks(BlockType::Q4_K) => 12,
            Self::Blocks(BlockType::Q5_K) => 13,
            Self::Blocks(BlockType::Q6_K) => 14,
            Self::Bf16 => 30,
        }
    }

    /// Elements that are stored together.
    pub fn block_elements(self) -> usize {
        match self {
            Self::Blocks(kind) => kind.elements(),
            _ => 1,
        }
    }

    /// Bytes that these take.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Blocks(kind) => kind.bytes(),
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Blocks(kind) => kind.name(),
        })
    }
}

/// Any type of ggml, as far as sizes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredType {
    number: u32,
    name: &'static str,
    block_elements: usize,
    block_bytes: usize,
}

impl StoredType {
    /// The type of this number; none if ggml has none, or no longer.
    pub(super) fn of_number(number: u32) -> Option<Self> {
        let known = TYPES.iter().find(|known| known.0 == number);
        known.map(|&(number, name, block_elements, block_bytes)| Self {
            number,
            name,
            block_elements,
            block_bytes,
        })
    }

    /// As ggml spells it, in small letters.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Elements that are stored together.
    pub fn block_elements(self) -> usize {
        self.block_elements
    }

    /// Bytes that these take.
    pub fn block_bytes(self) -> usize {
        self.block_bytes
    }

    /// The same as a type whose elements are read; none of the others.
    pub fn readable(self) -> Option<TensorType> {
        TensorType::all().find(|kind| kind.number() == self.number)
    }

    /// Whether elements are codes that stand for floats together with their scales.
    pub fn is_quantized(self) -> bool {
        self.block_elements > 1
    }
}

/// Number, name, elements and bytes of a block (gguf 0.19, `constants.py`).
const TYPES: [(u32, &str, usize, usize); 32] = [
    (0, "f32", 1, 4),
    (1, "f16", 1, 2),
    (2, "q4_0", 32, 18),
    (3, "q4_1", 32, 20),
    (6, "q5_0", 32, 22),
    (7, "q5_1", 32, 24),
    (8, "q8_0", 32, 34),
    (9, "q8_1", 32, 40),
    (10, "q2_k", 256, 84),
    (11, "q3_k", 256, 110),
    (12, "q4_k", 256, 144),
    (13, "q5_k", 256, 176),
    (14, "q6_k", 256, 210),
    (15, "q8_k", 256, 292),
    (16, "iq2_xxs", 256, 66),
    (17, "iq2_xs", 256, 74),
    (18, "iq3_xxs", 256, 98),
    (19, "iq1_s", 256, 50),
    (20, "iq4_nl", 32, 18),
    (21, "iq3_s", 256, 110),
    (22, "iq2_s", 256, 82),
    (23, "iq4_xs", 256, 136),
    (24, "i8", 1, 1),
    (25, "i16", 1, 2),
    (26, "i32", 1, 4),
    (27, "i64", 1, 8),
    (28, "f64", 1, 8),
    (29, "iq1_m", 256, 56),
    (30, "bf16", 1, 2),
    (34, "tq1_0", 256, 54),
    (35, "tq2_0", 256, 66),
    (39, "mxfp4", 32, 17),
];

#[cfg(test)]
mod tests {
    use super::{StoredType, TensorType};

    #[test]
    fn types_that_are_read_have_the_sizes_of_the_table() {
        for kind in TensorType::all() {
            let stored = StoredType::of_number(kind.number()).unwrap();
            assert_eq!(stored.readable(), Some(kind));
            assert_eq!(stored.name(), kind.to_string());
            assert_eq!(stored.block_elements(), kind.block_elements());
            assert_eq!(stored.block_bytes(), kind.block_bytes());
            assert_eq!(stored.is_quantized(), matches!(kind, TensorType::Blocks(_)));
        }
    }

    #[test]
    fn other_types_have_sizes_alone() {
        let stored = StoredType::of_number(10).unwrap();
        assert_eq!((stored.name(), stored.readable()), ("q2_k", None));
        // ggml took the numbers 4 and 5 back.
        assert!(
            [4, 5, 31, 99]
                .map(StoredType::of_number)
                .iter()
                .all(Option::is_none)
        );
    }
}
