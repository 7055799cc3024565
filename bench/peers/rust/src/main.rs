//! Runs one engine on token ids and says how long each call took: `runner ENGINE MODEL THREADS`.
//!
//! The protocol is that of `runners/protocol.py`; a thread count that an engine reads from the environment
//! (`RAYON_NUM_THREADS`) is set by who starts this program.

mod candle_engine;
mod padded;
mod protocol;
mod rten_engine;
mod tract_engine;

use anyhow::{Context, Result, bail};
use std::path::Path;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, model, threads] = arguments.as_slice() else {
        bail!("usage: runner candle|rten|tract MODEL THREADS");
    };
    let threads: usize = threads
        .parse()
        .ok()
        .filter(|&threads| threads > 0)
        .with_context(|| format!("THREADS: expected at least 1, found {threads:?}"))?;
    let model = Path::new(model);
    match engine.as_str() {
        "candle" => protocol::serve(candle_engine::CandleEngine::open(model, threads)?),
        "rten" => protocol::serve(rten_engine::RtenEngine::open(model, threads)?),
        "tract" => protocol::serve(tract_engine::TractEngine::open(model, threads)?),
        other => bail!("unknown engine {other:?}: expected candle, rten or tract"),
    }
}
