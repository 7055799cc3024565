//! NF4 and FP4: code tables, thresholds, blockwise quantization (bitsandbytes layout).
//!
//! Blocks run over the flattened row-major tensor and may cross rows. With `absmax` the largest magnitude of a block,
//! all in float32:
//!
//! ```text
//! full block:         v = x * (1 / max(absmax, 1e-38))      absmax is stored
//! short last block:   v = x / max(absmax, 1e-38)            max(absmax, 1e-38) is stored
//! code of v:          the number of thresholds that v exceeds, as an index into the codes in ascending order
//! dequantized:        table[code] * absmax
//! ```
//!
//! That is what bitsandbytes 0.50.2 does on a CPU, byte for byte, in both kinds of block. (It clamps v to -1..=1 first, which
//! changes no code because all thresholds lie inside.) Its CUDA kernels differ for FP4 at ties and near zero: there the sign
//! is put aside first, so a tie takes the smaller magnitude instead of the lower value.

use crate::absmax::absmax as absmax_of;

/// A 16-entry code table: the QLoRA data type NormalFloat4, or the 4-bit float of bitsandbytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FourBitType {
    /// NormalFloat4
    Nf4,
    /// FP4 (E2M1-like, bitsandbytes order)
    Fp4,
}

const NF4_BITS: [u32; 16] = [
    0xbf80_0000,
    0xbf32_39b1,
    0xbf06_6b30,
    0xbeca_32a0,
    0xbe91_a24d,
    0xbe3d_353f,
    0xbdba_7871,
    0x0000_0000,
    0x3da2_faff,
    0x3e24_cae3,
    0x3e7c_04dd,
    0x3ead_033a,
    0x3ee1_a4b8,
    0x3f10_07ab,
    0x3f39_13b3,
    0x3f80_0000,
];

/// 0, 1/16, 8, 12, 4, 6, 2 and 3, each divided by 12, and the same negated; code 8 is +0.
const FP4_BITS: [u32; 16] = [
    0x0000_0000,
    0x3baa_aaab,
    0x3f2a_aaab,
    0x3f80_0000,
    0x3eaa_aaab,
    0x3f00_0000,
    0x3e2a_aaab,
    0x3e80_0000,
    0x0000_0000,
    0xbbaa_aaab,
    0xbf2a_aaab,
    0xbf80_0000,
    0xbeaa_aaab,
    0xbf00_0000,
    0xbe2a_aaab,
    0xbe80_0000,
];

static NF4_TABLE: [f32; 16] = from_bits(NF4_BITS);
static FP4_TABLE: [f32; 16] = from_bits(FP4_BITS);

/// Codes from the lowest value to the highest.
static NF4_ORDER: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// The two zeros stand as bitsandbytes sorts them on a CPU: 0, then 8.
static FP4_ORDER: [u8; 16] = [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3];

static NF4_THRESHOLDS: [f32; 15] = midpoints(&from_bits(NF4_BITS), &NF4_ORDER);
static FP4_THRESHOLDS: [f32; 15] = midpoints(&from_bits(FP4_BITS), &FP4_ORDER);

const fn from_bits(bits: [u32; 16]) -> [f32; 16] {
    let mut table = [0.0; 16];
    let mut i = 0;
    while i < 16 {
        table[i] = f32::from_bits(bits[i]);
        i += 1;
    }
    table
}

const fn midpoints(table: &[f32; 16], order: &[u8; 16]) -> [f32; 15] {
    let mut thresholds = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        thresholds[i] = (table[order[i] as usize] + table[order[i + 1] as usize]) / 2.0;
        i += 1;
    }
    thresholds
}

