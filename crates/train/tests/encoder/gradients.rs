//! Gradients of whole models against differences.

use crate::batches::random_batch;
use crate::golden::{names, open};
use crate::parity::parameters_of;
use candle_core::{Tensor, Var};
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::Activation;
use fewbit_model::RaggedBatch;
use fewbit_train::{DifferentiableEncoder, FloatInputs, Parameters};
use std::collections::BTreeMap;

/// A weighted sum of the logits, or of all hidden states where there is no head, with random weights.
pub(crate) struct Loss<'e> {
    encoder: &'e DifferentiableEncoder,
    batch: RaggedBatch,
    weights: Vec<Tensor>,
}

impl<'e> Loss<'e> {
    pub(crate) fn new(encoder: &'e DifferentiableEncoder, parameters: &Parameters) -> Self {
        let batch = random_batch(encoder.spec(), &[9, 1, 4], 5);
        let mut random = fastrand::Rng::with_seed(11);
        let mut loss = Self {
            encoder,
            batch,
            weights: Vec::new(),
        };
        let weights = loss.outputs(parameters).into_iter().map(|output| {
            let numbers: Vec<f32> = (0..output.elem_count())
                .map(|_| random.f32() - 0.5)
                .collect();
            Tensor::from_vec(numbers, output.shape(), output.device()).expect("a tensor")
        });
        loss.weights = weights.collect();
        loss
    }

    fn outputs(&self, parameters: &Parameters) -> Vec<Tensor> {
        let Self { encoder, batch, .. } = self;
        let states = encoder.hidden_states(parameters, batch, &FloatInputs);
        let states = states.expect("runs");
        let last = states.last().expect("states");
        let logits = encoder.logits(parameters, batch, last, &FloatInputs);
        match logits.expect("runs") {
            Some(logits) => vec![logits],
            None => states,
        }
    }

    /// In f64, so that what is summed here is not rounded again.
    fn value(&self, parameters: &Parameters) -> f64 {
        let products = self.outputs(parameters).into_iter().zip(&self.weights);
        let products = products.map(|(state, weights)| {
            let [state, weights] = [&state, weights].map(|tensor| {
                let flat = tensor.flatten_all().expect("a tensor");
                flat.to_vec1::<f32>().expect("floats")
            });
            let pairs = state.iter().zip(&weights);
            pairs
                .map(|(x, y)| f64::from(*x) * f64::from(*y))
                .sum::<f64>()
        });
        products.sum()
    }

    pub(crate) fn gradients(&self, parameters: &Parameters) -> BTreeMap<String, Vec<f32>> {
        let states = self.outputs(parameters);
        let products = states.iter().zip(&self.weights);
        let sums = products.map(|(x, y)| (x * y).expect("of a shape").sum_all().expect("a sum"));
        let loss = sums.reduce(|x, y| (x + y).expect("a sum")).expect("states");
        let gradients = loss.backward().expect("gradients");
        let of = |tensor: &Tensor| {
            let gradient = gradients.get(tensor).expect("a gradient");
            assert_eq!(gradient.dims(), tensor.dims());
            let flat = gradient.flatten_all().expect("a tensor");
            flat.to_vec1().expect("floats")
        };
        let gradients = parameters.iter();
        gradients
            .map(|(name, tensor)| (name.to_owned(), of(tensor)))
            .collect()
    }
}

/// The parameters with `direction` times `step` added to one of them.
fn moved(parameters: &Parameters, name: &str, direction: &[f32], step: f32) -> Parameters {
    let mut moved = parameters.clone();
    let old = parameters.get(name).expect("there").detach();
    let direction = Tensor::from_slice(direction, old.shape(), old.device()).expect("of its shape");
    let new = (old + (direction * f64::from(step)).expect("a product")).expect("a sum");
    moved.insert(name.to_owned(), new);
    moved
}

