//! What a recipe makes of weights, without writing it.

use fewbit_checkpoint::compressed_tensors::CompressedScheme;
use fewbit_checkpoint::{Checkpoint, CheckpointError, StoredWeight};
use fewbit_kernels::Kernels;
use fewbit_model::{Module, WeightSource};

use crate::conversion::{int4, int8};
use crate::plan_row::EMBEDDING_SCHEME;
use crate::{QuantizeError, QuantizePlan, Recipe, TensorAction};

/// The int8 weights of a recipe, each made when it is asked for: the same codes and scales as those of a written model.
pub(crate) struct UnwrittenWeights<'a> {
    checkpoint: &'a Checkpoint,
    plan: QuantizePlan,
    kernels: &'static Kernels,
}

impl<'a> UnwrittenWeights<'a> {
    /// # Errors
    /// Those of [`QuantizePlan::new`]; an instruction set that this CPU lacks.
    pub(crate) fn new(checkpoint: &'a Checkpoint, recipe: &Recipe) -> Result<Self, QuantizeError> {
        let plan = QuantizePlan::new(checkpoint, recipe)?;
        Ok(Self {
            checkpoint,
            plan,
            kernels: Kernels::from_environment()?,
        })
    }
}

impl WeightSource for UnwrittenWeights<'_> {
    fn weight(&self, module: &Module) -> Result<Option<StoredWeight<'_>>, CheckpointError> {
        let mut rows = self.plan.rows().iter();
        let Some(row) = rows.find(|row| row.module.as_ref() == Some(&module.name)) else {
            return Ok(None);
        };
        let scheme = match row.action {
            TensorAction::Int8Linear(scheme) => scheme,
            TensorAction::Int4Linear { layout, scales, .. } => {
                let view = self.checkpoint.require(&row.tensor)?;
                let groups = int4::in_memory(&view, layout, scales.of_groups())?;
                return Ok(Some(layout.stored_weight(groups)));
            }
            TensorAction::EightBitLinear { .. } => CompressedScheme::WeightOnlyInt8,
            TensorAction::Int8Embedding => EMBEDDING_SCHEME,
            _ => return Ok(None),
        };
        let view = self.checkpoint.require(&row.tensor)?;
        Ok(Some(scheme.stored_weight(int8::in_memory(
            &view,
            scheme,
            self.kernels,
        )?)))
    }
}
