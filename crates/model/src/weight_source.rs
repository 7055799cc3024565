//! Weights that are not those of the checkpoint.

use crate::Module;
use fewbit_checkpoint::{CheckpointError, StoredWeight};

/// Where weights come from that take the place of a checkpoint's: memory, a trainer, a conversion that is not written.
///
/// ```
/// use fewbit_checkpoint::{Checkpoint, CheckpointError, StoredWeight};
/// use fewbit_model::{Module, Network, Role, WeightSource};
///
/// /// Feed-forwards that add nothing.
/// struct WithoutFeedForward;
///
/// impl WeightSource for WithoutFeedForward {
///     fn weight(&self, module: &Module) -> Result<Option<StoredWeight<'_>>, CheckpointError> {
///         let zeros = || StoredWeight::of_values(&vec![0.0; module.shape[0] * module.shape[1]]);
///         Ok((module.role == Role::Output).then(zeros))
///     }
/// }
///
/// # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/architectures/bert");
/// let checkpoint = Checkpoint::open(directory)?;
/// let (network, _) = Network::load_with_weights(&checkpoint, &WithoutFeedForward)?;
/// # let _ = network;
/// # Ok::<(), fewbit_model::ModelError>(())
/// ```
pub trait WeightSource {
    /// The weight of a linear layer or a table, of its shape and in any form; `None` where it is the checkpoint's.
    ///
    /// # Errors
    /// What keeps the source from giving it.
    fn weight(&self, module: &Module) -> Result<Option<StoredWeight<'_>>, CheckpointError>;
}

/// The checkpoint's own weights.
pub(crate) struct FromCheckpoint;

impl WeightSource for FromCheckpoint {
    fn weight(&self, _module: &Module) -> Result<Option<StoredWeight<'_>>, CheckpointError> {
        Ok(None)
    }
}
