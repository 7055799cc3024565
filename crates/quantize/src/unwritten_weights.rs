//! What a recipe makes of weights, without writing it.

use std::collections::HashMap;

use fewbit_checkpoint::compressed_tensors::CompressedScheme;
use fewbit_checkpoint::{Checkpoint, CheckpointError, StoredWeight};
use fewbit_kernels::Kernels;
use fewbit_model::{Encoder, Module, WeightSource};

use crate::conversion::{calibrated, int4, int8};
use crate::gptq::{GptqModule, GptqOutput, GptqPasses};
use crate::plan_row::EMBEDDING_SCHEME;
use crate::{GptqCalibration, PlanRow, QuantizeError, QuantizePlan, Recipe, TensorAction};

/// The integer weights of a recipe, each made when it is asked for: the same codes and scales as those of a written model.
pub(crate) struct UnwrittenWeights<'a> {
    checkpoint: &'a Checkpoint,
    plan: QuantizePlan,
    kernels: &'static Kernels,
}

/// Weights by the paths of their modules in the checkpoint.
pub(crate) type WeightsInMemory = HashMap<String, StoredWeight<'static>>;

impl<'a> UnwrittenWeights<'a> {
    /// # Errors
    /// Those of [`QuantizePlan::new`]; an instruction set that this CPU lacks.
    pub(crate) fn new(checkpoint: &'a Checkpoint, recipe: &Recipe) -> Result<Self, QuantizeError> {
        Self::of_plan(checkpoint, QuantizePlan::new(checkpoint, recipe)?)
    }

    /// Those of a plan for `checkpoint`.
    ///
    /// # Errors
    /// An instruction set that this CPU lacks.
    pub(crate) fn of_plan(
        checkpoint: &'a Checkpoint,
        plan: QuantizePlan,
    ) -> Result<Self, QuantizeError> {
        Ok(Self {
            checkpoint,
            plan,
            kernels: Kernels::from_environment()?,
        })
    }

    /// All of them, also those that are rounded for what `calibration` shows of the inputs of `encoder`, the float model. `progress` is told what is done.
    ///
    /// # Errors
    /// NaN or infinity in a weight; those of GPTQ.
    pub(crate) fn in_memory(
        &self,
        encoder: &Encoder,
        calibration: &GptqCalibration,
        progress: &mut dyn FnMut(&str),
    ) -> Result<WeightsInMemory, QuantizeError> {
        let mut weights = WeightsInMemory::new();
        for row in self.plan.rows() {
            if let (Some(module), Some(weight)) = (&row.module, self.of_row(row)?) {
                weights.insert(module.clone(), weight);
            }
        }
        if !self.plan.recipe().needs_samples() {
            return Ok(weights);
        }
        let catalogue = encoder.network().spec().catalogue();
        let passes = GptqPasses::new(&catalogue, self.plan.rows(), calibration.hessian_bytes);
        let mut output = Memory {
            checkpoint: self.checkpoint,
            weights,
            progress,
        };
        passes.run(encoder, calibration, None, self.kernels, &mut output)?;
        Ok(output.weights)
    }

    /// The weight of a row, unless it is not quantized, or is rounded for its inputs.
    fn of_row(&self, row: &PlanRow) -> Result<Option<StoredWeight<'static>>, CheckpointError> {
        if row.action.needs_calibration() {
            return Ok(None);
        }
        let scheme = match row.action {
            TensorAction::Int8Linear(scheme) => scheme,
            TensorAction::Int4Linear { layout, scales, .. } => {
                let view = self.checkpoint.require(&row.tensor)?;
                let groups = int4::in_memory(self.kernels, &view, layout, scales.of_groups())?;
                return Ok(Some(layout.stored_weight(groups)));
            }
            TensorAction::EightBitLinear { .. } => CompressedScheme::WeightOnlyInt8,
            TensorAction::Int8Embedding => EMBEDDING_SCHEME,
            _ => return Ok(None),
        };
        let view = self.checkpoint.require(&row.tensor)?;
        let rows = int8::in_memory(&view, scheme, self.kernels)?;
        Ok(Some(scheme.stored_weight(rows)))
    }
}

impl WeightSource for UnwrittenWeights<'_> {
    fn weight(&self, module: &Module) -> Result<Option<StoredWeight<'_>>, CheckpointError> {
        let mut rows = self.plan.rows().iter();
        match rows.find(|row| row.module.as_ref() == Some(&module.name)) {
            Some(row) => self.of_row(row),
            None => Ok(None),
        }
    }
}

/// Keeps weights that GPTQ rounds.
struct Memory<'a> {
    checkpoint: &'a Checkpoint,
    weights: WeightsInMemory,
    progress: &'a mut dyn FnMut(&str),
}

impl GptqOutput for Memory<'_> {
    fn collecting(&mut self, what: &str) {
        (self.progress)(what);
    }

    fn read(&mut self, module: &GptqModule<'_>) -> Result<Vec<f32>, QuantizeError> {
        calibrated::read(&self.checkpoint.require(&module.row.tensor)?)
    }

    fn write(
        &mut self,
        module: &GptqModule<'_>,
        _weights: &[f32],
        rounded: &StoredWeight<'_>,
    ) -> Result<(), QuantizeError> {
        let rounded = rounded.borrowed().into_owned()?;
        self.weights.insert(module.name().to_owned(), rounded);
        Ok(())
    }
}
