//! A file of weights, whatever its format: its tensors, and where the bytes of each are.
use crate::memory_map::MappedTensor;
use crate::tensor::TensorData;
use crate::{TensorInfo, TensorView};

/// A mapped and validated file.
#[derive(Debug, Clone)]
pub(crate) struct WeightsFile {
    /// In the order of the file.
    tensors: Vec<TensorInfo>,
    /// The bytes of each.
    data: Vec<MappedTensor>,
}

impl WeightsFile {
    /// `tensors`, and the bytes of each in the same order.
    pub(crate) fn new(tensors: Vec<TensorInfo>, data: Vec<MappedTensor>) -> Self {
        debug_assert_eq!(tensors.len(), data.len());
        WeightsFile { tensors, data }
    }

    /// The tensors, in the order of the file.
    pub(crate) fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The bytes of a tensor, for longer than this value lives.
    pub(crate) fn mapped(&self, index: usize) -> MappedTensor {
        self.data[index].clone()
    }

    /// Lets the pages of tensor number `index` go.
    pub(crate) fn release(&self, index: usize) {
        self.data[index].release(0..self.tensors[index].byte_len);
    }

    /// Tensor number `index` of [`Self::tensors`].
    pub(crate) fn view(&self, index: usize) -> TensorView<'_> {
        TensorView::new(&self.tensors[index], TensorData::Stored(&self.data[index]))
    }
}
