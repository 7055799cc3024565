//! `fewbit doctor`

use crate::arguments::{GlobalArguments, ThreadsArgument};
use crate::machine::Machine;
use crate::render::numbers::bytes;
use crate::streams;
use anyhow::{Result, bail};
use fewbit::checkpoint::hub::HubSettings;
use fewbit::checkpoint::leftovers;
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
    /// None where the environment names no home.
    hub_cache: Option<PathBuf>,
    /// What killed processes left in the directory of temporary files and in the current one.
    leftovers: Vec<FoundLeftover>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct FoundLeftover {
    path: PathBuf,
    bytes: u64,
    /// The output whose old model is nowhere else, and goes back there.
    #[serde(skip_serializing_if = "Option::is_none")]
    restores: Option<PathBuf>,
}

fn found_leftovers() -> Vec<FoundLeftover> {
    let mut directories = vec![std::env::temp_dir(), PathBuf::from(".")];
    directories.retain(|directory| directory.is_dir());
    directories.dedup_by(|a, b| a.canonicalize().ok() == b.canonicalize().ok());
    let found = directories
        .iter()
        .flat_map(|directory| leftovers::find(directory));
    found
        .map(|leftover| FoundLeftover {
            path: leftover.path().to_owned(),
            bytes: leftover.bytes(),
            restores: leftover.restores(),
        })
        .collect()
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
        leftovers: found_leftovers(),
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
    let mut text = format!(
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
        diagnosis.hub_cache.as_ref().map_or_else(
            || "none: set HF_HOME to download models".to_owned(),
            |cache| cache.display().to_string()
        )
    );
    for leftover in &diagnosis.leftovers {
        text.push_str(&format!(
            "left behind      {} ({}){}\n",
            leftover.path.display(),
            bytes(leftover.bytes),
            leftover.restores.as_ref().map_or_else(String::new, |out| {
                format!(": the only copy of the old model {}", out.display())
            })
        ));
    }
    if !diagnosis.leftovers.is_empty() {
        text.push_str(
            "                 made by processes that were killed; the next quantize, calibrate, embed or compare that\n                 writes there removes them, and puts an old model back to its place\n",
        );
    }
    text
}
