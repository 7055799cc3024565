//! int8 weights for products with quantized activations.

use crate::aligned::AlignedVec;
use crate::generic::int8_panels::{Int8Panels, place_of_group};
use crate::int8_tile::INT8_GROUP;
use crate::panels::{assert_shape, padded_elements};

/// int8 codes (out_features, in_features), one scale a row, for products with u8 activations.
#[derive(Debug)]
pub struct PackedInt8 {
    pub(crate) out_features: usize,
    pub(crate) in_features: usize,
    /// Groups of four input features.
    pub(crate) groups: usize,
    /// Panels `[out_features / 64][groups][64][4]`, the last one as narrow as whole vectors of sixteen outputs allow: four consecutive
    /// codes of a row stay together, which is what dot-product instructions read, and a panel is one stream of memory.
    pub(crate) codes: AlignedVec<i8>,
    /// (out_features, padded to 16)
    pub(crate) scales: AlignedVec<f32>,
    /// Sum of the codes of each row (out_features, padded to 16): what one unit of the activations' zero point contributes.
    pub(crate) row_sums: Vec<i32>,
}

impl PackedInt8 {
    /// The most input features for which no sum of products can leave i32: each product of a u8 and an i8 code is at most
    /// 255 * 128 in magnitude, and so is each term of `(activation - zero point) * weight`.
    pub const MAX_IN_FEATURES: usize = fewbit_numerics::activation::MAX_INT8_COLUMNS;

    /// Packs row-major `codes` with one scale for each row.
    ///
    /// # Panics
    ///
    /// If `codes` does not have `out_features * in_features` elements, `scales` not `out_features`, or `in_features` exceeds
    /// [`PackedInt8::MAX_IN_FEATURES`].
    pub fn new(codes: &[i8], scales: &[f32], out_features: usize, in_features: usize) -> Self {
        assert_shape("codes", codes.len(), out_features, in_features);
        assert_eq!(scales.len(), out_features, "scales: one for each row");
        assert!(
            in_features <= Self::MAX_IN_FEATURES,
            "at most {} input features, found {in_features}: sums of products must fit in i32",
            Self::MAX_IN_FEATURES
        );
        let groups = in_features.div_ceil(INT8_GROUP);
        let mut packed = AlignedVec::zeroed(padded_elements(out_features, groups * INT8_GROUP));
        let mut padded_scales = AlignedVec::zeroed(padded_elements(out_features, 1));
        padded_scales[..out_features].copy_from_slice(scales);
        let mut row_sums = vec![0; padded_scales.len()];
        for row in 0..out_features {
            let codes = &codes[row * in_features..][..in_features];
            row_sums[row] = codes.iter().map(|&code| i32::from(code)).sum();
            for (group, codes) in codes.chunks(INT8_GROUP).enumerate() {
                let start = place_of_group(row_sums.len(), groups, row, group) * INT8_GROUP;
                packed[start..start + codes.len()].copy_from_slice(codes);
            }
        }
        Self {
            out_features,
            in_features,
            groups,
            codes: packed,
            scales: padded_scales,
            row_sums,
        }
    }

    /// The codes as a product reads them.
    pub(crate) fn panels(&self) -> Int8Panels<'_> {
        Int8Panels {
            codes: &self.codes,
            outputs: self.row_sums.len(),
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
