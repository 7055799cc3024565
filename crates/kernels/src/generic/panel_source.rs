//! Where the panels of a float product come from: memory, or decoded from fewer bits when they are needed.

use crate::aligned::Scratch;
use crate::float_tile::{Columns, Rows};
use crate::generic::f32_tile::panels_at_once;
use crate::generic::four_bit_panels::{self, multiply_first_rows};
use crate::generic::panel_element::PanelElement;
use crate::packed_four_bit::PackedFourBit;
use crate::packed_weight_only_int8::PackedWeightOnlyInt8;
use crate::simd::{LANES, Simd};

/// Panels of a weight, a few at a time.
pub(crate) trait PanelSource {
    type Element: PanelElement;

    /// How many of the `left` panels to take at once with that many rows.
    #[inline(always)]
    fn at_once<S: Simd>(rows: usize, left: usize) -> usize {
        panels_at_once::<S>(rows, left)
    }

    /// The lines of `count` consecutive panels. A source may multiply the first rows of x while it decodes them: how many rows it has done, with the bits of
    /// [`F32Tile`](crate::generic::f32_tile::F32Tile). Where that is all of them there need not be any lines.
    fn panels<S: Simd>(
        &mut self,
        s: S,
        first: usize,
        count: usize,
        x: Rows<'_, f32>,
        out: &mut Columns<'_>,
    ) -> (usize, &[Self::Element]);
}

/// Float panels as they are stored.
pub(crate) struct Stored<'a, E> {
    pub(crate) panels: &'a [E],
    pub(crate) depth: usize,
}

impl<E: PanelElement> PanelSource for Stored<'_, E> {
    type Element = E;

    #[inline(always)]
    fn panels<S: Simd>(
        &mut self,
        _s: S,
        first: usize,
        count: usize,
        _x: Rows<'_, f32>,
        _out: &mut Columns<'_>,
    ) -> (usize, &[E]) {
        let lines = &self.panels[first * self.depth * LANES..][..count * self.depth * LANES];
        (0, lines)
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
    fn panels<S: Simd>(
        &mut self,
        s: S,
        first: usize,
        count: usize,
        _x: Rows<'_, f32>,
        _out: &mut Columns<'_>,
    ) -> (usize, &[f32]) {
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
        (0, decoded)
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
    fn at_once<S: Simd>(_rows: usize, left: usize) -> usize {
        four_bit_panels::panels_at_once::<S>(left)
    }

    #[inline(always)]
    fn panels<S: Simd>(
        &mut self,
        s: S,
        first: usize,
        count: usize,
        x: Rows<'_, f32>,
        out: &mut Columns<'_>,
    ) -> (usize, &[f32]) {
        let (weight, scratch) = (self.weight, &mut *self.scratch);
        let done = multiply_first_rows(s, x, weight, first, count, scratch, out);
        let lines = match done < x.count {
            true => self.scratch.filled(count * weight.in_features * LANES),
            false => &[],
        };
        (done, lines)
    }
}
