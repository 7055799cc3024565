//! The forward pass against the executor.

use crate::batches::{alone, random_batch};
use crate::golden::{names, open};
use candle_core::Tensor;
use fewbit_model::{EncoderSpec, Network, RaggedBatch, Tap};
use fewbit_train::{DifferentiableEncoder, FloatInputs, Parameters, TrainError};

/// Hidden states of the executor, by step.
#[derive(Default)]
struct States(Vec<Vec<f32>>);

impl Tap for States {
    fn wants(&self, _site: &str) -> bool {
        false
    }

    fn see(&mut self, _site: &str, _rows: usize, _columns: usize, _values: &[f32]) {}

    fn see_hidden_states(&mut self, step: usize, _columns: usize, values: &[f32]) {
        let steps = self.0.len().max(step + 1);
        self.0.resize_with(steps, Vec::new);
        self.0[step].extend_from_slice(values);
    }
}

pub(crate) fn parameters_of(
    encoder: &DifferentiableEncoder,
    checkpoint: &fewbit_checkpoint::Checkpoint,
) -> Parameters {
    let mut parameters = Parameters::default();
    for (name, values) in encoder.read_parameters(checkpoint).expect("parameters") {
        parameters.insert(name, values);
    }
    parameters
}

pub(crate) fn numbers(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.flatten_all().expect("a tensor");
    flat.to_vec1().expect("floats")
}

/// How far apart the same numbers may be that are summed in different orders, relative to the largest of them: a sum of n products is off by
/// n roundings at most and about sqrt(n) as a rule, so that n covers what the parts of a layer add to one another; and so do the layers.
fn relative_bound(spec: &EncoderSpec, batch: &RaggedBatch, step: usize) -> f32 {
    let tokens = (0..batch.sequences()).map(|sequence| batch.range(sequence).len());
    let sums = [
        spec.hidden_size,
        spec.intermediate_size,
        spec.embedding_size,
    ];
    let longest = sums.into_iter().chain(tokens).max().unwrap_or(0);
    f32::EPSILON * longest as f32 * (1 + step) as f32
}

/// Whether every sum is the executor's: that cuts keys of a window otherwise, and adds scores of positions in another order.
pub(crate) fn has_the_same_sums(spec: &EncoderSpec) -> bool {
    spec.disentangled.is_none() && spec.local_attention.is_none() && !spec.causal
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, x| x.abs().max(largest))
}

fn largest_difference(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    let pairs = x.iter().zip(y);
    pairs.fold(0.0, |largest, (x, y)| {
        let difference = (x - y).abs();
        if difference.is_nan() {
            f32::INFINITY
        } else {
            difference.max(largest)
        }
    })
}

