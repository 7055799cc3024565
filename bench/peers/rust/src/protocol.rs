//! Requests on standard input, answers on standard output, one JSON object a line; `runners/protocol.py` describes them.

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::json;
use std::io::{BufRead, Write};
use std::time::Instant;

/// A loaded model that can be timed.
pub(crate) trait Engine {
    /// A batch in the engine's own input form.
    type Inputs;
    /// What a call gives back: last hidden states of every token, in memory.
    type Outputs;

    /// Name and version, for the table.
    fn version(&self) -> String;

    /// Makes the input form of `sequences`; `fixed` says that this shape will come often and may be compiled for.
    fn prepare(&mut self, sequences: &[Vec<u32>], fixed: bool) -> Result<Self::Inputs>;

    /// The timed part.
    fn run(&mut self, inputs: &Self::Inputs) -> Result<Self::Outputs>;

    /// Last hidden states (total tokens, hidden size) without padding, sequence after sequence.
    fn hidden_states(&self, sequences: &[Vec<u32>], outputs: &Self::Outputs) -> Result<Vec<f32>>;
}

#[derive(Deserialize)]
struct Request {
    /// Batches of sequences of token ids.
    batches: Vec<Vec<Vec<u32>>>,
    fixed: bool,
    #[serde(default)]
    hidden_states: bool,
    /// Calls that are not timed.
    #[serde(default)]
    warm_up: usize,
    #[serde(default)]
    repeats: usize,
}

/// Answers requests until standard input ends.
pub(crate) fn serve<E: Engine>(mut engine: E) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({ "ready": engine.version() }))?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let answer = if request.hidden_states {
            json!({ "embeddings": embeddings(&mut engine, &request)? })
        } else {
            json!({ "seconds": seconds(&mut engine, &request)? })
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

/// For each repeat, the seconds of all batches.
fn seconds<E: Engine>(engine: &mut E, request: &Request) -> Result<Vec<f64>> {
    let inputs = request
        .batches
        .iter()
        .map(|batch| engine.prepare(batch, request.fixed))
        .collect::<Result<Vec<_>>>()?;
    let mut seconds = Vec::with_capacity(request.repeats);
    for repeat in 0..request.warm_up + request.repeats {
        let mut total = 0.0;
        for one in &inputs {
            let start = Instant::now();
            let outputs = engine.run(one)?;
            total += start.elapsed().as_secs_f64();
            drop(outputs);
        }
        if repeat >= request.warm_up {
            seconds.push(total);
        }
    }
    Ok(seconds)
}

/// For each sequence, the mean over its tokens, of unit length.
fn embeddings<E: Engine>(engine: &mut E, request: &Request) -> Result<Vec<Vec<f64>>> {
    let mut rows = Vec::new();
    for batch in &request.batches {
        let inputs = engine.prepare(batch, request.fixed)?;
        let outputs = engine.run(&inputs)?;
        let states = engine.hidden_states(batch, &outputs)?;
        let tokens: usize = batch.iter().map(Vec::len).sum();
        ensure!(
            tokens > 0 && states.len() % tokens == 0,
            "hidden states: expected a multiple of {tokens} numbers, found {}",
            states.len()
        );
        let hidden_size = states.len() / tokens;
        let mut remaining = states.as_slice();
        for sequence in batch {
            let (mine, rest) = remaining.split_at(sequence.len() * hidden_size);
            remaining = rest;
            rows.push(pooled(mine, hidden_size));
        }
    }
    Ok(rows)
}

fn pooled(states: &[f32], hidden_size: usize) -> Vec<f64> {
    let mut sums = vec![0.0; hidden_size];
    for row in states.chunks_exact(hidden_size) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += f64::from(value);
        }
    }
    let norm = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
    sums.iter().map(|sum| sum / norm).collect()
}