/// The slope of a smooth function at 0.
///
/// Differences over h and 2 h together are wrong by terms of h^4. States are rounded to f32 in every layer: their weighted sum, of some thousand
/// numbers of size 1 with errors of about 1e-6 that are not all of one sign, by about 1e-5, which is divided by h, while gradients are of size 1
/// and more.
fn of_smooth(at: impl Fn(f32) -> f64) -> f64 {
    const STEP: f32 = 0.02;
    let difference = |step: f32| (at(step) - at(-step)) / (2.0 * f64::from(step));
    (4.0 * difference(STEP) - difference(2.0 * STEP)) / 3.0
}

/// The slopes to both sides of 0, the lesser one first: where that of the activation function jumps within a step, the slope at 0 is between them.
fn between_sides(at: impl Fn(f32) -> f64) -> [f64; 2] {
    const STEP: f32 = 0.002;
    let side = |step: f32| (at(step) - at(0.0)) / f64::from(step);
    let (before, after) = (side(-STEP), side(STEP));
    [before.min(after), before.max(after)]
}

/// The parameters of a model as leaves of a tape.
pub(crate) fn leaves(encoder: &DifferentiableEncoder, checkpoint: &Checkpoint) -> Parameters {
    let mut leaves = Parameters::default();
    for (name, values) in parameters_of(encoder, checkpoint).iter() {
        let var = Var::from_tensor(values).expect("a variable");
        leaves.insert(name.to_owned(), var.as_tensor().clone());
    }
    leaves
}

/// Moves a parameter along its gradient, where the loss must grow by the length of it, and along a random direction. Returns what is wrong.
pub(crate) fn check(
    loss: &Loss<'_>,
    parameters: &Parameters,
    (parameter, gradient): (&str, &[f32]),
    is_smooth: bool,
    random: &mut fastrand::Rng,
) -> Vec<String> {
    let mut failures = Vec::new();
    let squares = gradient.iter().map(|x| f64::from(*x).powi(2));
    let length = squares.sum::<f64>().sqrt();
    let along: Vec<f32> = gradient
        .iter()
        .map(|x| (f64::from(*x) / length) as f32)
        .collect();
    let across: Vec<f32> = gradient.iter().map(|_| random.f32() - 0.5).collect();
    let norm = across.iter().map(|x| x * x).sum::<f32>().sqrt();
    let across: Vec<f32> = across.iter().map(|x| x / norm).collect();
    for direction in [along, across] {
        let at = |step| loss.value(&moved(parameters, parameter, &direction, step));
        let pairs = gradient.iter().zip(&direction);
        let expected = pairs
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>();
        let [least, greatest] = match is_smooth {
            false => between_sides(at),
            true => [of_smooth(at); 2],
        };
        let bound = 0.01 * length + 1e-3;
        if !(least - bound..=greatest + bound).contains(&expected) {
            failures.push(format!(
                "{parameter}: {expected} of {length}, differences {least} to {greatest}"
            ));
        }
    }
    failures
}

#[test]
fn gradients_are_those_of_differences() {
    let mut failures = Vec::new();
    for name in names() {
        let checkpoint = open(&name);
        let encoder = DifferentiableEncoder::new(&checkpoint).expect("an encoder");
        let parameters = leaves(&encoder, &checkpoint);
        let loss = Loss::new(&encoder, &parameters);
        let mut random = fastrand::Rng::with_seed(13);
        let is_smooth = encoder.spec().activation != Activation::Relu;
        for (parameter, gradient) in loss.gradients(&parameters) {
            let gradient = (parameter.as_str(), gradient.as_slice());
            let found = check(&loss, &parameters, gradient, is_smooth, &mut random);
            failures.extend(
                found
                    .into_iter()
                    .map(|failure| format!("{name}, {failure}")),
            );
        }
    }
    assert!(
        failures.is_empty(),
        "{}\n{}",
        failures.len(),
        failures.join("\n")
    );
}