#[test]
fn hidden_states_are_those_of_the_executor() {
    let mut failures = Vec::new();
    for name in names() {
        let checkpoint = open(&name);
        let encoder = DifferentiableEncoder::new(&checkpoint).expect("an encoder");
        let parameters = parameters_of(&encoder, &checkpoint);
        let batch = random_batch(encoder.spec(), &[1, 7, 150, 12, 40], 7);
        let (network, _) = Network::load(&checkpoint).expect("loads");
        let mut expected = States::default();
        let last = network
            .hidden_states_tapped(&batch, &mut expected)
            .expect("runs");
        let found = encoder.hidden_states(&parameters, &batch, &FloatInputs);
        let found = found.expect("runs");
        assert_eq!(found.len(), expected.0.len(), "{name}");
        assert_eq!(Some(&last), expected.0.last(), "{name}");
        for (step, (found, expected)) in found.iter().zip(&expected.0).enumerate() {
            let shape = [batch.tokens(), encoder.spec().hidden_size];
            assert_eq!(found.dims(), shape, "{name}");
            let bound = relative_bound(encoder.spec(), &batch, step) * largest(expected);
            let difference = largest_difference(&numbers(found), expected);
            let bound = if has_the_same_sums(encoder.spec()) {
                0.0
            } else {
                bound
            };
            if difference > bound {
                failures.push(format!("{name}, step {step}: {difference} above {bound}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Each row of a product is a sum of its own; but products of heads and positions are cut by the number of rows.
#[test]
fn a_sequence_has_the_same_states_alone_as_in_a_batch() {
    for name in names() {
        let checkpoint = open(&name);
        let encoder = DifferentiableEncoder::new(&checkpoint).expect("an encoder");
        let parameters = parameters_of(&encoder, &checkpoint);
        let batch = random_batch(encoder.spec(), &[5, 60, 1], 3);
        let run = |batch: &RaggedBatch| {
            let states = encoder.hidden_states(&parameters, batch, &FloatInputs);
            numbers(states.expect("runs").last().expect("states"))
        };
        let all = run(&batch);
        let columns = encoder.spec().hidden_size;
        let steps = encoder.spec().passes().len();
        let bound = match encoder.spec().disentangled {
            None => 0.0,
            Some(_) => relative_bound(encoder.spec(), &batch, steps) * largest(&all),
        };
        for sequence in 0..batch.sequences() {
            let range = batch.range(sequence);
            let rows = &all[range.start * columns..range.end * columns];
            let difference = largest_difference(&run(&alone(&batch, sequence)), rows);
            assert!(
                difference <= bound,
                "{name}, {sequence}: {difference} above {bound}"
            );
        }
    }
}

#[test]
fn a_batch_that_cannot_be_run_is_an_error() {
    let checkpoint = open("bert");
    let encoder = DifferentiableEncoder::new(&checkpoint).expect("an encoder");
    let parameters = parameters_of(&encoder, &checkpoint);
    let run = |batch: &RaggedBatch, parameters: &Parameters| {
        let states = encoder.hidden_states(parameters, batch, &FloatInputs);
        states.map_err(Box::new)
    };
    let vocabulary = encoder.spec().vocab_size as u32;
    for (sequence, expected) in [
        (&[][..], "at least one token"),
        (&[vocabulary][..], "below the vocabulary size"),
        (&[1; 1000][..], "at most"),
    ] {
        let error = run(&RaggedBatch::from_sequences(&[sequence]), &parameters);
        let error = error.expect_err("a bad batch");
        assert!(matches!(*error, TrainError::Model(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let nothing = run(&RaggedBatch::new(), &parameters).expect("nothing to do");
    assert_eq!(nothing.len(), 1 + encoder.spec().layers);
    let error = run(
        &RaggedBatch::from_sequences(&[&[1]]),
        &Parameters::default(),
    );
    let error = error.expect_err("no parameters").to_string();
    assert!(error.contains("embeddings.LayerNorm.weight"), "{error}");
}

#[test]
fn packed_parameters_give_the_same_bits_until_they_are_replaced() {
    let checkpoint = open("bert");
    let encoder = DifferentiableEncoder::new(&checkpoint).expect("an encoder");
    let mut parameters = parameters_of(&encoder, &checkpoint);
    let batch = random_batch(encoder.spec(), &[5, 2], 3);
    let run = |parameters: &Parameters| {
        let states = encoder.hidden_states(parameters, &batch, &FloatInputs);
        numbers(states.expect("runs").last().expect("states"))
    };
    let expected = run(&parameters);
    parameters.pack().expect("matrices");
    assert_eq!(run(&parameters), expected);
    let name = "encoder.layer.0.output.dense.weight";
    let zeros = parameters.get(name).expect("there").zeros_like();
    parameters.insert(name.to_owned(), zeros.expect("zeros"));
    let changed = run(&parameters);
    assert_ne!(changed, expected);
    parameters.pack().expect("matrices");
    assert_eq!(run(&parameters), changed);
}

/// The agreement with transformers that the executor's tests ask for.
#[test]
fn last_hidden_states_are_those_of_transformers() {
    const TOLERANCE: f32 = 2e-5;
    for name in names() {
        let checkpoint = open(&name);
        let encoder = DifferentiableEncoder::new(&checkpoint).expect("an encoder");
        let parameters = parameters_of(&encoder, &checkpoint);
        let golden = crate::golden::expected(&name);
        let ids = |key: &str| {
            let ids = golden.get(key)?.to_vec1::<i64>().expect("ids");
            Some(ids.into_iter().map(|id| id as u32).collect::<Vec<_>>())
        };
        let mut sequences = 0;
        while let Some(tokens) = ids(&format!("sequence.{sequences}.input_ids")) {
            let types = ids(&format!("sequence.{sequences}.token_type_ids"));
            let mut batch = RaggedBatch::new();
            batch.push(&tokens, &types.unwrap_or_default());
            let states = encoder.hidden_states(&parameters, &batch, &FloatInputs);
            let states = states.expect("runs");
            let expected = &golden[&format!("sequence.{sequences}.last_hidden_state")];
            let found = numbers(states.last().expect("states"));
            let difference = largest_difference(&found, &numbers(expected));
            assert!(
                difference <= TOLERANCE,
                "{name}, sequence {sequences}: {difference}"
            );
            sequences += 1;
        }
        assert!(sequences > 0, "{name}");
    }
}
