//! The layouts that hold int4 weights with a scale for each group of columns.
use crate::awq::AwqLayout;
use crate::compressed_tensors::Int4Scheme;
use crate::gptq::{GptqLayout, GptqVersion};
use crate::stored_weight::Int8Activations;
use crate::weight_layout::TensorPart;
use crate::{CheckpointError, StoredWeight, TensorPlan, WeightLayout};
use fewbit_numerics::int4_groups::{GroupStorage, Int4Groups};
use std::borrow::Cow;

/// A layout of int4 weights in groups.
///
/// ```
/// use fewbit_checkpoint::GroupLayout;
/// use fewbit_checkpoint::gptq::{GptqLayout, GptqVersion};
///
/// let layout = GptqLayout { version: GptqVersion::Gptq, group_size: None, asymmetric: true };
/// let storage = GroupLayout::from(layout).storage();
/// assert!(storage.half_scales && storage.least_zero_point == -7);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GroupLayout {
    /// compressed-tensors.
    CompressedTensors(Int4Scheme),
    /// GPTQ.
    Gptq(GptqLayout),
    /// AWQ.
    Awq(AwqLayout),
}

impl GroupLayout {
    /// Columns of a group; none: a whole row.
    pub fn group_size(&self) -> Option<usize> {
        match self {
            Self::CompressedTensors(scheme) => scheme.group_size,
            Self::Gptq(layout) => layout.group_size,
            Self::Awq(layout) => layout.group_size,
        }
    }

    /// Columns of a group of a weight with so many, at least 1.
    pub fn group_size_of(&self, columns: usize) -> usize {
        self.group_size().unwrap_or(columns).max(1)
    }

    /// Whether groups have zero points.
    pub fn is_asymmetric(&self) -> bool {
        match self {
            Self::CompressedTensors(scheme) => scheme.asymmetric,
            Self::Gptq(layout) => layout.asymmetric,
            Self::Awq(layout) => layout.asymmetric,
        }
    }

    /// How inputs are quantized; none: not as far as the file goes.
    pub fn activations(&self) -> Option<Int8Activations> {
        match self {
            Self::CompressedTensors(scheme) => scheme.activations,
            Self::Gptq(_) | Self::Awq(_) => None,
        }
    }

    /// What there is room for of scales and zero points.
    pub fn storage(&self) -> GroupStorage {
        match self {
            Self::CompressedTensors(_) => GroupStorage::default(),
            Self::Gptq(layout) => GroupStorage {
                half_scales: true,
                least_zero_point: match layout.version {
                    GptqVersion::Gptq => -7,
                    GptqVersion::GptqV2 => -8,
                },
            },
            Self::Awq(_) => GroupStorage {
                half_scales: true,
                ..GroupStorage::default()
            },
        }
    }

    /// Whether rows can be written part by part.
    pub fn takes_parts(&self) -> bool {
        matches!(self, Self::CompressedTensors(_))
    }

    /// What outputs and inputs must be multiples of, beside that groups divide the inputs.
    pub fn multiple(&self) -> usize {
        match self {
            Self::CompressedTensors(_) => 1,
            Self::Gptq(_) | Self::Awq(_) => 8,
        }
    }

    /// The weight that reading gives of what is written of `groups`, whose groups are those of the layout.
    pub fn stored_weight(&self, groups: Int4Groups) -> StoredWeight<'static> {
        StoredWeight::Groups {
            codes: Cow::Owned(groups.codes),
            scales: groups.scales,
            zero_points: groups.zero_points,
            group_size: groups.group_size,
            bits: 4,
            activations: self.activations(),
        }
    }

    fn layout(&self) -> &dyn WeightLayout {
        match self {
            Self::CompressedTensors(scheme) => scheme,
            Self::Gptq(layout) => layout,
            Self::Awq(layout) => layout,
        }
    }
}

impl From<Int4Scheme> for GroupLayout {
    fn from(scheme: Int4Scheme) -> Self {
        Self::CompressedTensors(scheme)
    }
}

impl From<GptqLayout> for GroupLayout {
    fn from(layout: GptqLayout) -> Self {
        Self::Gptq(layout)
    }
}

impl From<AwqLayout> for GroupLayout {
    fn from(layout: AwqLayout) -> Self {
        Self::Awq(layout)
    }
}

impl WeightLayout for GroupLayout {
    fn plan(&self, module: &str, shape: [usize; 2]) -> Vec<TensorPlan> {
        self.layout().plan(module, shape)
    }

    fn encode<'a>(
        &self,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<Vec<TensorPart<'a>>, CheckpointError> {
        self.layout().encode(module, shape, first_row, rows)
    }
}
