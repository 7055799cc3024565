//! The scheme of int4 weights.
use super::CompressedScheme;
use crate::stored_weight::Int8Activations;
use crate::weight_layout::TensorPart;
use crate::{CheckpointError, GroupLayout, StoredWeight, TensorPlan, WeightLayout};
use fewbit_numerics::int4_groups::Int4Groups;

/// int4 weights, with scales for groups of columns or for whole rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Int4Scheme {
    /// Neighbouring columns of a row that share a scale, a divisor of their number; none: those of an output channel do.
    pub group_size: Option<usize>,
    /// Whether groups have zero points.
    pub asymmetric: bool,
    /// How inputs are quantized; none: not at all.
    pub activations: Option<Int8Activations>,
    /// Which tensors hold the codes.
    pub layout: Int4Layout,
}

/// Which tensors hold int4 codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int4Layout {
    /// pack-quantized: eight codes in an int32 word.
    Packed,
    /// int-quantized: a code a byte, as loaders for products of integers take them.
    Bytes,
}

impl Int4Scheme {
    /// Columns of a group of a weight with so many, at least 1.
    pub fn group_size_of(&self, columns: usize) -> usize {
        self.group_size.unwrap_or(columns).max(1)
    }

    /// Groups of a row of so many columns.
    pub(super) fn groups_of(&self, columns: usize) -> usize {
        self.group_size.map_or(1, |size| columns / size.max(1))
    }

    /// The weight that reading gives of what is written of `groups`, whose groups are those of the scheme.
    pub fn stored_weight(&self, groups: Int4Groups) -> StoredWeight<'static> {
        GroupLayout::from(*self).stored_weight(groups)
    }
}

impl WeightLayout for Int4Scheme {
    fn plan(&self, module: &str, shape: [usize; 2]) -> Vec<TensorPlan> {
        CompressedScheme::from(*self).plan(module, shape)
    }

    fn encode<'a>(
        &self,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<Vec<TensorPart<'a>>, CheckpointError> {
        CompressedScheme::from(*self).encode(module, shape, first_row, rows)
    }
}

impl From<Int4Scheme> for CompressedScheme {
    fn from(scheme: Int4Scheme) -> Self {
        Self::Int4(scheme)
    }
}
