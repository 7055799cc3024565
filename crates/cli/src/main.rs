//! The `fewbit` command line.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod embedding_file;
mod failure;
mod interruption;
mod machine;
mod method_parser;
mod render;
mod streams;
mod style;
mod texts;

use arguments::Arguments;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => without_hidden_commands(error).exit(),
    };
    match interruption::clean_up_on_signals().and_then(|()| commands::run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

/// clap lists every command where one is missing, those that are hidden from the help too.
fn without_hidden_commands(mut error: clap::Error) -> clap::Error {
    let command = Arguments::command();
    let hidden = |name: &String| {
        command
            .get_subcommands()
            .any(|known| known.is_hide_set() && known.get_name() == name)
    };
    if let Some(ContextValue::Strings(names)) = error.get(ContextKind::ValidSubcommand) {
        let shown = names.iter().filter(|name| !hidden(name)).cloned().collect();
        error.insert(ContextKind::ValidSubcommand, ContextValue::Strings(shown));
    }
    error
}
