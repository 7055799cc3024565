//! int8 weights for products with quantized activations.

use fewbit_numerics::activation::MAX_TWELVE_BIT_COLUMNS;
use fewbit_numerics::saturation::saturating_pairs;

use crate::aligned::AlignedVec;
use crate::generic::int8_panels::Int8Panels;
use crate::kernels::Kernels;
use crate::panel_layout::{INT8_GROUP, INT8_LINE, PanelLayout};
use crate::panels::{assert_shape, padded_elements};
use crate::simd::LANES;
use std::ops::Range;

/// Bits of the codes that a weight is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationBits {
    /// 0..=255
    Eight,
    /// 0..=4095
    Twelve,
}

/// int8 codes (out_features, in_features), one scale a row, for products with u8 activations on one instruction set.
#[derive(Debug)]
pub struct PackedInt8 {
    pub(crate) out_features: usize,
    pub(crate) in_features: usize,
    /// Groups of four input features.
    pub(crate) groups: usize,
    /// How `codes` lie: as the instruction set wants them, so that a panel is one stream of memory.
    pub(crate) layout: PanelLayout,
    pub(crate) codes: AlignedVec<i8>,
    /// (out_features, padded to 16)
    pub(crate) scales: AlignedVec<f32>,
    /// Sum of the codes of each row (out_features, padded to 16): times the zero point of the activations it is the zero-point correction.
    pub(crate) row_sums: Vec<i32>,
}

impl PackedInt8 {
    /// The most input features for which no sum of products can leave i32: each product of a u8 and an i8 code is at most
    /// 255 * 128 in magnitude, and so is each term of `(activation - zero point) * weight`.
    pub const MAX_IN_FEATURES: usize = fewbit_numerics::activation::MAX_INT8_COLUMNS;

    /// Packs row-major `codes` with one scale for each row, for products by `kernels` with activations of `bits`.
    ///
    /// # Panics
    ///
    /// If `codes` does not have `out_features * in_features` elements, `scales` not `out_features`, or `in_features` exceeds
    /// [`PackedInt8::MAX_IN_FEATURES`] (for twelve bits: [`MAX_TWELVE_BIT_COLUMNS`]).
    pub fn new(
        kernels: &Kernels,
        activations: ActivationBits,
        codes: &[i8],
        scales: &[f32],
        out_features: usize,
        in_features: usize,
    ) -> Self {
        assert_shape("codes", codes.len(), out_features, in_features);
        assert_eq!(scales.len(), out_features, "scales: one for each row");
        let most = match activations {
            ActivationBits::Eight => Self::MAX_IN_FEATURES,
            ActivationBits::Twelve => MAX_TWELVE_BIT_COLUMNS,
        };
        assert!(
            in_features <= most,
            "at most {most} input features, found {in_features}: sums of products must fit in i32"
        );
        let layout = match &kernels.saturation_proof {
            Some(proof)
                if activations == ActivationBits::Eight
                    && in_features > 0
                    // Most weights are known not to be proof after a few rows.
                    && codes
                        .chunks_exact(in_features)
                        .all(|row| saturating_pairs(row, in_features) == 0) =>
            {
                proof.layout
            }
            _ => kernels.int8_layout,
        };
        let groups = in_features.div_ceil(INT8_GROUP);
        let mut packed = AlignedVec::zeroed(padded_elements(out_features, groups * INT8_GROUP));
        let mut padded_scales = AlignedVec::zeroed(padded_elements(out_features, 1));
        padded_scales[..out_features].copy_from_slice(scales);
        let mut row_sums = vec![0; padded_scales.len()];
        // Sixteen rows are read side by side, so that each line is written once and whole.
        for first in (0..out_features).step_by(LANES) {
            let mut rows: [&[i8]; LANES] = [&[]; LANES];
            let present = (first..out_features)
                .zip(&mut rows)
                .zip(&mut row_sums[first..]);
            for ((row, codes_of_row), sum) in present {
                *codes_of_row = &codes[row * in_features..][..in_features];
                *sum = codes_of_row.iter().map(|&code| i32::from(code)).sum();
            }
            let whole_groups = rows.map(|row| row.as_chunks::<INT8_GROUP>().0);
            let last_columns = rows.map(|row| row.as_chunks::<INT8_GROUP>().1);
            let line_start = |group| layout.line(row_sums.len(), groups, first, group);
            let start = line_start(0);
            let stride = line_start(1) - start;
            for group in 0..groups {
                let (lines, _) = packed[start + group * stride..].as_chunks_mut::<INT8_LINE>();
                let line = &mut lines[0];
                let fours = line.as_chunks_mut::<INT8_GROUP>().0.iter_mut();
                for ((codes, groups_of_row), last) in fours.zip(&whole_groups).zip(&last_columns) {
                    match groups_of_row.get(group) {
                        Some(group) => *codes = *group,
                        None => codes[..last.len()].copy_from_slice(last),
                    }
                }
                layout.order.arrange(line);
            }
        }
        Self {
            out_features,
            in_features,
            groups,
            layout,
            codes: packed,
            scales: padded_scales,
            row_sums,
        }
    }

    /// Whether no pair of neighbouring weights can saturate in 16 bits, and the instruction set has routines for such weights.
    pub fn has_saturation_proof_layout(&self, kernels: &Kernels) -> bool {
        kernels.saturation_proof_of(self).is_some()
    }

    /// The codes of the outputs `columns` as a product reads them: panels are whole, but for the last one of the weight.
    pub(crate) fn panels(&self, columns: Range<usize>) -> Int8Panels<'_> {
        let Range { start, end } = columns;
        assert!(end <= self.out_features && start.is_multiple_of(self.layout.vectors * LANES));
        Int8Panels {
            codes: &self.codes[start * self.groups * INT8_GROUP..],
            outputs: end.next_multiple_of(LANES) - start,
            groups: self.groups,
            prefetch: true,
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
            + self.row_sums.capacity() * size_of::<i32>()
    }
}
