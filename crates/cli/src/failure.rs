//! Errors of a command: their texts and exit codes.

use crate::streams::{self, StdoutClosed};
use crate::style::Style;
use std::fmt;
use std::process::ExitCode;

/// Exit code of work that failed.
const FAILED: u8 = 1;
/// Exit code of wrong usage; clap uses the same.
const USAGE: u8 = 2;
/// Exit code of a quality gate that was missed.
const GATE: u8 = 3;

/// Arguments that are each well formed but do not make sense together, or with what they name.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for UsageError {}

/// A quality gate was missed; the text names the methods.
#[derive(Debug)]
pub(crate) struct GateMissed(pub(crate) String);

impl fmt::Display for GateMissed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for GateMissed {}

/// Says on standard error what went wrong and gives the exit code for it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<StdoutClosed>().is_some() {
        return ExitCode::SUCCESS;
    }
    streams::complain(&format!("{}\n", text(error, Style::for_stderr())));
    ExitCode::from(if error.downcast_ref::<UsageError>().is_some() {
        USAGE
    } else if error.downcast_ref::<GateMissed>().is_some() {
        GATE
    } else {
        FAILED
    })
}

/// `error: …`, then each cause that says something new, then all the hints.
fn text(error: &anyhow::Error, style: Style) -> String {
    let mut messages: Vec<String> = Vec::new();
    let mut hints: Vec<String> = Vec::new();
    for cause in error.chain() {
        let cause_text = cause.to_string();
        let mut message = Vec::new();
        for line in cause_text.lines() {
            match line.trim_start().strip_prefix("hint: ") {
                Some(hint) if hints.iter().any(|known| known == hint) => {}
                Some(hint) => hints.push(hint.to_owned()),
                None => message.push(line),
            }
        }
        let message = message.join("\n");
        if !message.is_empty() && !messages.iter().any(|known| known.contains(&message)) {
            messages.push(message);
        }
    }
    let mut out = format!(
        "{} {}",
        style.error("error:"),
        messages.first().map_or("unknown", String::as_str)
    );
    for cause in messages.iter().skip(1) {
        out.push_str("\n  caused by: ");
        out.push_str(&cause.replace('\n', "\n    "));
    }
    for hint in &hints {
        out.push_str(&format!("\n  {} {hint}", style.hint("hint:")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn causes_follow_once_and_hints_come_last() {
        let error = Err::<(), _>(anyhow!(
            "model.safetensors: truncated\n  hint: download it again"
        ))
        .context("cannot open m")
        .context("cannot open m: outer")
        .unwrap_err();
        assert_eq!(
            text(&error, Style::PLAIN),
            "error: cannot open m: outer\n  caused by: model.safetensors: truncated\n  hint: download it again"
        );
    }
}
