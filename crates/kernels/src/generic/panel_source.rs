//! Where the panels of a float product come from: memory, or decoded from fewer bits when they are needed.

use fewbit_numerics::four_bit::FourBitType;

use crate::aligned::Scratch;
use crate::generic::panel_element::PanelElement;
use crate::packed_four_bit::PackedFourBit;
use crate::packed_weight_only_int8::PackedWeightOnlyInt8;
use crate::simd::{LANES, Simd};

/// Panels of a weight, a few at a time.
pub(crate) trait PanelSource {
    type Element: PanelElement;

    /// The lines of `count` consecutive panels.
    fn panels<S: Simd>(&mut self, s: S, first: usize, count: usize) -> &[Self::Element];
}

/// Float panels as they are stored.
pub(crate) struct Stored<'a, E> {
    pub(crate) panels: &'a [E],
    pub(crate) depth: usize,
}

impl<E: PanelElement> PanelSource for Stored<'_, E> {
    type Element = E;

    #[inline(always)]
    fn panels<S: Simd>(&mut self, _s: S, first: usize, count: usize) -> &[E] {
        &self.panels[first * self.depth * LANES..][..count * self.depth * LANES]
    }
}

/// int8 codes with scales, decoded to `f32(code) * scale`.
pub(crate) struct DecodedInt8<'a> {
    pub(crate) weight: &'a PackedWeightOnlyInt8,
    pub(crate) scratch: &'a mut Scratch,
}

impl PanelSource for DecodedInt8<'_> {
    type Element = f32;

    #[inline(always)]
    fn panels<S: Simd>(&mut self, s: S, first: usize, count: usize) -> &[f32] {
        let PackedWeightOnlyInt8 {
            in_features: depth,
            group_size,
            ..
        } = *self.weight;
        let decoded = self.scratch.slice::<f32>(count * depth * LANES);
        let codes = &self.weight.codes[first * depth * LANES..][..decoded.len()];
        let groups = depth / group_size;
        let scales = &self.weight.scales[first * groups * LANES..][..count * groups * LANES];
        let group = group_size * LANES;
        for ((decoded, codes), scale) in decoded
            .chunks_exact_mut(group)
            .zip(codes.chunks_exact(group))
            .zip(scales.as_chunks::<LANES>().0)
        {
            let scale = s.load(scale);
            let lines = decoded.as_chunks_mut::<LANES>().0;
            for (line, codes) in lines.iter_mut().zip(codes.as_chunks::<LANES>().0) {
                s.store(s.mul(s.load_i8(codes), scale), line);
            }
        }
        decoded
    }
}

/// 4-bit codes with a block absmax, decoded to `table[code] * absmax`.
pub(crate) struct DecodedFourBit<'a> {
    pub(crate) weight: &'a PackedFourBit,
    pub(crate) scratch: &'a mut Scratch,
}

impl PanelSource for DecodedFourBit<'_> {
    type Element = f32;

    #[inline(always)]
    fn panels<S: Simd>(&mut self, s: S, first: usize, count: usize) -> &[f32] {
        let depth = self.weight.in_features;
        let decoded = self.scratch.slice::<f32>(count * depth * LANES);
        if depth > 0 {
            for (index, panel) in decoded.chunks_exact_mut(depth * LANES).enumerate() {
                decode_four_bit(s, self.weight, first + index, panel);
            }
        }
        decoded
    }
}

#[inline(always)]
fn decode_four_bit<S: Simd>(s: S, weight: &PackedFourBit, panel: usize, decoded: &mut [f32]) {
    let PackedFourBit {
        in_features: depth,
        block_size,
        ref absmax,
        ..
    } = *weight;
    let table: &[f32; 16] = FourBitType::table(weight.kind);
    let table = s.load(table);
    let codes = &weight.codes[panel * depth * LANES / 2..][..depth * LANES / 2];
    let codes = codes.as_chunks::<{ LANES / 2 }>().0;
    let lines = decoded.as_chunks_mut::<LANES>().0;
    let rows = LANES.min(weight.out_features - panel * LANES);
    let mut scales = [0.0; LANES];
    let mut column = 0;
    while column < depth {
        // Blocks may begin anywhere in a row: the scales hold up to the column where the first row enters its next block.
        let mut end = depth;
        for (row, scale) in scales.iter_mut().enumerate().take(rows) {
            let element = (panel * LANES + row) * depth + column;
            *scale = absmax[element / block_size];
            end = end.min(column.saturating_add(block_size - element % block_size));
        }
        let scale = s.load(&scales);
        for (line, codes) in lines[column..end].iter_mut().zip(&codes[column..end]) {
            let value = s.lookup(table, s.load_nibbles(codes));
            s.store(s.mul(value, scale), line);
        }
        column = end;
    }
}
