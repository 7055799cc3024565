//! The two streams: data on standard output, everything else on standard error.

use crate::interruption::hold_if_interrupted;
use crate::style::Style;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// The reader of standard output closed it (`fewbit … | head`); not a failure.
#[derive(Debug)]
pub(crate) struct StdoutClosed;

impl fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output was closed")
    }
}
impl std::error::Error for StdoutClosed {}

/// Whether `--quiet` was given. Said once, before anything else is.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Leaves out notes and progress from now on.
pub(crate) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether notes and progress are left out.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Writes data to standard output. A reader that went away is [`StdoutClosed`], any other failure an error.
pub(crate) fn print(text: &str) -> Result<()> {
    hold_if_interrupted();
    let mut stdout = io::stdout().lock();
    written(
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush()),
    )
}

/// Writes `value` as indented JSON and a line end to standard output.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let mut text =
        serde_json::to_string_pretty(value).context("cannot write the result as JSON")?;
    text.push('\n');
    print(&text)
}

/// Gives a failed write to standard output its meaning.
pub(crate) fn written(result: io::Result<()>) -> Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// Writes a note to standard error, unless `--quiet` was given.
pub(crate) fn note(text: &str) {
    if !is_quiet() {
        complain(text);
    }
}

/// [`note`] of the thread that a signal has to end the program, after which all others are silent.
pub(crate) fn note_in_the_end(text: &str) {
    if !is_quiet() {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Writes what must be known to standard error. A failure of that cannot be reported and is passed over.
pub(crate) fn complain(text: &str) {
    hold_if_interrupted();
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes `warning: …` to standard error.
pub(crate) fn warn(text: &str) {
    complain(&format!(
        "{} {text}\n",
        Style::for_stderr().warning("warning:")
    ));
}
