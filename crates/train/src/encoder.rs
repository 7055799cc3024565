//! The forward pass of encoders over tensors that remember how they were computed.

mod attention;
mod convolution;
mod disentangled;
mod embeddings;
mod layer;
mod norm;
mod run;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use fewbit_checkpoint::{Checkpoint, CheckpointError};
use fewbit_kernels::Kernels;
use fewbit_model::spec::EmbeddingsProjection;
use fewbit_model::{Catalogue, EncoderSpec, ModelError, Module, ModuleKind, RaggedBatch, Role};

use crate::{LayerInputs, Parameters, TrainError};
use convolution::Convolution;
use disentangled::PositionTable;
use embeddings::EmbeddingTables;
use layer::Layer;
use norm::NormModule;
use run::Run;

/// An encoder whose hidden states are differentiable with respect to its [`Parameters`].
///
/// ```
/// use fewbit_checkpoint::Checkpoint;
/// use fewbit_model::RaggedBatch;
/// use fewbit_train::{DifferentiableEncoder, FloatInputs, Parameters};
///
/// # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/golden/architectures/bert");
/// let checkpoint = Checkpoint::open(directory)?;
/// let encoder = DifferentiableEncoder::new(&checkpoint)?;
/// let mut parameters = Parameters::default();
/// for (name, values) in encoder.read_parameters(&checkpoint)? {
///     parameters.insert(name, candle_core::Var::from_tensor(&values)?.as_tensor().clone());
/// }
/// let batch = RaggedBatch::from_sequences(&[&[2, 5, 3][..], &[2, 3]]);
/// let states = encoder.hidden_states(&parameters, &batch, &FloatInputs)?;
/// let last = states.last().expect("at least the embeddings");
/// assert_eq!(last.dims(), [5, encoder.spec().hidden_size]);
/// let gradients = last.sqr()?.sum_all()?.backward()?;
/// assert!(gradients.get(parameters.get("encoder.layer.0.output.dense.weight")?).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DifferentiableEncoder {
    spec: EncoderSpec,
    /// Every module whose numbers are parameters, in execution order.
    modules: Vec<Module>,
    tables: EmbeddingTables,
    embeddings_norm: Option<NormModule>,
    embeddings_projection: Option<Module>,
    layers: Vec<Layer>,
    final_norm: Option<NormModule>,
    /// By head and bucket of distances, (rows, heads).
    relative_bias: Option<Vec<f32>>,
    /// Where attention is disentangled.
    positions: Option<PositionTable>,
    /// Beside the first layer.
    convolution: Option<Convolution>,
    kernels: &'static Kernels,
}

