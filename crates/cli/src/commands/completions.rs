//! `fewbit completions`

use crate::arguments::{Arguments, CompletionsArguments};
use crate::streams;
use anyhow::Result;

pub(super) fn run(arguments: CompletionsArguments) -> Result<()> {
    let mut script = Vec::new();
    let mut command = Arguments::program();
    clap_complete::generate(arguments.shell, &mut command, "fewbit", &mut script);
    streams::print(&String::from_utf8(script)?)
}
