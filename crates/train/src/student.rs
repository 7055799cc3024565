//! The model that is trained.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::Kernels;
use fewbit_model::ModuleKind;
use fewbit_quantize::{GivenCodes, PlannedConversion, Recipe, StaticInput};
use rayon::iter::{
    IndexedParallelIterator, IntoParallelRefIterator, IntoParallelRefMutIterator, ParallelIterator,
};

use crate::input_quantizer::InputQuantizers;
use crate::operations::values::values;
use crate::optimizer::Moments;
use crate::start::with_static_inputs;
use crate::weight_gradients::{ProductRecord, take_gradient};
use crate::weight_quantizer::WeightQuantizer;
use crate::{DifferentiableEncoder, Parameters, TrainError};

/// A tensor that training changes.
#[derive(Debug, Clone)]
pub(crate) struct TrainedTensor {
    /// Its name in the checkpoint.
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// In full precision, row-major.
    pub(crate) values: Vec<f32>,
    pub(crate) quantizer: WeightQuantizer,
    pub(crate) moments: Moments,
    pub(crate) moments_of_scales: Moments,
    /// Whether it is the logarithm of an input's scale, and no tensor of the checkpoint.
    pub(crate) is_input_scale: bool,
}

/// Weights in full precision, and how they and the inputs of layers are quantized.
#[derive(Debug, Clone)]
pub(crate) struct Student {
    pub(crate) tensors: Vec<TrainedTensor>,
    pub(crate) inputs: InputQuantizers,
}

/// The gradients of one tensor.
pub(crate) struct Gradients {
    /// With respect to the values that the forward pass used, then to those in full precision.
    pub(crate) values: Vec<f32>,
    pub(crate) scales: Vec<f32>,
}

impl Student {
    /// The student that begins as `start`, a quantized checkpoint of the model whose float weights `source` has.
    ///
    /// # Errors
    /// A layer of a form that is not trained; a tensor that is missing or not finite.
    pub(crate) fn new(
        encoder: &DifferentiableEncoder,
        source: &Checkpoint,
        start: &Checkpoint,
    ) -> Result<Self, TrainError> {
        let mut inputs = InputQuantizers::default();
        let mut quantizers = BTreeMap::new();
        let mut parameters = encoder.read_parameters(source)?;
        let layers = encoder.modules();
        for module in layers.filter(|module| module.kind() == ModuleKind::Linear) {
            let name = format!("{}.weight", module.name);
            let Some(weight) = parameters.get_mut(&name) else {
                continue;
            };
            let stored = module.stored_weight(start)?;
            let mut values = weight.flatten_all()?.to_vec1::<f32>()?;
            let quantizer = WeightQuantizer::of(&stored, module.shape[1], &mut values);
            let (Some(quantizer), true) = (quantizer, inputs.add(module, &stored)) else {
                return Err(TrainError::NotTrained {
                    module: module.name.clone(),
                });
            };
            *weight = Tensor::from_vec(values, weight.shape(), &Device::Cpu)?;
            quantizers.insert(name, quantizer);
        }
        let tensor = |(name, tensor): (String, Tensor)| {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            let quantizer = quantizers.remove(&name).unwrap_or(WeightQuantizer::Float);
            Ok::<_, TrainError>(TrainedTensor {
                shape: tensor.dims().to_vec(),
                moments: Moments::new(values.len()),
                moments_of_scales: Moments::new(quantizer.scales().len()),
                name,
                values,
                quantizer,
                is_input_scale: false,
            })
        };
        let mut tensors: Vec<TrainedTensor> = parameters
            .into_iter()
            .map(tensor)
            .collect::<Result<_, _>>()?;
        tensors.extend(inputs.scales().iter().map(|(name, scale)| TrainedTensor {
            name: name.clone(),
            shape: vec![1],
            values: vec![scale.ln()],
            quantizer: WeightQuantizer::Float,
            moments: Moments::new(1),
            moments_of_scales: Moments::new(0),
            is_input_scale: true,
        }));
        Ok(Self { tensors, inputs })
    }

    /// What a forward pass computes with: the values of codes, leaves of the tape.
    ///
    /// # Errors
    /// A weight that is not finite.
    pub(crate) fn parameters(&self, kernels: &Kernels) -> Result<Leaves, TrainError> {
        let leaf = |tensor: &TrainedTensor| {
            let mut values = vec![0.0; tensor.values.len()];
            if !tensor
                .quantizer
                .values(kernels, &tensor.values, &mut values)
            {
                return Err(TrainError::NotFinite {
                    what: tensor.name.clone(),
                });
            }
            Ok(Var::from_vec(
                values,
                tensor.shape.as_slice(),
                &Device::Cpu,
            )?)
        };
        let leaves: Vec<Var> = self
            .tensors
            .par_iter()
            .map(leaf)
            .collect::<Result<_, _>>()?;
        let mut parameters = Parameters::default();
        for (tensor, leaf) in self.tensors.iter().zip(&leaves) {
            parameters.insert(tensor.name.clone(), leaf.as_tensor().clone());
        }
        parameters.pack()?;
        let names = self.tensors.iter().map(|tensor| tensor.name.clone());
        Ok(Leaves {
            names: names.collect(),
            leaves,
            parameters,
        })
    }

