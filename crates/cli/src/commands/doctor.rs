//! `fewbit doctor`

use crate::arguments::{GlobalArguments, ThreadsArgument};
use crate::machine::Machine;
use crate::streams;
use anyhow::{Result, bail};
use fewbit::checkpoint::hub::HubSettings;
use fewbit::kernels::Isa;
use fewbit::threads::{self, Threads};
use serde::Serialize;
use std::fmt::Display;
use std::path::PathBuf;

#[derive(Serialize)]
struct Diagnosis {
    #[serde(flatten)]
    machine: Machine,
    /// None where `problems` says why.
    isa: Option<&'static str>,
    isas: Vec<&'static str>,
    /// None where `problems` says why.
    threads: Option<Threads>,
    hub_cache: PathBuf,
    problems: Vec<String>,
}

pub(super) fn run(arguments: ThreadsArgument, global: GlobalArguments) -> Result<()> {
    let mut problems = Vec::new();
    let isa = kept(fewbit::isa(), &mut problems);
    let threads = kept(threads::resolve(arguments.threads), &mut problems);
    let diagnosis = Diagnosis {
        machine: Machine::here(),
        isa,
        isas: Isa::ALL
            .iter()
            .filter(|isa| isa.is_supported())
            .map(|isa| isa.name())
            .collect(),
        threads,
        hub_cache: HubSettings::from_environment().cache_directory,
        problems,
    };
    if global.json {
        streams::print_json(&diagnosis)?;
    } else {
        streams::print(&text(&diagnosis))?;
    }
    if diagnosis.problems.is_empty() {
        Ok(())
    } else {
        bail!(diagnosis.problems.join("\n"))
    }
}

/// The value, or none and one problem more.
fn kept<T, E: Display>(result: Result<T, E>, problems: &mut Vec<String>) -> Option<T> {
    result
        .map_err(|error| problems.push(error.to_string()))
        .ok()
}

fn text(diagnosis: &Diagnosis) -> String {
    const UNKNOWN: &str = "unknown, see the error";
    format!(
        "fewbit           {} ({})\nCPU              {}\ninstruction set  {} (supported: {})\nthreads          {}\nHub cache        {}\n",
        diagnosis.machine.version,
        diagnosis.machine.target,
        diagnosis.machine.cpu,
        diagnosis.isa.unwrap_or(UNKNOWN),
        diagnosis.isas.join(", "),
        diagnosis.threads.map_or_else(
            || UNKNOWN.to_owned(),
            |threads| format!("{}, from {}", threads.count, threads.source)
        ),
        diagnosis.hub_cache.display()
    )
}
