//! The time of a step of training without its optimizer: all hidden states of a batch, their squared distance to others, and its gradients.
//!
//! `cargo bench -p fewbit-train -- MODEL`, MODEL being a directory, by default all-MiniLM-L6-v2 in `models`.
#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

use candle_core::{Tensor, Var};
use fewbit_checkpoint::Checkpoint;
use fewbit_model::RaggedBatch;
use fewbit_train::{DifferentiableEncoder, FloatInputs, Parameters};
use std::error::Error;
use std::time::{Duration, Instant};

/// Sequences of a batch, and tokens of each: a batch, and what the trainer gives to a thread.
const BATCHES: [[usize; 2]; 2] = [[16, 32], [4, 32]];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = std::env::args().skip(1);
    let (options, models): (Vec<String>, Vec<String>) =
        arguments.partition(|argument| argument.starts_with("--"));
    // `cargo bench` passes --bench; as a test, one step of a small model runs.
    let measured = options.iter().any(|option| option == "--bench");
    let default = match measured {
        true => "../../models/all-MiniLM-L6-v2",
        false => "../model/tests/golden/architectures/bert",
    };
    let model = models.first().map_or(default, String::as_str);
    let checkpoint = Checkpoint::open(model)?;
    let encoder = DifferentiableEncoder::new(&checkpoint)?;
    let mut parameters = Parameters::default();
    for (name, values) in encoder.read_parameters(&checkpoint)? {
        parameters.insert(name, Var::from_tensor(&values)?.as_tensor().clone());
    }
    parameters.pack()?;
    for size in BATCHES {
        let [forward, step] = best_of(if measured { 30 } else { 1 }, &encoder, &parameters, size)?;
        let [sequences, tokens] = size;
        println!(
            "{model}, {sequences} x {tokens} tokens: forward {forward:.1} ms, step {step:.1} ms"
        );
    }
    Ok(())
}

/// Milliseconds of a forward pass and of a whole step, the best of `runs`.
fn best_of(
    runs: usize,
    encoder: &DifferentiableEncoder,
    parameters: &Parameters,
    [sequences, tokens]: [usize; 2],
) -> Result<[f64; 2], Box<dyn Error>> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut batch = || {
        let mut batch = RaggedBatch::new();
        for _ in 0..sequences {
            let tokens = tokens.min(encoder.spec().longest_sequence());
            let ids = (0..tokens).map(|_| random.u32(0..encoder.spec().vocab_size as u32));
            batch.push(&ids.collect::<Vec<_>>(), &[]);
        }
        batch
    };
    let targets = encoder.hidden_states(parameters, &batch(), &FloatInputs)?;
    let targets: Vec<Tensor> = targets.iter().map(Tensor::detach).collect();
    let batch = batch();
    let mut best = [Duration::MAX; 2];
    for _ in 0..runs {
        let start = Instant::now();
        let states = encoder.hidden_states(parameters, &batch, &FloatInputs)?;
        let forward = start.elapsed();
        let mut loss = Tensor::new(0f32, states[0].device())?;
        for (state, target) in states.iter().zip(&targets) {
            loss = (loss + (state - target)?.sqr()?.mean_all()?)?;
        }
        std::hint::black_box(loss.backward()?);
        best = [best[0].min(forward), best[1].min(start.elapsed())];
    }
    Ok(best.map(|time| time.as_secs_f64() * 1e3))
}