    /// Turns gradients of the values that codes stand for into those of what is trained.
    pub(crate) fn pass_gradients(&self, gradients: &mut [Gradients]) {
        let each = self.tensors.par_iter().zip(gradients.par_iter_mut());
        each.for_each(|(tensor, gradients)| {
            gradients.scales = tensor
                .quantizer
                .gradients(&tensor.values, &mut gradients.values);
        });
    }

    /// One step of the optimizer: everything moves against its gradient times `factor`.
    pub(crate) fn update(
        &mut self,
        gradients: &[Gradients],
        factor: f32,
        learning_rate: f64,
        step: usize,
    ) {
        let each = self.tensors.par_iter_mut().zip(gradients.par_iter());
        each.for_each(|(tensor, gradients)| {
            tensor.moments.update(
                &mut tensor.values,
                &gradients.values,
                factor,
                match tensor.is_input_scale {
                    true => learning_rate * INPUT_SCALE_RATE,
                    false => learning_rate,
                },
                step,
            );
            if let WeightQuantizer::Groups(groups) = &mut tensor.quantizer {
                let before = groups.scales.clone();
                tensor.moments_of_scales.update(
                    &mut groups.scales,
                    &gradients.scales,
                    factor,
                    learning_rate * SCALE_RATE,
                    step,
                );
                // A scale that would become 0 or change its sign stays.
                for (scale, before) in groups.scales.iter_mut().zip(before) {
                    if !(*scale / before).is_normal() || *scale / before < 0.0 {
                        *scale = before;
                    }
                }
            }
        });
    }

    /// The tensors in full precision, by name, as conversions take them.
    pub(crate) fn values(&self) -> BTreeMap<String, Arc<[f32]>> {
        let tensors = self.tensors.iter();
        tensors
            .filter(|tensor| !tensor.is_input_scale)
            .map(|tensor| (tensor.name.clone(), Arc::from(tensor.values.as_slice())))
            .collect()
    }

    /// What writes it beside the other files of `source`, as `recipe` says with the scales of inputs that were trained.
    ///
    /// # Errors
    /// Those of [`PlannedConversion::of_trained`] and [`PlannedConversion::with_codes`].
    pub(crate) fn conversion(
        &self,
        source: &Path,
        recipe: &Recipe,
    ) -> Result<PlannedConversion, TrainError> {
        let recipe = with_static_inputs(source, recipe, &self.static_inputs())?;
        let conversion = PlannedConversion::of_trained(source, self.values(), &recipe)?;
        Ok(conversion.with_codes(self.codes())?)
    }

    /// Scale and zero point of static inputs, by the names of modules.
    pub(crate) fn static_inputs(&self) -> BTreeMap<String, StaticInput> {
        self.inputs.static_inputs(|parameter| {
            let tensors = self.tensors.iter();
            let mut named = tensors.filter(|tensor| tensor.name == parameter);
            named.next().map(|tensor| tensor.values[0])
        })
    }

    /// Codes and scales that do not follow from these, by the names of modules.
    pub(crate) fn codes(&self) -> BTreeMap<String, GivenCodes> {
        let tensors = self.tensors.par_iter();
        tensors
            .filter_map(|tensor| {
                let module = tensor.name.strip_suffix(".weight")?;
                let &[rows, columns] = tensor.shape.as_slice() else {
                    return None;
                };
                let codes = tensor.quantizer.codes([rows, columns], &tensor.values)?;
                Some((module.to_owned(), codes))
            })
            .collect()
    }
}

/// What the learning rate of scales is multiplied by: a scale moves all weights of its group.
const SCALE_RATE: f64 = 0.2;

/// What it is multiplied by for the logarithms of inputs' scales: so much relative to the scale is about what weights' scales move by.
const INPUT_SCALE_RATE: f64 = 10.0;

/// The parameters of a forward pass, and the gradients that come back to them.
pub(crate) struct Leaves {
    names: Vec<String>,
    leaves: Vec<Var>,
    pub(crate) parameters: Parameters,
}

impl Leaves {
    /// Adds the gradients of several tapes, and those of what was recorded beside them, in their order, to `sums`, which have a place for each tensor. What is recorded is used up.
    ///
    /// # Errors
    /// Shapes that do not fit together.
    pub(crate) fn add_gradients(
        &self,
        tapes: &[GradStore],
        records: &[ProductRecord],
        sums: &mut [Gradients],
    ) -> candle_core::Result<()> {
        let leaves = self.leaves.par_iter().zip(&self.names);
        let each = sums.par_iter_mut().zip(leaves);
        each.try_for_each(|(sums, (leaf, name))| {
            for gradient in tapes.iter().filter_map(|tape| tape.get(leaf)) {
                add(gradient, &mut sums.values)?;
            }
            match take_gradient(name, records)? {
                Some(gradient) => add(&gradient, &mut sums.values),
                None => Ok(()),
            }
        })
    }

    /// Sums of no gradients.
    pub(crate) fn no_gradients(&self) -> Vec<Gradients> {
        let leaves = self.leaves.iter();
        leaves
            .map(|leaf| Gradients {
                values: vec![0.0; leaf.elem_count()],
                scales: Vec::new(),
            })
            .collect()
    }
}

fn add(gradient: &Tensor, sum: &mut [f32]) -> candle_core::Result<()> {
    let gradient = gradient.contiguous()?;
    for (sum, value) in sum.iter_mut().zip(values(&gradient)?.iter()) {
        *sum += value;
    }
    Ok(())
}
