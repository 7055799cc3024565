//! One module a command: resolves what was typed, does the work, hands the result to `render`.

mod bench;
mod calibrate;
mod compare;
mod completions;
mod convert;
mod doctor;
mod embed;
mod inspect;
mod kernels;
mod man;
pub(crate) mod predict;
mod quantize;
mod sensitivity;

use crate::arguments::{Arguments, Command};
use crate::failure::UsageError;
use crate::model_directory::{resolve, warn_of_unused_layers};
use anyhow::{Context, Result};
use fewbit::checkpoint::{leftovers, partial_path};
use fewbit::measure::{MeasuringProcesses, answer_requests};
use std::io::IsTerminal;
use std::path::Path;
use tracing_subscriber::EnvFilter;

/// Does what the arguments say.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let global = arguments.global;
    if global.quiet && global.verbose > 0 {
        // clap sees this only where both stand on the same side of the command.
        return Err(UsageError(
            "the argument '--quiet' cannot be used with '--verbose'".to_owned(),
        )
        .into());
    }
    if global.quiet {
        crate::streams::be_quiet();
    }
    start_log(global.verbose);
    if let Command::Calibrate(_)
    | Command::Quantize(_)
    | Command::Sensitivity(_)
    | Command::Convert(_)
    | Command::Embed(_)
    | Command::Predict(_)
    | Command::Compare(_)
    | Command::Bench(_) = arguments.command
    {
        // Models that killed processes left there are removed by the next command that writes to it, whichever that is.
        leftovers::remove_from(&std::env::temp_dir());
    }
    match &arguments.command {
        Command::Inspect(arguments) => inspect::run(arguments, global),
        Command::Calibrate(arguments) => calibrate::run(arguments, global),
        Command::Sensitivity(arguments) => sensitivity::run(arguments, global),
        Command::Quantize(arguments) => quantize::run(arguments, global),
        Command::Convert(arguments) => convert::run(arguments, global),
        Command::Embed(arguments) => embed::run(arguments, global),
        Command::Predict(arguments) => predict::run(arguments, global),
        Command::Compare(arguments) => compare::run(arguments, global),
        Command::Bench(arguments) => bench::run(arguments, global),
        Command::Kernels(arguments) => kernels::run(*arguments, global),
        Command::Doctor(arguments) => doctor::run(*arguments, global),
        Command::Completions(arguments) => completions::run(*arguments),
        Command::Man(arguments) => man::run(arguments),
    }
}

/// The command that `compare` and `bench` start this program with to measure one model: requests on standard input, answers on standard
/// output. It is no part of the command line that help, completions and manual pages describe.
pub(crate) const MEASURE_ONE_MODEL: &str = "measure-one-model";

/// Does what [`MEASURE_ONE_MODEL`] is for.
pub(crate) fn measure_one_model() -> Result<()> {
    start_log(0);
    let (requests, answers) = (std::io::stdin().lock(), std::io::stdout().lock());
    Ok(answer_requests(requests, answers)?)
}

/// Says that a run which is to go on has nothing to go on from.
fn say_if_nothing_is_to_resume(output: &Path) {
    let partial = partial_path(output);
    if !partial.exists() {
        crate::streams::note(&format!(
            "{} is not there: nothing to resume, starting anew\n",
            partial.display()
        ));
    }
}

/// This program again, with that command.
fn measuring_processes() -> Result<MeasuringProcesses> {
    let program = std::env::current_exe().context("cannot find the fewbit program")?;
    Ok(MeasuringProcesses::new(program, [MEASURE_ONE_MODEL]))
}

fn start_log(verbose: u8) {
    let level = match verbose {
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
