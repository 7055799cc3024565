//! NF4 and FP4 weights.

use fewbit_numerics::four_bit::FourBitType;

use crate::aligned::AlignedVec;
use crate::panels::{assert_shape, padded_elements};
use crate::simd::LANES;

/// Weight (out_features, in_features) as 4-bit codes in bitsandbytes order; blocks run over the flattened matrix and
/// may cross rows. The result of a product is that of the dequantized f32 matrix, `table[code] * absmax[block]`.
#[derive(Debug)]
pub struct PackedFourBit {
    pub(crate) out_features: usize,
    pub(crate) in_features: usize,
    pub(crate) block_size: usize,
    pub(crate) kind: FourBitType,
    /// Panels `[out_features / 16][in_features][8]`: byte i of a line holds the code of row i in its low nibble and that of row
    /// 8 + i in its high nibble.
    pub(crate) codes: AlignedVec<u8>,
    /// One for each block of the flattened matrix.
    pub(crate) absmax: Vec<f32>,
}

impl PackedFourBit {
    /// Repacks `packed` codes, two a byte with the even element of the flattened matrix in the high nibble.
    ///
    /// # Panics
    ///
    /// If `packed` does not have half as many bytes (rounded up) as the matrix has elements, `block_size` is zero, or `absmax` does not
    /// have one value for each started block.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "the bytes are repacked; taking them lets the caller's copy be freed at once"
    )]
    pub fn new(
        packed: Vec<u8>,
        absmax: Vec<f32>,
        block_size: usize,
        kind: FourBitType,
        out_features: usize,
        in_features: usize,
    ) -> Self {
        let elements = out_features
            .checked_mul(in_features)
            .expect("a weight fits in the address space");
        assert_shape("packed codes", packed.len(), elements.div_ceil(2), 1);
        assert!(block_size > 0, "the block size is at least 1");
        assert_shape("absmax", absmax.len(), elements.div_ceil(block_size), 1);

        let line_bytes = LANES / 2;
        let mut codes = AlignedVec::<u8>::zeroed(padded_elements(out_features, in_features) / 2);
        for row in 0..out_features {
            let panel = row / LANES * in_features;
            let (byte, shift) = (row % line_bytes, row % LANES / line_bytes * 4);
            for column in 0..in_features {
                let element = row * in_features + column;
                let code = packed[element / 2] >> (4 * (1 - element % 2)) & 15;
                codes[(panel + column) * line_bytes + byte] |= code << shift;
            }
        }
        Self {
            out_features,
            in_features,
            block_size,
            kind,
            codes,
            absmax,
        }
    }

    /// Rows of the weight.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Columns of the weight.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Bytes held in memory, padding included.
    pub fn memory_bytes(&self) -> usize {
        self.codes.memory_bytes() + self.absmax.capacity() * size_of::<f32>()
    }
}
