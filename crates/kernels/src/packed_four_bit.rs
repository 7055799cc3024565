//! NF4 and FP4 weights.

use fewbit_numerics::four_bit::FourBitType;

use crate::aligned::AlignedVec;
use crate::panels::{assert_shape, padded_elements, panel_count};
use crate::simd::LANES;

/// Weight (out_features, in_features) as 4-bit codes in bitsandbytes order; blocks run over the flattened matrix and
/// may cross rows. The result of a product is that of the dequantized f32 matrix, `table[code] * absmax[block]`.
#[derive(Debug)]
pub struct PackedFourBit {
    pub(crate) out_features: usize,
    pub(crate) in_features: usize,
    pub(crate) kind: FourBitType,
    /// Panels `[out_features / 16][in_features / 8][16]`: nibble j of lane i, from the lowest on, is the code of row i in column j of the eight.
    pub(crate) words: AlignedVec<i32>,
    /// The columns of each panel, cut wherever one of its rows enters another block.
    pub(crate) runs: Runs,
}

/// Codes of one lane of a word.
pub(crate) const WORD_CODES: usize = 8;

/// Columns of panels over which no row changes its block, panel after panel from the first column to the last.
#[derive(Debug)]
pub(crate) struct Runs {
    /// Where the runs of each panel begin among all runs, and where the last ends.
    pub(crate) first: Vec<usize>,
    /// The column at which a run ends.
    pub(crate) ends: Vec<usize>,
    /// `[runs][16]`: the absmax of each row's block; zeros for rows that the last panel lacks.
    pub(crate) absmax: AlignedVec<f32>,
}

impl Runs {
    fn new(absmax: &[f32], block_size: usize, out_features: usize, in_features: usize) -> Self {
        let (mut first, mut ends, mut lines) = (vec![0], Vec::new(), Vec::new());
        for panel in 0..panel_count(out_features) {
            let rows = panel * LANES..out_features.min((panel + 1) * LANES);
            let mut column = 0;
            while column < in_features {
                let (mut line, mut end) = ([0.0; LANES], in_features);
                for (lane, row) in line.iter_mut().zip(rows.clone()) {
                    let element = row * in_features + column;
                    *lane = absmax[element / block_size];
                    end = end.min(column.saturating_add(block_size - element % block_size));
                }
                lines.push(line);
                ends.push(end);
                column = end;
            }
            first.push(ends.len());
        }
        let mut absmax = AlignedVec::zeroed(lines.len() * LANES);
        absmax.copy_from_slice(lines.as_flattened());
        Self {
            first,
            ends,
            absmax,
        }
    }
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

        let groups = in_features.div_ceil(WORD_CODES);
        let mut words = AlignedVec::<i32>::zeroed(padded_elements(out_features, groups));
        for row in 0..out_features {
            let first = row / LANES * groups * LANES + row % LANES;
            for group in 0..groups {
                let column = group * WORD_CODES;
                let codes = WORD_CODES.min(in_features - column);
                words[first + group * LANES] =
                    word(&packed, row * in_features + column, codes).cast_signed();
            }
        }
        Self {
            out_features,
            in_features,
            kind,
            words,
            runs: Runs::new(&absmax, block_size, out_features, in_features),
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
        let Runs {
            first,
            ends,
            absmax,
        } = &self.runs;
        let cuts = (first.capacity() + ends.capacity()) * size_of::<usize>();
        self.words.memory_bytes() + absmax.memory_bytes() + cuts
    }
}

/// At most eight codes from `element` of the flattened matrix on, the first one lowest.
fn word(packed: &[u8], element: usize, codes: usize) -> u32 {
    if codes == WORD_CODES
        && element.is_multiple_of(2)
        && let Some(&bytes) = packed[element / 2..].first_chunk()
    {
        // The two nibbles of each byte change places.
        let bits = u32::from_le_bytes(bytes);
        return (bits & 0x0f0f_0f0f) << 4 | bits >> 4 & 0x0f0f_0f0f;
    }
    (element..element + codes).rev().fold(0, |word, element| {
        word << 4 | u32::from(packed[element / 2] >> (4 * (1 - element % 2)) & 15)
    })
}
