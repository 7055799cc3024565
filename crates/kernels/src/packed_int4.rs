//! int4 weights for products with quantized activations.

use fewbit_numerics::int4_groups::MAX_INT4_COLUMNS;

use crate::aligned::AlignedVec;
use crate::kernels::Kernels;
use crate::packed_int8::ActivationBits;
use crate::panel_layout::{INT4_PAIR, INT8_GROUP, INT8_LINE, PanelLayout};
use crate::panels::{assert_shape, pack, padded_elements};
use crate::simd::LANES;

/// int4 codes (out_features, in_features) with a scale, and perhaps a zero point, for each group of columns of a row, for products with u8 activations on one
/// instruction set.
///
/// They take half a byte each in memory, and become the bytes that the tiles of [`PackedInt8`](crate::PackedInt8) read, panel by panel, while they are used.
#[derive(Debug)]
pub struct PackedInt4 {
    pub(crate) out_features: usize,
    pub(crate) in_features: usize,
    /// Columns that share a scale: a multiple of [`INT4_PAIR`], or all, padded to it.
    pub(crate) group_size: usize,
    /// Groups of a row.
    pub(crate) groups: usize,
    /// Pairs of lines of a row.
    pub(crate) pairs: usize,
    /// How the lines of two nibbles lie: as those of the bytes that they become, at half the number.
    pub(crate) layout: PanelLayout,
    /// Nibbles `code + 8`.
    pub(crate) codes: AlignedVec<u8>,
    /// `[outputs / 16][groups][16]`
    pub(crate) scales: AlignedVec<f32>,
    /// What is subtracted of the nibbles of each group, a line of bytes for sixteen outputs: `[outputs / 16][groups][64]`; none: 8.
    pub(crate) offsets: Option<AlignedVec<i8>>,
    /// `[outputs / 16][groups][16]` sums of `code - zero point` over a group, where the tile lowers the activations; else empty.
    pub(crate) group_sums: AlignedVec<i32>,
    /// Sum over the groups of `scale * sum of (code - zero point)` of each row (out_features, padded to 16): times the zero point of the activations it is the
    /// zero-point correction.
    pub(crate) row_sums: AlignedVec<f32>,
}

impl PackedInt4 {
    /// The most input features for which no sum of products can leave i32: each product of a code of twelve bits and the difference of an int4 code and
    /// a zero point is at most 4095 * 15 in magnitude.
    pub const MAX_IN_FEATURES: usize = MAX_INT4_COLUMNS;

    /// Whether groups of so many of `in_features` columns can be packed: multiples of eight, or whole rows.
    pub fn has_tiles_for(group_size: usize, in_features: usize) -> bool {
        group_size == in_features || group_size.is_multiple_of(INT4_PAIR)
    }