impl DifferentiableEncoder {
    /// The encoder of a checkpoint. Its tables are read from there: training does not change them.
    ///
    /// # Errors
    /// Those of [`EncoderSpec::from_checkpoint`]; a table that is missing or damaged.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self, TrainError> {
        let spec = EncoderSpec::from_checkpoint(checkpoint)?;
        let catalogue = spec.catalogue();
        let kernels = Kernels::from_environment();
        let kernels = kernels.map_err(|error| ModelError::Input(error.to_string()))?;
        let norm = |role| NormModule::of_role(&catalogue, role, None, checkpoint);
        let relative_bias = match catalogue.get(Role::RelativeAttentionBias, None) {
            Some(module) => {
                let stored = module.stored_table(checkpoint)?;
                Some(stored.dequantize(module.shape)?)
            }
            None => None,
        };
        Ok(Self {
            modules: parameter_modules(&catalogue),
            tables: EmbeddingTables::read(&catalogue, checkpoint)?,
            embeddings_norm: norm(Role::EmbeddingsNorm),
            embeddings_projection: catalogue.get(Role::EmbeddingsProjection, None).cloned(),
            layers: (0..spec.layers)
                .map(|layer| Layer::new(&spec, &catalogue, layer, checkpoint))
                .collect::<Result<_, _>>()?,
            final_norm: norm(Role::FinalNorm),
            relative_bias,
            positions: PositionTable::read(&spec, &catalogue, checkpoint)?,
            convolution: Convolution::read(&spec, &catalogue, checkpoint)?,
            kernels,
            spec,
        })
    }

    /// What is computed.
    pub fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    /// The weights, dequantized, biases and normalizations of `checkpoint` that training changes, by the names of their tensors, with their shapes.
    ///
    /// # Errors
    /// A tensor is missing or has another shape than config.json says.
    pub fn read_parameters(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<BTreeMap<String, Tensor>, TrainError> {
        let mut parameters = BTreeMap::new();
        for module in &self.modules {
            match module.kind() {
                ModuleKind::Linear => {
                    let weight = module.stored_weight(checkpoint)?;
                    let weight = weight.dequantize(module.shape)?;
                    let [out, inside] = module.shape;
                    let weight = Tensor::from_vec(weight, (out, inside), &Device::Cpu)?;
                    parameters.insert(format!("{}.weight", module.name), weight);
                    if module.bias {
                        let name = format!("{}.bias", module.name);
                        let bias = vector(checkpoint, &name, out)?;
                        parameters.insert(name, bias);
                    }
                }
                ModuleKind::Norm => {
                    let [weight, bias] = module.norm_tensors(checkpoint);
                    let names = [Some(weight), module.bias.then_some(bias)];
                    for name in names.into_iter().flatten() {
                        let values = vector(checkpoint, &name, module.shape[1])?;
                        parameters.insert(name, values);
                    }
                }
                _ => {
                    let values = vector(checkpoint, &module.name, module.shape[1])?;
                    parameters.insert(module.name.clone(), values);
                }
            }
        }
        Ok(parameters)
    }

    /// Hidden states (tokens, hidden size) after the embeddings and after each layer, the last of them as [`Network`](fewbit_model::Network) gives them.
    ///
    /// # Errors
    /// A batch that the model cannot run; a parameter that is missing; those of `inputs`.
    pub fn hidden_states(
        &self,
        parameters: &Parameters,
        batch: &RaggedBatch,
        inputs: &dyn LayerInputs,
    ) -> Result<Vec<Tensor>, TrainError> {
        batch.check(&self.spec)?;
        let passes = self.spec.passes();
        if batch.tokens() == 0 {
            let shape = (0, self.spec.hidden_size);
            let none = Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu)?;
            return Ok(vec![none; passes.len() + 1]);
        }
        let run = Run::new(self, parameters, batch, inputs);
        let longest = run.sequences().map(|sequence| sequence.len()).max();
        let positions = match (&self.positions, longest) {
            (Some(table), Some(longest)) => Some(table.reached(&run, longest)?),
            _ => None,
        };
        let mut states = vec![self.embed(&run, batch)?];
        for (pass, &layer) in passes.iter().enumerate() {
            let read = &states[pass];
            let mut hidden = self.layers[layer].forward(&run, positions.as_ref(), read)?;
            if layer == 0
                && let Some(convolution) = &self.convolution
            {
                hidden = convolution.forward(&run, read, &hidden)?;
            }
            if pass + 1 == passes.len()
                && let Some(norm) = &self.final_norm
            {
                hidden = run.normalize(norm, &hidden)?;
            }
            states.push(hidden);
        }
        Ok(states)
    }

    /// The summed embeddings, normalized and projected as the model has it.
    fn embed(&self, run: &Run<'_>, batch: &RaggedBatch) -> Result<Tensor, TrainError> {
        let hidden = self.tables.sum(&self.spec, batch)?;
        let project = |hidden: Tensor| match &self.embeddings_projection {
            Some(projection) => run.linear(projection, &hidden),
            None => Ok(hidden),
        };
        let normalize = |hidden: Tensor| match &self.embeddings_norm {
            Some(norm) => run.normalize(norm, &hidden),
            None => Ok(hidden),
        };
        Ok(match self.spec.embeddings_projection {
            EmbeddingsProjection::BeforeNormIfNarrower => normalize(project(hidden)?)?,
            _ => project(normalize(hidden)?)?,
        })
    }
}

/// The modules whose numbers are parameters.
fn parameter_modules(catalogue: &Catalogue) -> Vec<Module> {
    let is_parameter = |module: &&Module| match module.kind() {
        ModuleKind::Linear => module.role != Role::Pooler,
        ModuleKind::Norm | ModuleKind::Bias => true,
        ModuleKind::Table | ModuleKind::Convolution => false,
    };
    let modules = catalogue.modules().iter().filter(is_parameter);
    modules.cloned().collect()
}

/// A vector of finite numbers.
fn vector(checkpoint: &Checkpoint, name: &str, size: usize) -> Result<Tensor, TrainError> {
    let view = checkpoint.require(name)?;
    view.expect_shape(&[size])?;
    let mut values = vec![0.0; size];
    view.read_finite_range(0, &mut values)?;
    Ok(Tensor::from_vec(values, size, &Device::Cpu)?)
}

/// The error of a name table that lacks a role.
fn missing_role(role: Role, catalogue: &Catalogue) -> CheckpointError {
    CheckpointError::new(
        fewbit_checkpoint::CheckpointErrorKind::MissingTensor,
        format!(
            "{}: expected a module of the role {role:?}, found none",
            catalogue.model_type
        ),
    )
}
