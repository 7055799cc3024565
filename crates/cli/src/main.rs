//! The `fewbit` command line.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod embedding_file;
mod failure;
mod interruption;
mod machine;
mod method_argument;
mod model_directory;
mod render;
mod streams;
mod style;
mod texts;

use arguments::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut typed = std::env::args_os().skip(1);
    let measures = typed
        .next()
        .is_some_and(|word| word == commands::MEASURE_ONE_MODEL);
    let arguments = (!measures).then(Arguments::read);
    let signals = match &arguments {
        Some(_) => interruption::clean_up_on_signals(),
        None => interruption::end_with_parent(),
    };
    let outcome = signals.and_then(|()| match &arguments {
        Some(arguments) => commands::run(arguments),
        None => commands::measure_one_model(),
    });
    interruption::leave(|| match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    })
}
