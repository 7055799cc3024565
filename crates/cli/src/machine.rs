//! The machine that measurements were taken on.

use serde::Serialize;

/// This program and the machine that it runs on.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) version: &'static str,
    /// Architecture and operating system that the program was built for: `x86_64-linux`.
    pub(crate) target: String,
    pub(crate) cpu: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        Machine {
            version: env!("CARGO_PKG_VERSION"),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            cpu: cpu_name(),
        }
    }
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
