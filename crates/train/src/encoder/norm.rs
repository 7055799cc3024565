//! A normalization by the names of its parameters.

use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Catalogue, Module, Role};

/// The parameters of a normalization.
#[derive(Debug)]
pub(super) struct NormModule {
    /// Name of the factors.
    pub(super) weight: String,
    /// Name of what is added, if something is.
    pub(super) bias: Option<String>,
}

impl NormModule {
    /// The normalization of this role, where the model has one.
    pub(super) fn of_role(
        catalogue: &Catalogue,
        role: Role,
        layer: Option<usize>,
        checkpoint: &Checkpoint,
    ) -> Option<Self> {
        let module = catalogue.get(role, layer)?;
        Some(Self::of_module(module, checkpoint))
    }

    /// The normalization `module`.
    pub(super) fn of_module(module: &Module, checkpoint: &Checkpoint) -> Self {
        let [weight, bias] = module.norm_tensors(checkpoint);
        Self {
            weight,
            bias: module.bias.then_some(bias),
        }
    }
}
