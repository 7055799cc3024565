//! A process of its own to measure a model in: a program that calls [`answer_requests`](super::answer_requests). One JSON request a line
//! goes to its standard input, one JSON answer a line comes back; it ends when its standard input does.

use super::requests::{Answer, EncodedTexts, Task};
use super::{Memory, ModelHost, ModelOutput, OpenFacts, OpenModel};
use crate::Error;
use fewbit_checkpoint::temporary_directory::{Purpose, TemporaryDirectory};
use fewbit_evaluate::{BatchShape, ShapeRequest, StageProfile, TextPass, TextRequest};
use fewbit_model::{Embeddings, WeightOnlyArithmetic};
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Opens each model in a process of its own, which lives as long as the model is open.
#[derive(Debug, Clone)]
pub struct MeasuringProcesses {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl MeasuringProcesses {
    /// Processes of `program`, which calls [`answer_requests`](super::answer_requests) if it is given `arguments`.
    pub fn new(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
        }
    }
}

impl ModelHost for MeasuringProcesses {
    fn open(
        &mut self,
        directory: &Path,
        weight_only: Option<WeightOnlyArithmetic>,
        output: ModelOutput,
    ) -> Result<Box<dyn OpenModel>, Error> {
        let mut process = MeasuringProcess::start(self, directory)?;
        let facts = process.ask(&Task::Open {
            directory: directory.to_owned(),
            weight_only,
            output,
        })?;
        Ok(Box::new(OpenElsewhere { process, facts }))
    }
}

/// A model that is open in a measuring process.
struct OpenElsewhere {
    process: MeasuringProcess,
    facts: OpenFacts,
}

impl OpenModel for OpenElsewhere {
    fn facts(&self) -> &OpenFacts {
        &self.facts
    }

    fn encode(&mut self, request: &TextRequest) -> Result<Embeddings, Error> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            |source| Error::Io { path, source }
        };
        let scratch =
            TemporaryDirectory::new(Purpose::Measure).map_err(unreadable(&std::env::temp_dir()))?;
        let file = scratch.path().join("embeddings.f32");
        let encoded: EncodedTexts = self.process.ask(&Task::Encode {
            request: request.clone(),
            values: file.clone(),
        })?;
        let bytes = std::fs::read(&file).map_err(unreadable(&file))?;
        let (values, rest) = bytes.as_chunks();
        let values: Vec<f32> = values
            .iter()
            .map(|value| f32::from_le_bytes(*value))
            .collect();
        if !rest.is_empty() || values.len() != encoded.values() {
            let what = format!(
                "expected {} values of embeddings, found {} bytes",
                encoded.values(),
                bytes.len()
            );
            return Err(failed(&self.process.directory, &what));
        }
        Ok(encoded.with_values(values))
    }

    fn time_texts(&mut self, request: &TextRequest) -> Result<TextPass, Error> {
        self.process.ask(&Task::TimeTexts(request.clone()))
    }

    fn time_shape(&mut self, request: &ShapeRequest) -> Result<Vec<f64>, Error> {
        self.process.ask(&Task::TimeShape(*request))
    }

    fn multiply_adds_per_second(&mut self) -> Result<f64, Error> {
        self.process.ask(&Task::MultiplyAddsPerSecond)
    }

    fn profile(&mut self, shape: BatchShape, minimum_seconds: f64) -> Result<StageProfile, Error> {
        self.process.ask(&Task::Profile {
            shape,
            minimum_seconds,
        })
    }

    fn memory(&mut self) -> Result<Memory, Error> {
        self.process.ask(&Task::Memory)
    }
}

/// Ended when dropped.
struct MeasuringProcess {
    /// Named in errors.
    directory: PathBuf,
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl MeasuringProcess {
    /// Starts a process that will measure the model in `directory`.
    fn start(host: &MeasuringProcesses, directory: &Path) -> Result<Self, Error> {
        let mut child = Command::new(&host.program)
            .args(&host.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                failed(
                    directory,
                    &format!("cannot start {}: {error}", host.program.display()),
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
    fn ask<T: DeserializeOwned>(&mut self, task: &Task) -> Result<T, Error> {
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
