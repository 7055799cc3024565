//! A process of its own to measure a model in: this program again, with the hidden command. One JSON request a line goes to
//! its standard input, one JSON answer a line comes back; it ends when its standard input does.

use super::measure::{Answer, Task};
use fewbit::Error;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Ended when dropped.
pub(super) struct MeasuringProcess {
    /// Named in errors.
    directory: PathBuf,
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl MeasuringProcess {
    /// Starts a process that will measure the model in `directory`.
    pub(super) fn start(directory: &Path) -> Result<Self, Error> {
        let program = std::env::current_exe().map_err(|source| Error::Io {
            path: "the fewbit program".into(),
            source,
        })?;
        let mut child = Command::new(&program)
            .arg(crate::commands::MEASURE_ONE_MODEL)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                failed(
                    directory,
                    &format!("cannot start {}: {error}", program.display()),
                )
            })?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(directory, "it has no standard streams"));
        };
        Ok(MeasuringProcess {
            directory: directory.to_owned(),
            child,
            requests,
            answers: BufReader::new(answers),
        })
    }

    /// Sends a task and waits for its answer.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, task: &Task) -> Result<T, Error> {
        let mut line = serde_json::to_vec(task)
            .map_err(|error| failed(&self.directory, &error.to_string()))?;
        line.push(b'\n');
        // If it is gone, its exit status says more than the broken pipe.
        let _ = self
            .requests
            .write_all(&line)
            .and_then(|()| self.requests.flush());
        let mut answer = String::new();
        let read = self
            .answers
            .read_line(&mut answer)
            .map_err(|error| failed(&self.directory, &error.to_string()))?;
        if read == 0 {
            let end = self.child.wait().map_or_else(
                |error| error.to_string(),
                |status| format!("it ended with {status}\n  hint: where memory runs out, the system ends processes; measure fewer models at a time, or a smaller batch"),
            );
            return Err(failed(&self.directory, &end));
        }
        match serde_json::from_str(&answer) {
            Ok(Answer::Done(value)) => Ok(value),
            Ok(Answer::Failed(text)) => Err(Error::Measure(text)),
            Err(error) => Err(failed(
                &self.directory,
                &format!("unreadable answer: {error}"),
            )),
        }
    }
}

impl Drop for MeasuringProcess {
    fn drop(&mut self) {
        // After an error elsewhere it may be in the middle of work that nobody waits for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failed(directory: &Path, what: &str) -> Error {
    Error::Measure(format!(
        "{}: measuring in a process of its own: {what}",
        directory.display()
    ))
}
