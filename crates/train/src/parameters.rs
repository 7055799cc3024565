//! The numbers that training changes, by the names of their tensors.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use fewbit_kernels::PackedFloat;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::operations::linear::pack;
use crate::weight_gradients::ProductRecord;

/// Tensors by their names in the checkpoint: `encoder.layer.0.output.dense.weight`, `encoder.layer.0.output.dense.bias`.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    tensors: BTreeMap<String, Tensor>,
    /// Matrices as the kernels read them.
    packed: BTreeMap<String, Arc<PackedFloat>>,
    /// Where products leave what their weights' gradients are made of; without it these are on the tape.
    record: Option<ProductRecord>,
}

impl Parameters {
    /// The tensor of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        let tensor = self.tensors.get(name);
        tensor.ok_or_else(|| candle_core::Error::Msg(format!("{name}: no such parameter")))
    }

    /// Adds a tensor, or replaces that of its name.
    pub fn insert(&mut self, name: String, tensor: Tensor) {
        self.packed.remove(&name);
        self.tensors.insert(name, tensor);
    }

    /// Packs every matrix for the kernels, once for all forward passes with these numbers instead of in each of them; it takes the memory of the
    /// matrices again. Numbers that a [`Var`](candle_core::Var) gets afterwards are not seen until it is inserted again.
    ///
    /// # Errors
    /// A matrix that is not f32.
    pub fn pack(&mut self) -> Result<()> {
        let matrices = self.tensors.par_iter();
        let matrices = matrices.filter(|(_, tensor)| tensor.rank() == 2);
        let packed = matrices.map(|(name, tensor)| Ok((name.clone(), Arc::new(pack(tensor)?))));
        self.packed = packed.collect::<Result<_>>()?;
        Ok(())
    }

    /// The same numbers, packed as these are, for passes whose gradients nobody asks for.
    pub(crate) fn detached(&self) -> Self {
        let tensors = self.tensors.iter();
        Self {
            tensors: tensors
                .map(|(name, tensor)| (name.clone(), tensor.detach()))
                .collect(),
            packed: self.packed.clone(),
            record: None,
        }
    }

    /// The same numbers, for passes that leave in `record` what the gradients of weights are made of, and have none of them on their tapes.
    pub(crate) fn recorded_in(&self, record: &ProductRecord) -> Self {
        Self {
            record: Some(record.clone()),
            ..self.clone()
        }
    }

    /// Where a product leaves what its weight's gradient is made of.
    pub(crate) fn record(&self) -> Option<&ProductRecord> {
        self.record.as_ref()
    }

    /// A matrix that has been packed.
    pub(crate) fn packed(&self, name: &str) -> Option<&Arc<PackedFloat>> {
        self.packed.get(name)
    }

    /// Names and tensors, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }
}
