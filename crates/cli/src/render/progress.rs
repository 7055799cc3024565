//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use crate::streams;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Work that takes no longer needs no lines.
const SILENT: Duration = Duration::from_secs(2);

/// Progress of one piece of long work.
pub(crate) struct Progress {
    display: Display,
}

enum Display {
    /// `--quiet`
    Nothing,
    Bar(ProgressBar),
    /// Says each tenth once, and nothing of work that is done within [`SILENT`].
    Lines {
        said: u64,
        title: String,
        start: Instant,
    },
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Texts,
    /// Over the same texts.
    Passes,
    /// Rows of token ids.
    Rows,
    /// Of an optimizer.
    Steps,
}

impl Progress {
    /// Starts to show the work `title`, in all `total` of `unit`.
    pub(crate) fn start(title: &str, total: u64, unit: Unit) -> Self {
        let display = if streams::is_quiet() {
            Display::Nothing
        } else if std::io::stderr().is_terminal() {
            let count = match unit {
                Unit::Bytes => "{decimal_bytes}/{decimal_total_bytes}",
                Unit::Texts => "{human_pos}/{human_len} texts",
                Unit::Passes => "{human_pos}/{human_len} passes",
                Unit::Rows => "{human_pos}/{human_len} rows",
                Unit::Steps => "{human_pos}/{human_len} steps",
            };
            let colour = if crate::style::no_color() {
                ""
            } else {
                ".cyan"
            };
            let template = format!("{{prefix}} [{{bar:30{colour}}}] {count} {{eta}} {{wide_msg}}");
            let style = ProgressStyle::with_template(&template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total)
                .with_style(style.progress_chars("=> "))
                .with_prefix(title.to_owned());
            Display::Bar(bar)
        } else {
            Display::Lines {
                said: 0,
                title: title.to_owned(),
                start: Instant::now(),
            }
        };
        Progress { display }
    }

    /// `done` were done before this work began: they say nothing about the time left.
    pub(crate) fn begin_after(&mut self, done: u64) {
        if let Display::Bar(bar) = &self.display {
            bar.set_position(done);
            bar.reset_eta();
        }
    }

    /// `done` of `total` are done; `what` is worked on.
    pub(crate) fn set(&mut self, done: u64, total: u64, what: &str) {
        match &mut self.display {
            Display::Nothing => {}
            Display::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(what.to_owned());
            }
            Display::Lines { said, title, start } => {
                let tenths = (done * 10).checked_div(total).unwrap_or(10);
                if tenths > *said && start.elapsed() >= SILENT {
                    *said = tenths;
                    streams::note(&format!("{title}: {} %\n", tenths * 10));
                }
            }
        }
    }

    /// Takes the bar off the terminal.
    pub(crate) fn finish(self) {
        if let Display::Bar(bar) = self.display {
            bar.finish_and_clear();
        }
    }
}

/// How often a growing count is said where there is no terminal.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Progress of work whose end is not known: a count.
pub(crate) struct Count {
    title: String,
    bar: Option<ProgressBar>,
    said: Instant,
}

impl Count {
    /// Starts to count the texts of the work `title`.
    pub(crate) fn start(title: &str) -> Self {
        let shown = std::io::stderr().is_terminal() && !streams::is_quiet();
        Count {
            title: title.to_owned(),
            bar: shown.then(|| {
                let style = ProgressStyle::with_template("{prefix} {human_pos} texts, {per_sec}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
                ProgressBar::no_length()
                    .with_style(style)
                    .with_prefix(title.to_owned())
            }),
            said: Instant::now(),
        }
    }

    /// So many are done.
    pub(crate) fn set(&mut self, done: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.said.elapsed() >= SAY_EVERY => {
                self.said = Instant::now();
                streams::note(&format!("{}: {done} texts\n", self.title));
            }
            None => {}
        }
    }

    /// Takes the count off the terminal.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Progress of work in steps of unlike length: one bar on a terminal, a line a step elsewhere.
pub(crate) struct Steps {
    bar: Option<ProgressBar>,
    total: usize,
    started: usize,
}

impl Steps {
    /// Starts work of `total` steps; with `plain` a terminal gets lines, too, which log lines do not disturb.
    pub(crate) fn start(total: usize, plain: bool) -> Self {
        let bar = (std::io::stderr().is_terminal() && !plain && !streams::is_quiet()).then(|| {
            let colour = if crate::style::no_color() {
                ""
            } else {
                ".cyan"
            };
            let style = ProgressStyle::with_template(&format!("[{{bar:30{colour}}}] {{wide_msg}}"))
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total as u64).with_style(style.progress_chars("=> "))
        });
        Steps {
            bar,
            total,
            started: 0,
        }
    }

    /// The next step starts: `what`.
    pub(crate) fn next(&mut self, what: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.started as u64);
                bar.set_message(format!(
                    "step {} of {}: {what}",
                    self.started + 1,
                    self.total
                ));
            }
            None => streams::note(&format!("{what}\n")),
        }
        self.started += 1;
    }

    /// Takes the bar off the terminal.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
