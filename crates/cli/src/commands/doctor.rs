//! `fewbit doctor`

use crate::arguments::{GlobalArguments, ThreadsArgument};
use crate::streams;
use anyhow::Result;
use fewbit::checkpoint::hub::HubSettings;
use fewbit::kernels::Isa;
use fewbit::threads::{self, Threads};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Serialize)]
struct Diagnosis {
    version: &'static str,
    target: String,
    cpu: String,
    isa: &'static str,
    isas: Vec<&'static str>,
    threads: Threads,
    hub_cache: PathBuf,
}

pub(super) fn run(arguments: ThreadsArgument, global: GlobalArguments) -> Result<()> {
    let diagnosis = Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        cpu: cpu_name(),
        isa: fewbit::isa()?,
        isas: Isa::ALL
            .iter()
            .filter(|isa| isa.is_supported())
            .map(|isa| isa.name())
            .collect(),
        threads: threads::resolve(arguments.threads)?,
        hub_cache: HubSettings::from_environment().cache_directory,
    };
    if global.json {
        return streams::print_json(&diagnosis);
    }
    streams::print(&format!(
        "fewbit           {} ({})\nCPU              {}\ninstruction set  {} (supported: {})\nthreads          {}, from {}\nHub cache        {}\n",
        diagnosis.version,
        diagnosis.target,
        diagnosis.cpu,
        diagnosis.isa,
        diagnosis.isas.join(", "),
        diagnosis.threads.count,
        diagnosis.threads.source,
        diagnosis.hub_cache.display()
    ))
}

/// The CPU's own name, where the operating system says it.
fn cpu_name() -> String {
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    information
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?
                .split_once(':')
                .map(|(_, name)| name.trim().to_owned())
        })
        .unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH))
}
