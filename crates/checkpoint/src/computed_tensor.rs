//! Tensors that lie in no file as they are read.
use crate::tensor::TensorData;
use crate::{CheckpointError, MappedTensor, TensorInfo, TensorView};
use std::fmt;

/// The elements of a float tensor, made as they are read: the same ones whatever range they are read in.
pub(crate) trait ComputedTensor: fmt::Debug + Send + Sync {
    /// Elements `start..start + out.len()` of the flattened tensor, a range within it.
    fn read_range(&self, start: usize, out: &mut [f32]) -> Result<(), CheckpointError>;

    /// Says that the tensor has been read: what it is made of need not stay in memory.
    fn release(&self);

    /// What it is, after "found": `a dequantized weight`.
    fn what(&self) -> &'static str;

    /// What to do about elements that are not finite.
    fn hint_of_non_finite(&self) -> &'static str;
}

/// A tensor that a checkpoint shows in the place of one of its files, or in addition to them.
#[derive(Debug)]
pub(crate) struct OverlaidTensor {
    pub(crate) info: TensorInfo,
    pub(crate) elements: Elements,
}

/// Where the elements of an [`OverlaidTensor`] are.
#[derive(Debug)]
pub(crate) enum Elements {
    /// In a file.
    Stored(MappedTensor),
    /// In none.
    Computed(Box<dyn ComputedTensor>),
}

impl OverlaidTensor {
    pub(crate) fn view(&self) -> TensorView<'_> {
        let data = match &self.elements {
            Elements::Stored(tensor) => TensorData::Stored(tensor),
            Elements::Computed(computed) => TensorData::Computed(&**computed),
        };
        TensorView::new(&self.info, data)
    }

    /// The stored bytes, of a tensor that is stored whole.
    pub(crate) fn mapped(&self) -> Option<MappedTensor> {
        match &self.elements {
            Elements::Stored(tensor) => Some(tensor.clone()),
            Elements::Computed(_) => None,
        }
    }

    pub(crate) fn release(&self) {
        match &self.elements {
            Elements::Stored(tensor) => tensor.release(0..tensor.bytes().len()),
            Elements::Computed(computed) => computed.release(),
        }
    }
}