impl FourBitType {
    /// Value of each code, index = code, exact f32 bits of bitsandbytes.
    pub fn table(self) -> &'static [f32; 16] {
        match self {
            FourBitType::Nf4 => &NF4_TABLE,
            FourBitType::Fp4 => &FP4_TABLE,
        }
    }

    /// The codes in the order of their values, lowest first. NF4 codes are sorted already; FP4's are bit patterns.
    pub fn ascending_codes(self) -> &'static [u8; 16] {
        match self {
            FourBitType::Nf4 => &NF4_ORDER,
            FourBitType::Fp4 => &FP4_ORDER,
        }
    }

    /// The float32 midpoints of neighbouring values, ascending: [`encode`](Self::encode) counts those that a value exceeds.
    pub fn thresholds(self) -> &'static [f32; 15] {
        match self {
            FourBitType::Nf4 => &NF4_THRESHOLDS,
            FourBitType::Fp4 => &FP4_THRESHOLDS,
        }
    }

    /// "nf4" / "fp4"
    pub fn name(self) -> &'static str {
        match self {
            FourBitType::Nf4 => "nf4",
            FourBitType::Fp4 => "fp4",
        }
    }

    /// Code of a value in [-1, 1]; a tie takes the lower value. Values outside get the code at that end, a NaN the lowest.
    ///
    /// FP4 has two zeros: exact zero, of either sign, and what rounds to zero from below get code 0, what rounds to zero from above gets
    /// code 8.
    ///
    /// ```
    /// use fewbit_numerics::four_bit::FourBitType;
    /// assert_eq!(FourBitType::Nf4.encode(0.1), 8);
    /// assert_eq!(FourBitType::Nf4.table()[8], 0.079_580_3);
    /// assert_eq!([0.0, 1e-9, -1e-9].map(|v| FourBitType::Fp4.encode(v)), [0, 8, 0]);
    /// ```
    pub fn encode(self, value: f32) -> u8 {
        let rank = self
            .thresholds()
            .iter()
            .filter(|&&threshold| value > threshold)
            .count();
        self.ascending_codes()[rank]
    }
}

/// A flattened tensor of n elements as 4-bit codes and one absmax a block.
#[derive(Debug, Clone, PartialEq)]
pub struct FourBitBlocks {
    /// (ceil(n / 2)): element 2i in the HIGH nibble of byte i, element 2i + 1 in the low one. Where n is odd the last low nibble is
    /// the code of zero.
    pub packed: Vec<u8>,
    /// (ceil(n / block_size))
    pub absmax: Vec<f32>,
}

/// The least absmax that is divided by; a denormal, whose reciprocal is finite.
pub const MINIMUM_ABSMAX: f32 = 1e-38;

/// Elements that are encoded together.
const CHUNK: usize = 16;

/// Quantizes a flattened tensor (finite) in blocks of `block_size`, by the formulas of the module's documentation.
///
/// An all-zero full block has absmax 0 and the bytes 0x77 (NF4) or 0x00 (FP4). Input of half precision is widened to f32 first.
/// The code of a NaN, or of any element of a block with an infinity, has no meaning; callers refuse both.
///
/// ```
/// use fewbit_numerics::four_bit::{FourBitType, dequantize_range, quantize_blocks};
/// let blocks = quantize_blocks(&[2.0, -2.0, 0.0, 0.1], 4, FourBitType::Nf4);
/// assert_eq!(blocks.absmax, [2.0]);
/// assert_eq!(blocks.packed, [0xf0, 0x78]);
/// let mut restored = [0.0; 2];
/// dequantize_range(&blocks.packed, &blocks.absmax, 4, FourBitType::Nf4, 1, &mut restored);
/// assert_eq!(restored, [-2.0, 0.0]);
/// ```
///
/// # Panics
///
/// If `block_size` is odd or 0. (bitsandbytes takes the powers of two from 32 to 4096.)
pub fn quantize_blocks(values: &[f32], block_size: usize, kind: FourBitType) -> FourBitBlocks {
    assert!(
        block_size > 0 && block_size.is_multiple_of(2),
        "the block size {block_size} is even and positive"
    );
    let mut packed = Vec::with_capacity(values.len().div_ceil(2));
    let mut absmax = Vec::with_capacity(values.len().div_ceil(block_size));
    for block in values.chunks(block_size) {
        let largest = absmax_of(block);
        if block.len() == block_size {
            absmax.push(largest);
            let inverse = 1.0 / largest.max(MINIMUM_ABSMAX);
            encode_block(block, kind, |x| x * inverse, &mut packed);
        } else {
            let largest = largest.max(MINIMUM_ABSMAX);
            absmax.push(largest);
            encode_block(block, kind, |x| x / largest, &mut packed);
        }
    }
    FourBitBlocks { packed, absmax }
}

