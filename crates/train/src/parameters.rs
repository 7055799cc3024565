//! The numbers that training changes, by the names of their tensors.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

/// Tensors by their names in the checkpoint: `encoder.layer.0.output.dense.weight`, `encoder.layer.0.output.dense.bias`.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    tensors: BTreeMap<String, Tensor>,
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
        self.tensors.insert(name, tensor);
    }

    /// Names and tensors, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }
}
