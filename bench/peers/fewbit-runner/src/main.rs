//! Runs fewbit on token ids and says how long each call took: `fewbit-peers-runner MODEL THREADS`.
//!
//! It is a member of fewbit's workspace, so that what the program needs is built once for both.
#![forbid(unsafe_code)]

mod fewbit_engine;
// The other engines' runner has the file; it is a workspace of its own.
#[path = "../../rust/src/protocol.rs"]
mod protocol;

use anyhow::{Context, Result, bail};
use fewbit_engine::FewbitEngine;
use std::path::Path;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, threads] = arguments.as_slice() else {
        bail!("usage: fewbit-peers-runner MODEL THREADS");
    };
    let threads: usize = threads
        .parse()
        .ok()
        .filter(|&threads| threads > 0)
        .with_context(|| format!("THREADS: expected at least 1, found {threads:?}"))?;
    protocol::serve(FewbitEngine::open(Path::new(model), threads)?)
}
