//! Task heads: logits against the executor's, and their gradients against differences.

use crate::batches::random_batch;
use crate::golden::{names_with_heads, with_head};
use crate::gradients::{Loss, check, leaves};
use crate::parity::{has_the_same_sums, numbers, parameters_of};
use candle_core::{Device, Tensor};
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::Activation;
use fewbit_model::task_head::{HeadRows, HeadStep};
use fewbit_model::{HeadSpec, Labels, RaggedBatch, TaskModel, open_checkpoint};
use fewbit_train::{DifferentiableEncoder, FloatInputs};

fn encoder_of(checkpoint: &Checkpoint) -> DifferentiableEncoder {
    let encoder = DifferentiableEncoder::new(checkpoint).expect("an encoder");
    let labels = Labels::from_checkpoint(checkpoint).expect("labels");
    let head = HeadSpec::from_checkpoint(checkpoint, encoder.spec(), &labels).expect("a head");
    encoder.with_head(head, checkpoint).expect("a head")
}

#[test]
fn logits_are_those_of_the_executor() {
    for name in names_with_heads() {
        let checkpoint = open_checkpoint(with_head(&name)).expect("a checkpoint");
        let encoder = encoder_of(&checkpoint);
        let parameters = parameters_of(&encoder, &checkpoint);
        let mut batch = random_batch(encoder.spec(), &[1, 7, 12, 3], 7);
        // Heads that read the last token pass over padding, also where there is nothing else.
        if let Some(HeadRows::LastToken {
            padding_id: Some(padding),
        }) = encoder.head().map(|head| head.rows)
        {
            batch.push(&[5, 6, padding, padding], &[]);
            batch.push(&[padding, padding], &[]);
        }
        let model = TaskModel::open(with_head(&name)).expect("opens");
        let expected = model.logits(&batch, 1).expect("runs");
        let logits = |states: &Tensor| {
            let logits = encoder.logits(&parameters, &batch, states, &FloatInputs);
            let logits = logits.expect("runs").expect("a head");
            assert_eq!(logits.dims(), [expected.rows, expected.columns], "{name}");
            numbers(&logits)
        };
        // The bits of the head do not depend on those of the encoder.
        let states = model.network().hidden_states(&batch, 1).expect("runs");
        let shape = (batch.tokens(), encoder.spec().hidden_size);
        let states = Tensor::from_vec(states, shape, &Device::Cpu).expect("states");
        assert_eq!(logits(&states), expected.values, "{name}");
        if has_the_same_sums(encoder.spec()) {
            let states = encoder.hidden_states(&parameters, &batch, &FloatInputs);
            let states = states.expect("runs");
            let found = logits(states.last().expect("states"));
            assert_eq!(found, expected.values, "{name}");
        }
    }
}

/// Of every parameter of the head, and of the encoder's last one, whose gradient comes through the head.
#[test]
fn gradients_of_logits_are_those_of_differences() {
    let mut failures = Vec::new();
    for name in names_with_heads() {
        let checkpoint = open_checkpoint(with_head(&name)).expect("a checkpoint");
        let encoder = encoder_of(&checkpoint);
        let head = encoder.head().expect("a head");
        let parameters = leaves(&encoder, &checkpoint);
        let loss = Loss::new(&encoder, &parameters);
        let is_relu = |step: &HeadStep| {
            matches!(
                step,
                HeadStep::Linear {
                    activation: Activation::Relu,
                    ..
                }
            )
        };
        let is_smooth =
            !head.steps.iter().any(is_relu) && encoder.spec().activation != Activation::Relu;
        let of_head: Vec<&str> = head.modules().map(|module| module.name.as_str()).collect();
        let modules: Vec<&str> = encoder
            .modules()
            .map(|module| module.name.as_str())
            .collect();
        let last = modules[modules.len() - of_head.len() - 1];
        let mut random = fastrand::Rng::with_seed(13);
        let mut checked = 0;
        for (parameter, gradient) in loss.gradients(&parameters) {
            let is_of = |module: &str| {
                let rest = parameter.strip_prefix(module);
                rest.is_some_and(|rest| rest.starts_with('.'))
            };
            if !is_of(last) && !of_head.iter().any(|module| is_of(module)) {
                continue;
            }
            checked += 1;
            let gradient = (parameter.as_str(), gradient.as_slice());
            let found = check(&loss, &parameters, gradient, is_smooth, &mut random);
            failures.extend(
                found
                    .into_iter()
                    .map(|failure| format!("{name}, {failure}")),
            );
        }
        assert!(checked > of_head.len(), "{name}: {checked}");
    }
    assert!(
        failures.is_empty(),
        "{}\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn what_is_no_batch_of_the_head_is_an_error() {
    let checkpoint = open_checkpoint(with_head("bert-sequence")).expect("a checkpoint");
    let encoder = encoder_of(&checkpoint);
    let parameters = parameters_of(&encoder, &checkpoint);
    let logits = |batch: &RaggedBatch, states: &Tensor| {
        let logits = encoder.logits(&parameters, batch, states, &FloatInputs);
        logits.map_err(Box::new)
    };
    let columns = encoder.spec().hidden_size;
    let zeros = |rows: usize| {
        Tensor::zeros((rows, columns), candle_core::DType::F32, &Device::Cpu).expect("zeros")
    };
    let two = RaggedBatch::from_sequences(&[&[1, 2]]);
    let error = logits(&two, &zeros(3)).expect_err("other rows").to_string();
    assert!(error.contains("hidden states [2, 16]"), "{error}");
    let empty = RaggedBatch::from_sequences(&[&[][..]]);
    let error = logits(&empty, &zeros(0)).expect_err("no token").to_string();
    assert!(error.contains("at least one token"), "{error}");
    let nothing = logits(&RaggedBatch::new(), &zeros(0)).expect("nothing to do");
    assert_eq!(nothing.expect("a head").dims(), [0, 3]);
    let without = DifferentiableEncoder::new(&checkpoint).expect("an encoder");
    let none = without.logits(&parameters, &two, &zeros(2), &FloatInputs);
    assert!(none.expect("no head").is_none());
}
