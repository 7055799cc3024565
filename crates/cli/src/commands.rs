//! One module a command: resolves what was typed, does the work, hands the result to `render`.

mod bench;
mod calibrate;
mod compare;
mod doctor;
mod embed;
mod inspect;
mod kernels;
mod measure;
mod measuring_process;
mod quantize;

use crate::arguments::{Arguments, Command, GlobalArguments};
use crate::failure::UsageError;
use anyhow::Result;
use fewbit::checkpoint::hub;
use std::io::IsTerminal;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Does what the arguments say.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let global = arguments.global;
    start_log(global);
    match &arguments.command {
        Command::Inspect(arguments) => inspect::run(arguments, global),
        Command::Calibrate(arguments) => calibrate::run(arguments, global),
        Command::Quantize(arguments) => quantize::run(arguments, global),
        Command::Embed(arguments) => embed::run(arguments, global),
        Command::Compare(arguments) => compare::run(arguments, global),
        Command::Bench(arguments) => bench::run(arguments, global),
        Command::Kernels => kernels::run(global),
        Command::Doctor(arguments) => doctor::run(*arguments, global),
        Command::Measure => measure::run(),
    }
}

/// The directory of a model, downloaded first where it is a Hub id.
fn resolve(model: &str) -> Result<PathBuf> {
    if model.trim().is_empty() {
        return Err(UsageError(
            "MODEL is empty\n  hint: name a model directory or a Hub id".to_owned(),
        )
        .into());
    }
    let directory = hub::resolve(model)?;
    tracing::info!(model, directory = %directory.display(), "model found");
    Ok(directory)
}

/// Layers that the files hold and config.json does not ask for are not run; whoever set the number should know.
fn warn_of_unused_layers(layers: usize, stored: usize) {
    if stored > layers {
        crate::streams::warn(&format!(
            "the files hold {stored} layers, config.json asks for {layers}: the others are not used"
        ));
    }
}

fn start_log(global: GlobalArguments) {
    let level = match global.verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = match std::env::var_os(EnvFilter::DEFAULT_ENV).map(|text| text.to_string_lossy().into_owned()) {
        Some(text) if !text.trim().is_empty() => EnvFilter::builder().parse(&text).unwrap_or_else(|error| {
            crate::streams::warn(&format!(
                "RUST_LOG: expected a log filter such as `debug` or `fewbit=trace`, found `{text}`: {error}\n  hint: it is passed over; the log level is {level}"
            ));
            EnvFilter::new(level)
        }),
        _ => EnvFilter::new(level),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !crate::style::no_color())
        .without_time()
        .init();
}
