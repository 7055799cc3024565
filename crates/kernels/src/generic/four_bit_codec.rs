//! NF4 and FP4 blocks: floats to codes and back. The formulas are those of [`fewbit_numerics::four_bit`], bit for bit.

use fewbit_numerics::four_bit::{FourBitType, MINIMUM_ABSMAX};

use crate::float_bytes::Elements;
use crate::generic::group_absmax::{absmax_lanes, is_finite};
use crate::generic::panel_element::PanelElement;
use crate::simd::{LANES, Simd};

/// Elements that become codes together.
const LINE: usize = 4 * LANES;

/// Blocks whose absmax values are found before they are encoded: each is a chain of operations that wait for one another, and those of several
/// blocks do so at the same time.
const BLOCKS_AT_ONCE: usize = 8;

/// Bytes of the blocks that go through both passes together: they stay in the first-level cache.
const BYTES_AT_ONCE: usize = 24 << 10;

/// Floats to quantize, and where the codes go.
pub(crate) struct QuantizeFourBit<'a, E> {
    pub(crate) source: Elements<'a, E>,
    pub(crate) block_size: usize,
    pub(crate) kind: FourBitType,
    pub(crate) packed: &'a mut [u8],
    pub(crate) absmax: &'a mut [f32],
}

/// Codes to dequantize, and where the floats go.
pub(crate) struct DequantizeFourBit<'a> {
    pub(crate) packed: &'a [u8],
    pub(crate) absmax: &'a [f32],
    pub(crate) block_size: usize,
    pub(crate) kind: FourBitType,
    pub(crate) out: &'a mut [f32],
}

/// How many of the ascending thresholds a value in -1..=1 (or a few roundings beyond) exceeds, without comparing it with each: the range is cut
/// into buckets of which none holds two thresholds, so that one comparison decides. Values and thresholds are placed by the same
/// monotone expression: all of a lower bucket are less.
pub(crate) struct Buckets {
    /// The threshold in each bucket; infinite where there is none.
    threshold: [f32; 2 * LANES],
    /// How many thresholds lie in lower buckets, as the bits of a float: they are looked up as floats are.
    below: [f32; 2 * LANES],
    /// FP4 has thresholds so close to zero that the one at zero is left out above, and compared with besides.
    pub(crate) splits_at_zero: bool,
}

impl Buckets {
    /// What a value is multiplied by, a little less than 16, so that 1 comes into the last bucket.
    const SCALE: f32 = 15.9999;
    /// What is added.
    const OFFSET: f32 = 16.0;

    #[inline(always)]
    pub(crate) fn new(kind: FourBitType) -> Self {
        let splits_at_zero = kind.thresholds().contains(&0.0);
        let mut threshold = [f32::INFINITY; 2 * LANES];
        let mut counts = [0u32; 2 * LANES];
        for &value in kind.thresholds() {
            if splits_at_zero && value == 0.0 {
                continue;
            }
            let bucket = (value * Self::SCALE + Self::OFFSET) as usize;
            debug_assert!(threshold[bucket] == f32::INFINITY);
            threshold[bucket] = value;
            for count in &mut counts[bucket + 1..] {
                *count += 1;
            }
        }
        Self {
            threshold,
            below: counts.map(f32::from_bits),
            splits_at_zero,
        }
    }
}

/// [`Buckets`] in registers.
#[derive(Clone, Copy)]
pub(crate) struct Encoder<S: Simd> {
    scale: S::F32,
    offset: S::F32,
    threshold: [S::F32; 2],
    below: [S::F32; 2],
    codes: &'static [u8; LANES],
}

impl<S: Simd> Encoder<S> {
    #[inline(always)]
    pub(crate) fn new(s: S, kind: FourBitType, buckets: &Buckets) -> Self {
        let threshold = buckets.threshold.as_chunks::<LANES>().0;
        let below = buckets.below.as_chunks::<LANES>().0;
        Self {
            scale: s.splat(Buckets::SCALE),
            offset: s.splat(Buckets::OFFSET),
            threshold: [s.load(&threshold[0]), s.load(&threshold[1])],
            below: [s.load(&below[0]), s.load(&below[1])],
            codes: kind.ascending_codes(),
        }
    }

    /// How many thresholds each lane exceeds. (The product and the sum are rounded one by one: a fused operation is slow where there is no
    /// instruction for it, and either is monotone.)
    #[inline(always)]
    pub(crate) fn ranks<const ZERO: bool>(&self, s: S, value: S::F32) -> S::I32 {
        let bucket = s.truncate(s.add(s.mul(value, self.scale), self.offset));
        let threshold = s.lookup_32(self.threshold, bucket);
        let below = s.lookup_bits_32(self.below, bucket);
        let ranks = s.increment_where(s.less(threshold, value), below);
        match ZERO {
            true => s.increment_where(s.less(s.splat(0.0), value), ranks),
            false => ranks,
        }
    }