    /// Packs row-major `codes` (-8..=7) with `scales`, and `zero_points` if there are any (-8..=7), of (out_features, in_features / group_size), for products by
    /// `kernels` with activations of `bits`.
    ///
    /// # Panics
    ///
    /// If a slice does not have its length, a code or zero point is out of range, `in_features` exceeds [`PackedInt4::MAX_IN_FEATURES`], or the groups do not divide it
    /// or [cannot be packed](Self::has_tiles_for).
    pub fn new(
        kernels: &Kernels,
        activations: ActivationBits,
        (codes, scales, zero_points): (&[i8], &[f32], Option<&[i8]>),
        group_size: usize,
        [out_features, in_features]: [usize; 2],
    ) -> Self {
        assert_shape("codes", codes.len(), out_features, in_features);
        assert!(
            in_features <= Self::MAX_IN_FEATURES,
            "at most {} input features, found {in_features}: sums of products must fit in i32",
            Self::MAX_IN_FEATURES
        );
        let group_size = group_size.max(1);
        assert!(
            in_features.is_multiple_of(group_size)
                && (in_features == 0 || Self::has_tiles_for(group_size, in_features)),
            "groups of {group_size} of {in_features} columns"
        );
        let groups = in_features / group_size;
        assert_shape("scales", scales.len(), out_features, groups);
        let in_range = |codes: &[i8]| codes.iter().all(|code| (-8..=7).contains(code));
        assert!(in_range(codes), "codes are in -8..=7");
        if let Some(points) = zero_points {
            assert_shape("zero points", points.len(), out_features, groups);
            assert!(in_range(points), "zero points are in -8..=7");
        }
        let (layout, activation_offset) = match (&kernels.saturation_proof, activations) {
            // Products of two codes and their sum fit in 16 bits: 2 * 255 * 15.
            (Some(proof), ActivationBits::Eight) => (proof.layout, 0),
            _ => (kernels.int8_layout, kernels.int8_activation_offset),
        };
        let zero_point = |row: usize, group: usize| match zero_points {
            Some(points) => points[row * groups + group],
            None => 0,
        };
        let pairs = in_features.div_ceil(INT4_PAIR);
        let outputs = padded_elements(out_features, 1);
        let mut packed = AlignedVec::<u8>::zeroed(outputs * pairs * INT8_GROUP);
        let mut line = [0i8; INT8_LINE];
        for first in (0..out_features).step_by(LANES) {
            for pair in 0..pairs {
                let start = layout.line(outputs, pairs, first, pair);
                for (half, shift) in [(0, 0), (1, 4)] {
                    for (index, nibble) in line.iter_mut().enumerate() {
                        let row = first + index / INT8_GROUP;
                        let column = pair * INT4_PAIR + half * INT8_GROUP + index % INT8_GROUP;
                        // Padding becomes zeros where it is unpacked.
                        *nibble = 8 + match (row < out_features, column < in_features) {
                            (true, true) => codes[row * in_features + column],
                            (true, false) => zero_point(row, groups - 1),
                            (false, _) => 0,
                        };
                    }
                    layout.order.arrange(&mut line);
                    for (byte, &nibble) in packed[start..][..INT8_LINE].iter_mut().zip(&line) {
                        *byte |= nibble.cast_unsigned() << shift;
                    }
                }
            }
        }
        let group_sum = |row: usize, group: usize| -> i32 {
            let codes = &codes[row * in_features + group * group_size..][..group_size];
            let sum: i32 = codes.iter().map(|&code| i32::from(code)).sum();
            sum - i32::from(zero_point(row, group)) * group_size as i32
        };
        let mut row_sums = AlignedVec::zeroed(outputs);
        for (row, sum) in row_sums[..out_features].iter_mut().enumerate() {
            *sum = (0..groups).fold(0.0, |sum: f32, group| {
                (group_sum(row, group) as f32).mul_add(scales[row * groups + group], sum)
            });
        }
        Self {
            out_features,
            in_features,
            group_size,
            groups,
            pairs,
            layout,
            codes: packed,
            scales: pack(out_features, groups, |row, group| {
                scales[row * groups + group]
            }),
            offsets: zero_points.map(|_| {
                let mut offsets = AlignedVec::zeroed(outputs * groups * INT8_GROUP);
                let (lines, _) = offsets.as_chunks_mut::<INT8_LINE>();
                for (index, line) in lines.iter_mut().enumerate() {
                    let (first, group) = (index / groups * LANES, index % groups);
                    for (place, byte) in line.iter_mut().enumerate() {
                        let row = first + place / INT8_GROUP;
                        let point = if row < out_features {
                            zero_point(row, group)
                        } else {
                            0
                        };
                        *byte = 8 + point;
                    }
                    layout.order.arrange(line);
                }
                offsets
            }),
            group_sums: match activation_offset {
                0 => AlignedVec::zeroed(0),
                _ => pack(out_features, groups, group_sum),
            },
            row_sums,
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
        self.codes.memory_bytes()
            + self.scales.memory_bytes()
            + self.offsets.as_ref().map_or(0, AlignedVec::memory_bytes)
            + self.group_sums.memory_bytes()
            + self.row_sums.memory_bytes()
    }
}
