//! `fewbit man`

use crate::arguments::{Arguments, ManArguments};
use crate::streams;
use anyhow::{Context, Result};
use clap::Command;
use clap_mangen::Man;
use std::path::Path;

pub(super) fn run(arguments: &ManArguments) -> Result<()> {
    let mut program = Arguments::program().disable_help_subcommand(true);
    // Gives every command the flags that all of them take, and its whole name.
    program.build();
    match &arguments.output {
        None => {
            let page = page(&program)?;
            streams::print(&String::from_utf8(page)?)
        }
        Some(directory) => {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("{}: cannot create the directory", directory.display()))?;
            write(&program, directory)?;
            for command in program.get_subcommands() {
                write(command, directory)?;
            }
            Ok(())
        }
    }
}

/// Writes the page of `command` as `NAME.1`.
fn write(command: &Command, directory: &Path) -> Result<()> {
    let name = command
        .get_display_name()
        .unwrap_or(command.get_name())
        .to_owned();
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page(command)?)
        .with_context(|| format!("{}: cannot write the page", path.display()))?;
    streams::note(&format!("wrote {}\n", path.display()));
    Ok(())
}

fn page(command: &Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}