    /// The codes of a block, of which `absmax` is the largest magnitude. `WHOLE`: it is not a short last one.
    #[inline(always)]
    fn encode_block<E: PanelElement, const ZERO: bool, const WHOLE: bool>(
        &self,
        s: S,
        block: Elements<'_, E>,
        absmax: f32,
        packed: &mut [u8],
    ) {
        let divisor = absmax.max(MINIMUM_ABSMAX);
        let factor = s.splat(if WHOLE { 1.0 / divisor } else { divisor });
        let lines = block.len() / LINE;
        let (whole, rest) = packed.split_at_mut(lines * LINE / 2);
        for (line, packed) in whole
            .as_chunks_mut::<{ LINE / 2 }>()
            .0
            .iter_mut()
            .enumerate()
        {
            let mut ranks = [s.splat_i32(0); 4];
            for (index, ranks) in ranks.iter_mut().enumerate() {
                let x = block.vector(s, line * LINE + index * LANES);
                let value = if WHOLE {
                    s.mul(x, factor)
                } else {
                    s.div(x, factor)
                };
                *ranks = self.ranks::<ZERO>(s, value);
            }
            s.store_nibbles(ranks, self.codes, packed);
        }
        if !rest.is_empty() {
            let mut ranks = [s.splat_i32(0); 4];
            for (index, ranks) in ranks.iter_mut().enumerate() {
                let x = block.vector_up_to(s, lines * LINE + index * LANES);
                let value = if WHOLE {
                    s.mul(x, factor)
                } else {
                    s.div(x, factor)
                };
                *ranks = self.ranks::<ZERO>(s, value);
            }
            // Elements that are not there are zeros, so that the nibble after an odd one is the code of zero.
            let mut last = [0; LINE / 2];
            s.store_nibbles(ranks, self.codes, &mut last);
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }
}

/// Quantizes blocks, of which the last may be short. Returns whether all elements are finite; otherwise the results mean nothing.
#[inline(always)]
pub(crate) fn quantize<S: Simd, E: PanelElement>(s: S, call: QuantizeFourBit<'_, E>) -> bool {
    let buckets = Buckets::new(call.kind);
    let encoder = Encoder::new(s, call.kind, &buckets);
    match buckets.splits_at_zero {
        true => quantize_blocks::<S, E, true>(s, call, encoder),
        false => quantize_blocks::<S, E, false>(s, call, encoder),
    }
}

#[inline(always)]
fn quantize_blocks<S: Simd, E: PanelElement, const ZERO: bool>(
    s: S,
    call: QuantizeFourBit<'_, E>,
    encoder: Encoder<S>,
) -> bool {
    let QuantizeFourBit {
        source,
        block_size,
        packed,
        absmax,
        ..
    } = call;
    let at_once = (BYTES_AT_ONCE / size_of::<E>() / block_size).clamp(1, BLOCKS_AT_ONCE);
    let (whole, short) = absmax.split_at_mut(source.len() / block_size);
    let (whole_packed, short_packed) = packed.split_at_mut(whole.len() * block_size / 2);
    let mut largest = s.splat(0.0);
    let groups = whole_packed.chunks_mut(at_once * block_size / 2);
    for (group, (absmax, packed)) in whole.chunks_mut(at_once).zip(groups).enumerate() {
        let first = group * at_once * block_size;
        for (index, absmax) in absmax.iter_mut().enumerate() {
            let start = first + index * block_size;
            let lanes = absmax_lanes(s, source.range(start..start + block_size));
            largest = s.max_magnitude(largest, lanes);
            *absmax = s.reduce_max(lanes);
        }
        let blocks = packed.chunks_exact_mut(block_size / 2);
        for (index, (absmax, packed)) in absmax.iter().zip(blocks).enumerate() {
            let start = first + index * block_size;
            let block = source.range(start..start + block_size);
            encoder.encode_block::<E, ZERO, true>(s, block, *absmax, packed);
        }
    }
    if let [absmax] = short {
        let block = source.range(whole.len() * block_size..source.len());
        let lanes = absmax_lanes(s, block);
        largest = s.max_magnitude(largest, lanes);
        let of_block = s.reduce_max(lanes);
        *absmax = of_block.max(MINIMUM_ABSMAX);
        encoder.encode_block::<E, ZERO, false>(s, block, of_block, short_packed);
    }
    is_finite(s, largest)
}

/// `table[code] * absmax`, one rounding.
#[inline(always)]
pub(crate) fn dequantize<S: Simd>(s: S, call: DequantizeFourBit<'_>) {
    let DequantizeFourBit {
        packed,
        absmax,
        block_size,
        kind,
        out,
    } = call;
    let table: &[f32; 16] = kind.table();
    let table = s.load(table);
    let blocks = out
        .chunks_mut(block_size)
        .zip(packed.chunks(block_size / 2));
    for ((out, packed), &absmax) in blocks.zip(absmax) {
        let scaled = s.mul(table, s.splat(absmax));
        let (lines, rest) = out.as_chunks_mut::<LANES>();
        let (codes, rest_codes) = packed.as_chunks::<{ LANES / 2 }>();
        for (line, codes) in lines.iter_mut().zip(codes) {
            s.store(s.lookup_nibbles(scaled, codes), line);
        }
        if !rest.is_empty() {
            // A rest of fifteen elements has all eight bytes.
            let from = codes
                .get(lines.len())
                .map_or(rest_codes, |codes| &codes[..]);
            let mut last = [0; LANES / 2];
            last[..from.len()].copy_from_slice(from);
            s.store_partial(s.lookup_nibbles(scaled, &last), rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bucket_holds_two_thresholds() {
        for kind in [FourBitType::Nf4, FourBitType::Fp4] {
            let buckets = Buckets::new(kind);
            let held = buckets.threshold.iter().filter(|t| t.is_finite()).count();
            assert_eq!(held + usize::from(buckets.splits_at_zero), 15, "{kind:?}");
            // A block's largest magnitude comes out as at most 1 + 2^-21: after the reciprocal, which of the largest floats has only 22
            // bits, and the product.
            for value in [1.0 + f32::powi(2.0, -21), -1.0 - f32::powi(2.0, -21)] {
                let place = value * Buckets::SCALE + Buckets::OFFSET;
                assert!((0.0..32.0).contains(&place), "{place}");
            }
        }
    }
}
