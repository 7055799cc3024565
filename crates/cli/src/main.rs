//! The `fewbit` command line.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod embedding_file;
mod failure;
mod render;
mod streams;
mod style;
mod texts;

use arguments::Arguments;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
