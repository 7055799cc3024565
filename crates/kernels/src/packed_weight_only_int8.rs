//! int8 weights for products with float activations.

use crate::aligned::AlignedVec;
use crate::panels::{assert_shape, pack};

/// Signed codes of at most 8 bits (int8 or unpacked int4) with one scale for each group of columns of a row (group_size ==
/// in_features: one a row), for products with f32 activations. The result of a product is that of the f32 matrix
/// `f32(code) * scale`.
#[derive(Debug)]
pub struct PackedWeightOnlyInt8 {
    pub(crate) out_features: usize,
    pub(crate) in_features: usize,
    pub(crate) group_size: usize,
    /// Panels `[out_features / 16][in_features][16]`.
    pub(crate) codes: AlignedVec<i8>,
    /// Panels `[out_features / 16][in_features / group_size][16]`.
    pub(crate) scales: AlignedVec<f32>,
}

impl PackedWeightOnlyInt8 {
    /// Packs row-major `codes` with `scales` (out_features, in_features / group_size).
    ///
    /// # Panics
    ///
    /// If `codes` or `scales` has the wrong number of elements, or `group_size` is zero or does not divide `in_features`.
    pub fn new(
        codes: &[i8],
        scales: &[f32],
        group_size: usize,
        out_features: usize,
        in_features: usize,
    ) -> Self {
        assert_shape("codes", codes.len(), out_features, in_features);
        // A weight without columns has no groups, whatever their size.
        let group_size = if in_features == 0 { 1 } else { group_size };
        assert!(
            group_size > 0 && in_features.is_multiple_of(group_size),
            "the group size ({group_size}) divides the number of columns ({in_features})"
        );
        let groups = in_features / group_size;
        assert_shape("scales", scales.len(), out_features, groups);
        Self {
            out_features,
            in_features,
            group_size,
            codes: pack(out_features, in_features, |row, column| {
                codes[row * in_features + column]
            }),
            scales: pack(out_features, groups, |row, group| {
                scales[row * groups + group]
            }),
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
        self.codes.memory_bytes() + self.scales.memory_bytes()
    }
}