fn encode_block(
    block: &[f32],
    kind: FourBitType,
    normalize: impl Fn(f32) -> f32,
    packed: &mut Vec<u8>,
) {
    let (thresholds, order) = (kind.thresholds(), kind.ascending_codes());
    for chunk in block.chunks(CHUNK) {
        let mut normalized = [0.0f32; CHUNK];
        for (value, &x) in normalized.iter_mut().zip(chunk) {
            *value = normalize(x);
        }
        let mut ranks = [0u32; CHUNK];
        for (rank, &value) in ranks.iter_mut().zip(&normalized) {
            *rank = thresholds
                .iter()
                .map(|&threshold| u32::from(value > threshold))
                .sum();
        }
        let pairs = chunk.len().div_ceil(2);
        packed.extend(
            ranks
                .chunks_exact(2)
                .take(pairs)
                .map(|pair| order[pair[0] as usize & 15] << 4 | order[pair[1] as usize & 15]),
        );
    }
}

/// Codes two a byte, the first in the high nibble; after an odd number of them the code of zero fills the last byte.
///
/// ```
/// use fewbit_numerics::four_bit::{FourBitType, pack};
/// assert_eq!(pack(&[15, 0, 3], FourBitType::Nf4), [0xf0, 0x37]);
/// ```
pub fn pack(codes: &[u8], kind: FourBitType) -> Vec<u8> {
    let (pairs, rest) = codes.as_chunks::<2>();
    let pairs = pairs.iter().map(|[high, low]| high << 4 | low);
    pairs
        .chain(rest.iter().map(|high| high << 4 | kind.encode(0.0)))
        .collect()
}

