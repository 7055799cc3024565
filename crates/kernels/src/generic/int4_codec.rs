//! int4 codes of groups of elements with the scales and zero points that they have, and back. The formulas are those of [`fewbit_numerics::int4_groups`] and
//! [`fewbit_numerics::rows`], bit for bit.

use fewbit_numerics::affine::CodeRange;

use crate::simd::{LANES, Simd};

/// Elements that become codes together.
const LINE: usize = 4 * LANES;

/// Groups to encode, and where the codes go.
pub(crate) struct EncodeInt4<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) groups: Groups<'a>,
    pub(crate) codes: &'a mut [i8],
}

/// Codes to dequantize, and where the floats go.
pub(crate) struct DequantizeInt4<'a> {
    pub(crate) codes: &'a [i8],
    pub(crate) groups: Groups<'a>,
    pub(crate) out: &'a mut [f32],
}

/// The parameters of groups of neighbouring elements.
#[derive(Clone, Copy)]
pub(crate) struct Groups<'a> {
    pub(crate) size: usize,
    pub(crate) scales: &'a [f32],
    /// None: 0 for all.
    pub(crate) zero_points: Option<&'a [i8]>,
}

impl Groups<'_> {
    #[inline(always)]
    fn zero_point(self, group: usize) -> i32 {
        self.zero_points
            .map_or(0, |zero_points| zero_points[group].into())
    }
}

/// How a group is encoded.
#[derive(Clone, Copy)]
struct Rule<S: Simd> {
    inverse: S::F32,
    low: S::F32,
    high: S::F32,
    zero_point: S::I32,
}

impl<S: Simd> Rule<S> {
    #[inline(always)]
    fn new(s: S, groups: Groups<'_>, group: usize) -> Self {
        let zero_point = groups.zero_point(group);
        let CodeRange { min, max } = CodeRange::INT4;
        Self {
            inverse: s.splat(1.0 / groups.scales[group]),
            low: s.splat((min - zero_point) as f32),
            high: s.splat((max - zero_point) as f32),
            zero_point: s.splat_i32(zero_point),
        }
    }

    /// Both bounds are integers: clamping before the rounding gives the code of clamping after it.
    #[inline(always)]
    fn encode(self, s: S, x: S::F32) -> S::I32 {
        let clamped = s.min(s.max(s.mul(x, self.inverse), self.low), self.high);
        s.add_i32(s.round_to_i32(clamped), self.zero_point)
    }
}

#[inline(always)]
pub(crate) fn encode<S: Simd>(s: S, call: EncodeInt4<'_>) {
    let EncodeInt4 {
        values,
        groups,
        codes,
    } = call;
    if values.is_empty() {
        return;
    }
    let mut rule = Rule::new(s, groups, 0);
    if groups.size.is_multiple_of(LANES) {
        let mut place = Place::new(groups.size);
        let (lines, rest) = codes.as_chunks_mut::<LINE>();
        let (vectors, _) = values.as_chunks::<LANES>();
        let mut encoded = [s.splat_i32(0); LINE / LANES];
        for (line, codes) in lines.iter_mut().enumerate() {
            for (index, encoded) in encoded.iter_mut().enumerate() {
                if let Some(group) = place.next() {
                    rule = Rule::new(s, groups, group);
                }
                let vector = line * (LINE / LANES) + index;
                *encoded = rule.encode(s, s.load(&vectors[vector]));
            }
            s.store_i8_saturated(encoded, codes);
        }
        let (rest, _) = rest.as_chunks_mut::<LANES>();
        let first = vectors.len() - rest.len();
        for (codes, vector) in rest.iter_mut().zip(&vectors[first..]) {
            if let Some(group) = place.next() {
                rule = Rule::new(s, groups, group);
            }
            *codes = some_codes(s, rule.encode(s, s.load(vector)));
        }
        return;
    }
    let parts = values
        .chunks_exact(groups.size)
        .zip(codes.chunks_exact_mut(groups.size));
    for (group, (values, codes)) in parts.enumerate() {
        rule = Rule::new(s, groups, group);
        for (values, codes) in values.chunks(LANES).zip(codes.chunks_mut(LANES)) {
            let encoded = some_codes(s, rule.encode(s, s.load_up_to(values, 0.0)));
            codes.copy_from_slice(&encoded[..codes.len()]);
        }
    }
}

/// The codes of one vector.
#[inline(always)]
fn some_codes<S: Simd>(s: S, encoded: S::I32) -> [i8; LANES] {
    let mut line = [0; LINE];
    s.store_i8_saturated([encoded; 4], &mut line);
    let (vectors, _) = line.as_chunks::<LANES>();
    vectors[0]
}

/// How a group is dequantized.
#[derive(Clone, Copy)]
struct Worth<S: Simd> {
    zero_point: S::F32,
    scale: S::F32,
}

impl<S: Simd> Worth<S> {
    #[inline(always)]
    fn new(s: S, groups: Groups<'_>, group: usize) -> Self {
        Self {
            zero_point: s.splat(groups.zero_point(group) as f32),
            scale: s.splat(groups.scales[group]),
        }
    }

    /// `(code - zero_point) * scale`, one rounding.
    #[inline(always)]
    fn of(self, s: S, codes: &[i8; LANES]) -> S::F32 {
        s.mul(s.sub(s.load_i8(codes), self.zero_point), self.scale)
    }
}

#[inline(always)]
pub(crate) fn dequantize<S: Simd>(s: S, call: DequantizeInt4<'_>) {
    let DequantizeInt4 { codes, groups, out } = call;
    if codes.is_empty() {
        return;
    }
    let mut worth = Worth::new(s, groups, 0);
    if groups.size.is_multiple_of(LANES) {
        let mut place = Place::new(groups.size);
        let (lines, _) = out.as_chunks_mut::<LANES>();
        let (vectors, _) = codes.as_chunks::<LANES>();
        for (line, codes) in lines.iter_mut().zip(vectors) {
            if let Some(group) = place.next() {
                worth = Worth::new(s, groups, group);
            }
            s.store(worth.of(s, codes), line);
        }
        return;
    }
    let parts = out
        .chunks_exact_mut(groups.size)
        .zip(codes.chunks_exact(groups.size));
    for (group, (out, codes)) in parts.enumerate() {
        worth = Worth::new(s, groups, group);
        for (out, codes) in out.chunks_mut(LANES).zip(codes.chunks(LANES)) {
            let mut padded = [0; LANES];
            padded[..codes.len()].copy_from_slice(codes);
            s.store_up_to(worth.of(s, &padded), out);
        }
    }
}

/// Which group each vector is of, where groups are whole vectors: none is of two groups.
struct Place {
    of_a_group: usize,
    left: usize,
    group: usize,
}

impl Place {
    #[inline(always)]
    fn new(group_size: usize) -> Self {
        Self {
            of_a_group: group_size / LANES,
            left: 0,
            group: 0,
        }
    }

    /// The group of the next vector, if it is the first of it.
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let begins = (self.left == 0).then_some(self.group);
        if begins.is_some() {
            self.left = self.of_a_group;
            self.group += 1;
        }
        self.left -= 1;
        begins
    }
}
