//! What a measuring process is asked, one JSON request a line, and how it answers.

use super::{InProcess, ModelHost, ModelOutput, OpenModel};
use crate::Error;
use fewbit_evaluate::{BatchShape, ShapeRequest, TextRequest};
use fewbit_model::{Embeddings, WeightOnlyArithmetic};
use serde::{Deserialize, Serialize};
use serde_json::{Value, to_value};
use std::fs::File;
use std::io::{BufRead, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// What is asked of a measuring process: to open a model, then what [`OpenModel`] can do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Task {
    /// Opens the model that all other tasks are about; the answer is its [`OpenFacts`](super::OpenFacts).
    Open {
        directory: PathBuf,
        weight_only: Option<WeightOnlyArithmetic>,
        output: ModelOutput,
    },
    /// The answer is an [`EncodedTexts`]; the values go to this file as little-endian f32.
    Encode {
        request: TextRequest,
        values: PathBuf,
    },
    TimeTexts(TextRequest),
    TimeShape(ShapeRequest),
    MultiplyAddsPerSecond,
    Profile {
        shape: BatchShape,
        minimum_seconds: f64,
    },
    Memory,
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer<T> {
    Done(T),
    /// The text of the error.
    Failed(String),
}

/// Embeddings without their values.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EncodedTexts {
    rows: usize,
    columns: usize,
    truncated: Vec<usize>,
    tokens: usize,
}

impl EncodedTexts {
    /// How many values there are.
    pub(super) fn values(&self) -> usize {
        self.rows * self.columns
    }

    pub(super) fn with_values(self, values: Vec<f32>) -> Embeddings {
        Embeddings {
            rows: self.rows,
            columns: self.columns,
            values,
            truncated: self.truncated,
            tokens: self.tokens,
        }
    }
}

/// Answers the requests of [`MeasuringProcesses`](super::MeasuringProcesses) until they end. A program that is started as a measuring process
/// does nothing else: what memory it uses is the model's then.
///
/// # Errors
/// Something else than a request comes, or answers cannot be written; not if nobody reads them any more.
pub fn answer_requests(requests: impl BufRead, mut answers: impl Write) -> Result<(), Error> {
    let mut open = None;
    for line in requests.lines() {
        let line = line.map_err(|error| said("cannot read the request", &error))?;
        let task = serde_json::from_str(&line)
            .map_err(|error| said("the request is not one that fewbit sends to itself", &error))?;
        let answer = match done(task, &mut open) {
            Ok(value) => Answer::Done(value),
            Err(error) => Answer::Failed(error.to_string()),
        };
        let mut answer = serde_json::to_string(&answer)
            .map_err(|error| said("cannot write the answer", &error))?;
        answer.push('\n');
        let written = answers.write_all(answer.as_bytes());
        match written.and_then(|()| answers.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|error| said("cannot write the answer", &error))?,
        }
    }
    Ok(())
}

fn said(what: &str, error: &dyn std::error::Error) -> Error {
    Error::Measure(format!("{what}\n  caused by: {error}"))
}

fn done(task: Task, open: &mut Option<Box<dyn OpenModel>>) -> Result<Value, Error> {
    if let Task::Open {
        directory,
        weight_only,
        output,
    } = &task
    {
        *open = Some(InProcess.open(directory, *weight_only, *output)?);
    }
    let model = open.as_mut().ok_or_else(|| {
        Error::Measure("the request is about an open model, and none is open".to_owned())
    })?;
    let answer = match task {
        Task::Open { .. } => to_value(model.facts()),
        Task::Encode { request, values } => to_value(encode(model.as_mut(), &request, &values)?),
        Task::TimeTexts(request) => to_value(model.time_texts(&request)?),
        Task::TimeShape(request) => to_value(model.time_shape(&request)?),
        Task::MultiplyAddsPerSecond => to_value(model.multiply_adds_per_second()?),
        Task::Profile {
            shape,
            minimum_seconds,
        } => to_value(model.profile(shape, minimum_seconds)?),
        Task::Memory => to_value(model.memory()?),
    };
    answer.map_err(|error| said("cannot write the answer", &error))
}

/// The values are written as they are, without a second copy in memory, which would count as the model's.
fn encode(
    model: &mut dyn OpenModel,
    request: &TextRequest,
    file: &Path,
) -> Result<EncodedTexts, Error> {
    let embeddings = model.encode(request)?;
    let write = || {
        let mut writer = BufWriter::new(File::create(file)?);
        for value in &embeddings.values {
            writer.write_all(&value.to_le_bytes())?;
        }
        writer.flush()
    };
    write().map_err(|source| Error::Io {
        path: file.to_owned(),
        source,
    })?;
    Ok(EncodedTexts {
        rows: embeddings.rows,
        columns: embeddings.columns,
        truncated: embeddings.truncated,
        tokens: embeddings.tokens,
    })
}