/// Dequantizes elements `start..start + out.len()` of a flattened tensor: `table[code] * absmax[element / block_size]`, one
/// rounding.
///
/// FP4 code 8 gives +0, by the table that bitsandbytes stores in files; one of its CPU routines gives -0.
///
/// # Panics
///
/// If `block_size` is 0, or if `packed` or `absmax` end before the last element asked for.
pub fn dequantize_range(
    packed: &[u8],
    absmax: &[f32],
    block_size: usize,
    kind: FourBitType,
    start: usize,
    out: &mut [f32],
) {
    assert!(block_size > 0, "a block holds at least one element");
    let table = kind.table();
    let mut element = start;
    let mut out = out;
    while !out.is_empty() {
        let left_in_block = block_size - element % block_size;
        let (block, rest) = out.split_at_mut(left_in_block.min(out.len()));
        let absmax = absmax[element / block_size];
        let scaled = table.map(|value| value * absmax);
        for value in block {
            let byte = packed[element / 2];
            let code = if element.is_multiple_of(2) {
                byte >> 4
            } else {
                byte & 15
            };
            *value = scaled[usize::from(code)];
            element += 1;
        }
        out = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [FourBitType; 2] = [FourBitType::Nf4, FourBitType::Fp4];

    #[test]
    fn tables_are_the_published_numbers() {
        let nf4 = [
            -1.0,
            -0.696_192_8,
            -0.525_073_05,
            -0.394_917_5,
            -0.284_441_38,
            -0.184_773_43,
            -0.091_050_036,
            0.0, //
            0.079_580_3,
            0.160_930_2,
            0.246_112_3,
            0.337_915_24,
            0.440_709_83,
            0.562_617,
            0.722_956_84,
            1.0,
        ];
        assert_eq!(FourBitType::Nf4.table(), &nf4);
        let twelfths = [0.0, 1.0 / 16.0, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0];
        for (code, twelfth) in twelfths.into_iter().enumerate() {
            let value = twelfth / 12.0;
            assert_eq!(
                FourBitType::Fp4.table()[code].to_bits(),
                f32::to_bits(value)
            );
            assert_eq!(FourBitType::Fp4.table()[code + 8], -value);
        }
        // Not -0.
        assert_eq!(FourBitType::Fp4.table()[8].to_bits(), 0);
    }

    #[test]
    fn thresholds_are_the_published_numbers() {
        let nf4 = [
            -0.848_096_4,
            -0.610_632_9,
            -0.459_995_27,
            -0.339_679_42,
            -0.234_607_4,
            -0.137_911_74,
            -0.045_525_018,
            0.039_790_15,
            0.120_255_25,
            0.203_521_25,
            0.292_013_76,
            0.389_312_54,
            0.501_663_45,
            0.642_786_9,
            0.861_478_45,
        ];
        assert_eq!(FourBitType::Nf4.thresholds(), &nf4);
        let fp4 = [
            0.002_604_17,
            0.085_937_5,
            0.208_333_34,
            0.291_666_7,
            0.416_666_7,
            0.583_333_4,
            0.833_333_4,
        ];
        for (found, published) in FourBitType::Fp4.thresholds()[8..].iter().zip(fp4) {
            assert!((found - published).abs() < 1e-7, "{found} {published}");
        }
        assert_eq!(FourBitType::Fp4.thresholds()[7].to_bits(), 0);
    }

    #[test]
    fn orders_ascend_and_thresholds_separate_neighbours() {
        for kind in KINDS {
            let values = kind
                .ascending_codes()
                .map(|code| kind.table()[usize::from(code)]);
            assert!(values.is_sorted());
            let mut codes = *kind.ascending_codes();
            codes.sort_unstable();
            assert_eq!(codes, NF4_ORDER);
            for (pair, threshold) in values.windows(2).zip(kind.thresholds()) {
                assert!(pair[0] <= *threshold && *threshold <= pair[1]);
            }
        }
    }

    #[test]
    fn encoding_takes_the_nearest_value_and_ties_the_lower_one() {
        for kind in KINDS {
            for i in -40_000..=40_000 {
                let value = i as f32 / 40_000.0;
                let chosen = kind.table()[usize::from(kind.encode(value))];
                let nearest = kind
                    .table()
                    .iter()
                    .map(|x| (x - value).abs())
                    .fold(f32::MAX, f32::min);
                // The thresholds are rounded midpoints, so at a tie either neighbour may be an ulp of 1 nearer.
                assert!((chosen - value).abs() <= nearest + f32::EPSILON, "{value}");
            }
            for (rank, &threshold) in kind.thresholds().iter().enumerate() {
                assert_eq!(kind.encode(threshold), kind.ascending_codes()[rank]);
                assert_eq!(
                    kind.encode(threshold.next_up()),
                    kind.ascending_codes()[rank + 1]
                );
            }
            for code in 0..16 {
                let encoded = kind.encode(kind.table()[usize::from(code)]);
                let zero_code = kind == FourBitType::Fp4 && code == 8;
                assert_eq!(encoded, if zero_code { 0 } else { code });
            }
        }
    }

    #[test]
    fn values_outside_and_nan() {
        assert_eq!(
            [-2.0, f32::NEG_INFINITY, f32::NAN].map(|v| FourBitType::Nf4.encode(v)),
            [0; 3]
        );
        assert_eq!(
            [2.0, f32::INFINITY].map(|v| FourBitType::Nf4.encode(v)),
            [15; 2]
        );
        assert_eq!([-2.0, 2.0].map(|v| FourBitType::Fp4.encode(v)), [11, 3]);
        for kind in KINDS {
            for bad in [f32::NAN, f32::INFINITY] {
                quantize_blocks(&[1.0, bad, 2.0, -bad, 0.5], 4, kind);
            }
        }
    }

    #[test]
    fn blocks_are_encoded_as_single_values_are() {
        let values: Vec<f32> = (0..1003)
            .map(|i| ((i * 7919 % 2003) as f32 - 1001.0) * 0.37)
            .collect();
        for kind in KINDS {
            for block_size in [2, 6, 32, 64, 130, 1024] {
                let blocks = quantize_blocks(&values, block_size, kind);
                for (i, &x) in values.iter().enumerate() {
                    let block_start = i / block_size * block_size;
                    let block = &values[block_start..values.len().min(block_start + block_size)];
                    let absmax = block.iter().fold(0.0f32, |absmax, x| absmax.max(x.abs()));
                    let v = if block.len() == block_size {
                        x * (1.0 / absmax)
                    } else {
                        x / absmax
                    };
                    let byte = blocks.packed[i / 2];
                    let code = if i % 2 == 0 { byte >> 4 } else { byte & 15 };
                    assert_eq!(
                        code,
                        kind.encode(v.clamp(-1.0, 1.0)),
                        "element {i}, blocks of {block_size}"
                    );
                    assert_eq!(blocks.absmax[i / block_size], absmax);
                }
            }
        }
    }

    #[test]
    fn zero_blocks_and_padding() {
        let nf4 = quantize_blocks(&[0.0; 64], 64, FourBitType::Nf4);
        assert_eq!((nf4.packed, nf4.absmax), (vec![0x77; 32], vec![0.0]));
        let fp4 = quantize_blocks(&[-0.0; 64], 64, FourBitType::Fp4);
        assert_eq!((fp4.packed, fp4.absmax), (vec![0x00; 32], vec![0.0]));
        // A short block stores what it divided by.
        let short = quantize_blocks(&[0.0; 3], 64, FourBitType::Nf4);
        assert_eq!((short.packed, short.absmax), (vec![0x77; 2], vec![1e-38]));
        let odd = quantize_blocks(&[-3.0], 64, FourBitType::Nf4);
        assert_eq!((odd.packed, odd.absmax), (vec![0x07], vec![3.0]));
        assert_eq!(
            quantize_blocks(&[-3.0], 64, FourBitType::Fp4).packed,
            [0xb0]
        );
        let none = quantize_blocks(&[], 64, FourBitType::Nf4);
        assert_eq!((none.packed.len(), none.absmax.len()), (0, 0));
    }

    #[test]
    fn every_range_dequantizes_as_the_whole() {
        let values: Vec<f32> = (0..45).map(|i| (i as f32 - 20.0) * 0.3).collect();
        for kind in KINDS {
            let blocks = quantize_blocks(&values, 8, kind);
            let mut all = vec![f32::NAN; values.len()];
            dequantize_range(&blocks.packed, &blocks.absmax, 8, kind, 0, &mut all);
            for start in 0..=values.len() {
                for end in start..=values.len() {
                    let mut part = vec![f32::NAN; end - start];
                    dequantize_range(&blocks.packed, &blocks.absmax, 8, kind, start, &mut part);
                    assert_eq!(part, all[start..end], "{start}..{end}");
                }
            }
        }
    }

    #[test]
    fn blocks_of_an_odd_size_dequantize_too() {
        let mut out = [f32::NAN; 5];
        dequantize_range(
            &[0xf0, 0xf0, 0xf0],
            &[1.0, 2.0],
            3,
            FourBitType::Nf4,
            0,
            &mut out,
        );
        assert_eq!(out, [1.0, -1.0, 1.0, -2.0, 2.0]);
    }

    #[test]
    #[should_panic(expected = "the block size 33 is even and positive")]
    fn an_odd_block_size_panics() {
        quantize_blocks(&[0.0; 4], 33, FourBitType::Nf4);
    }
}
