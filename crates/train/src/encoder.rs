//! The forward pass of encoders over tensors that remember how they were computed.

mod attention;
mod convolution;
mod disentangled;
mod embeddings;
mod head;
mod layer;
mod norm;
mod run;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use fewbit_checkpoint::{Checkpoint, CheckpointError, StoredWeight};
use fewbit_kernels::Kernels;
use fewbit_model::spec::EmbeddingsProjection;
use fewbit_model::{
    Catalogue, EncoderSpec, HeadSpec, ModelError, Module, ModuleKind, RaggedBatch, Role,
};

use crate::{LayerInputs, Parameters, TrainError};
use convolution::Convolution;
use disentangled::PositionTable;
use embeddings::EmbeddingTables;
use head::Head;
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
    /// Every module of the encoder whose numbers are parameters, in execution order.
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
    head: Option<Head>,
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
            head: None,
            kernels,
            spec,
        })
    }

    /// The same encoder with a task head on top of it, whose layers (poolers among them) and normalizations are parameters, too. The matrix and the bias of a
    /// decoder of words are not: they are read from `checkpoint`.
    ///
    /// ```
    /// use fewbit_checkpoint::Checkpoint;
    /// use fewbit_model::{HeadSpec, Labels, RaggedBatch};
    /// use fewbit_train::{DifferentiableEncoder, FloatInputs, Parameters};
    ///
    /// # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/golden/task_heads/bert-sequence");
    /// let checkpoint = Checkpoint::open(directory)?;
    /// let encoder = DifferentiableEncoder::new(&checkpoint)?;
    /// let labels = Labels::from_checkpoint(&checkpoint)?;
    /// let head = HeadSpec::from_checkpoint(&checkpoint, encoder.spec(), &labels)?;
    /// let encoder = encoder.with_head(head, &checkpoint)?;
    /// let mut parameters = Parameters::default();
    /// for (name, values) in encoder.read_parameters(&checkpoint)? {
    ///     parameters.insert(name, values);
    /// }
    /// let batch = RaggedBatch::from_sequences(&[&[2, 5, 3][..], &[2, 3]]);
    /// let states = encoder.hidden_states(&parameters, &batch, &FloatInputs)?;
    /// let last = states.last().expect("at least the embeddings");
    /// let logits = encoder.logits(&parameters, &batch, last, &FloatInputs)?.expect("a head");
    /// assert_eq!(logits.dims(), [2, labels.len()]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A decoder that is missing or damaged.
    pub fn with_head(
        mut self,
        head: HeadSpec,
        checkpoint: &Checkpoint,
    ) -> Result<Self, TrainError> {
        self.head = Some(Head::new(head, &self.spec.catalogue(), checkpoint)?);
        Ok(self)
    }

    /// What is computed.
    pub fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    /// The head, where it has one.
    pub fn head(&self) -> Option<&HeadSpec> {
        self.head.as_ref().map(|head| &head.spec)
    }

    /// Every module whose numbers are parameters, those of the head last.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        let head = self.head.iter();
        let of_head = head.flat_map(|head| head.spec.modules());
        self.modules.iter().chain(of_head)
    }

    /// The weights, dequantized, biases and normalizations of `checkpoint` that training changes, by the names of their tensors, with their shapes.
    ///
    /// # Errors
    /// A tensor is missing, has another shape than config.json says, or holds NaN or infinity.
    pub fn read_parameters(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<BTreeMap<String, Tensor>, TrainError> {
        let mut parameters = read_modules(&self.modules, checkpoint)?;
        if let Some(head) = &self.head {
            parameters.extend(read_head(&head.spec, checkpoint)?);
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

    /// Logits of the head, where there is one: (texts, logits), or where its [task](HeadSpec::task) is one of tokens (tokens, logits). `states` are the last hidden
    /// states of the batch. They are those of [`TaskModel`](fewbit_model::TaskModel).
    ///
    /// # Errors
    /// As [`hidden_states`](Self::hidden_states); states of another batch.
    pub fn logits(
        &self,
        parameters: &Parameters,
        batch: &RaggedBatch,
        states: &Tensor,
        inputs: &dyn LayerInputs,
    ) -> Result<Option<Tensor>, TrainError> {
        let Some(head) = &self.head else {
            return Ok(None);
        };
        batch.check(&self.spec)?;
        let expected = [batch.tokens(), self.spec.hidden_size];
        if states.dims() != expected {
            let found = states.dims();
            let message =
                format!("expected hidden states {expected:?} of a batch, found {found:?}");
            return Err(candle_core::Error::Msg(message).into());
        }
        let run = Run::new(self, parameters, batch, inputs);
        Ok(Some(head.logits(&run, batch, states)?))
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

/// The weights, dequantized, biases and normalizations of modules, by the names of their tensors, with their shapes.
fn read_modules<'m>(
    modules: impl IntoIterator<Item = &'m Module>,
    checkpoint: &Checkpoint,
) -> Result<BTreeMap<String, Tensor>, TrainError> {
    let mut parameters = BTreeMap::new();
    for module in modules {
        match module.kind() {
            ModuleKind::Linear => {
                let weight = module.stored_weight(checkpoint)?;
                if let StoredWeight::Float(view) = &weight {
                    view.check_finite(0..view.element_count())?;
                }
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

/// The parameters of a head, by the names of their tensors, with their shapes.
///
/// # Errors
/// As [`DifferentiableEncoder::read_parameters`].
pub(crate) fn read_head(
    head: &HeadSpec,
    checkpoint: &Checkpoint,
) -> Result<BTreeMap<String, Tensor>, TrainError> {
    let mut parameters = BTreeMap::new();
    for module in head.modules() {
        let of_module = read_modules([module], checkpoint).map_err(|error| match error {
            TrainError::Checkpoint(error) => head.about_labels(error, module).into(),
            error => error,
        });
        parameters.extend(of_module?);
    }
    Ok(parameters)
}

/// The modules of the encoder whose numbers are parameters. A pooler is one of a head.
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
