//! Float weights in panels.

use crate::aligned::AlignedVec;
use crate::generic::panel_element::{Bf16, F16};
use crate::panels::{assert_shape, pack};

/// Weight (out_features, in_features) stored as f32, f16 or bf16 in panels; widening is exact, so the result is
/// that of the widened matrix.
#[derive(Debug)]
pub struct PackedFloat {
    pub(crate) out_features: usize,
    pub(crate) in_features: usize,
    pub(crate) panels: FloatPanels,
}

/// Panels `[out_features / 16][in_features][16]`.
#[derive(Debug)]
pub(crate) enum FloatPanels {
    F32(AlignedVec<f32>),
    F16(AlignedVec<F16>),
    Bf16(AlignedVec<Bf16>),
}

impl PackedFloat {
    /// Packs a row-major f32 matrix.
    ///
    /// # Panics
    ///
    /// If `weight` does not have `out_features * in_features` elements.
    pub fn from_f32(weight: &[f32], out_features: usize, in_features: usize) -> Self {
        assert_shape("weight", weight.len(), out_features, in_features);
        let element = |row, column| weight[row * in_features + column];
        Self {
            out_features,
            in_features,
            panels: FloatPanels::F32(pack(out_features, in_features, element)),
        }
    }

    /// Packs a row-major matrix of little-endian IEEE binary16 numbers.
    ///
    /// # Panics
    ///
    /// If `weight` does not have `2 * out_features * in_features` bytes.
    pub fn from_f16_bytes(weight: &[u8], out_features: usize, in_features: usize) -> Self {
        let bits = u16_elements(weight, out_features, in_features);
        let element = |row, column| F16(u16::from_le_bytes(bits[row * in_features + column]));
        Self {
            out_features,
            in_features,
            panels: FloatPanels::F16(pack(out_features, in_features, element)),
        }
    }

    /// Packs a row-major matrix of little-endian bfloat16 numbers.
    ///
    /// # Panics
    ///
    /// If `weight` does not have `2 * out_features * in_features` bytes.
    pub fn from_bf16_bytes(weight: &[u8], out_features: usize, in_features: usize) -> Self {
        let bits = u16_elements(weight, out_features, in_features);
        let element = |row, column| Bf16(u16::from_le_bytes(bits[row * in_features + column]));
        Self {
            out_features,
            in_features,
            panels: FloatPanels::Bf16(pack(out_features, in_features, element)),
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
        match &self.panels {
            FloatPanels::F32(panels) => panels.memory_bytes(),
            FloatPanels::F16(panels) => panels.memory_bytes(),
            FloatPanels::Bf16(panels) => panels.memory_bytes(),
        }
    }
}

/// The two bytes of each element.
fn u16_elements(bytes: &[u8], rows: usize, columns: usize) -> &[[u8; 2]] {
    let (elements, rest) = bytes.as_chunks::<2>();
    assert!(rest.is_empty(), "weight: an even number of bytes");
    assert_shape("weight", elements.len(), rows, columns);
    elements
}
