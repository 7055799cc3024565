//! Measures each model in a process of its own: this program again, with the hidden command.

use crate::commands::measure::{MeasureAnswer, Task, TaskKind};
use fewbit::Error;
use fewbit::checkpoint::unfinished::Unfinished;
use fewbit::evaluate::MeasuredModel;
use fewbit::measure::{Measure, MeasureRequest, Speed};
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

pub(super) struct ChildProcess {
    program: PathBuf,
    scratch: TempDir,
    _unfinished: Unfinished,
}

impl ChildProcess {
    pub(super) fn new() -> Result<Self, Error> {
        let io = |source| Error::Io {
            path: std::env::temp_dir(),
            source,
        };
        let scratch = tempfile::Builder::new()
            .prefix("fewbit-measure-")
            .tempdir()
            .map_err(io)?;
        Ok(ChildProcess {
            program: std::env::current_exe().map_err(|source| Error::Io {
                path: "the fewbit program".into(),
                source,
            })?,
            _unfinished: Unfinished::register(scratch.path()),
            scratch,
        })
    }

    fn answer<T: DeserializeOwned>(&self, task: &Task) -> Result<T, Error> {
        let failed = |what: String| {
            Error::Compare(format!(
                "{}: measuring in a process of its own: {what}",
                task.request.directory.display()
            ))
        };
        let request = serde_json::to_vec(task).map_err(|error| failed(error.to_string()))?;
        let mut child = Command::new(&self.program)
            .arg("measure-one-model")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("cannot start {}: {error}", self.program.display())))?;
        // The process reads its request to the end before it writes anything. If it is gone before that, its exit
        // status and standard error say more than the broken pipe.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(&request);
        }
        let output = child
            .wait_with_output()
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim().trim_start_matches("error: ");
            return Err(failed(if said.is_empty() {
                output.status.to_string()
            } else {
                said.to_owned()
            }));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| failed(format!("unreadable answer: {error}")))
    }
}

impl Measure for ChildProcess {
    fn measure(&mut self, request: &MeasureRequest) -> Result<MeasuredModel, Error> {
        let embeddings = self.scratch.path().join("embeddings.f32");
        let answer: MeasureAnswer = self.answer(&Task {
            request: request.clone(),
            kind: TaskKind::Measure {
                embeddings: embeddings.clone(),
            },
        })?;
        let model = answer.into_measured_model(read_values(&embeddings)?);
        tracing::info!(
            name = request.name,
            load_seconds = model.measurement.load_seconds,
            weight_memory_bytes = model.measurement.weight_memory_bytes,
            peak_resident_bytes = model.measurement.peak_resident_bytes,
            tokens = model.embeddings.tokens,
            "texts encoded"
        );
        Ok(model)
    }

    fn speed(&mut self, request: &MeasureRequest) -> Result<Speed, Error> {
        let speed: Speed = self.answer(&Task {
            request: request.clone(),
            kind: TaskKind::Speed,
        })?;
        tracing::info!(
            name = request.name,
            median_milliseconds = speed.latency.median_milliseconds,
            texts_per_second = speed.throughput.texts_per_second,
            "speed measured"
        );
        Ok(speed)
    }
}

fn read_values(path: &Path) -> Result<Vec<f32>, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect())
}
