//! The hidden command that measures one model in a process of its own.

use anyhow::{Context, Result, anyhow};
use fewbit::Embeddings;
use fewbit::bench::{BenchHost, OpenModel, ShapeRequest, TextRequest};
use fewbit::evaluate::{BatchShape, MeasuredModel, Measurement};
use fewbit::measure::{InProcess, Measure, MeasureRequest};
use fewbit::model::WeightOnlyArithmetic;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What `compare` and `bench` ask of a measuring process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Task {
    /// All texts in batches; the answer is a [`MeasureAnswer`], the embeddings go to this file as little-endian f32.
    Measure {
        request: MeasureRequest,
        embeddings: PathBuf,
    },
    /// Texts alone and in batches; the answer is a [`fewbit::measure::Speed`].
    Speed(MeasureRequest),
    /// The answer is a [`fewbit::evaluate::Startup`].
    Startup {
        directory: PathBuf,
        weight_only: Option<WeightOnlyArithmetic>,
        threads: usize,
    },
    /// Opens a model, which the tasks below are about; the answer is a [`fewbit::bench::OpenFacts`].
    Open {
        directory: PathBuf,
        weight_only: Option<WeightOnlyArithmetic>,
    },
    /// The answer is a list of seconds.
    TimeShape(ShapeRequest),
    /// The answer is a number.
    MultiplyAddsPerSecond,
    /// The answer is a [`fewbit::evaluate::StageProfile`].
    Profile {
        shape: BatchShape,
        minimum_seconds: f64,
    },
    /// The answer is a [`fewbit::evaluate::TextPass`].
    TimeTexts(TextRequest),
    /// The answer is a [`fewbit::bench::Memory`].
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

/// A measured model without the values of its embeddings.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MeasureAnswer {
    name: String,
    measurement: Measurement,
    rows: usize,
    columns: usize,
    truncated: Vec<usize>,
    tokens: usize,
}

impl MeasureAnswer {
    pub(super) fn into_measured_model(self, values: Vec<f32>) -> MeasuredModel {
        MeasuredModel {
            name: self.name,
            measurement: self.measurement,
            embeddings: Embeddings {
                rows: self.rows,
                columns: self.columns,
                values,
                truncated: self.truncated,
                tokens: self.tokens,
            },
        }
    }
}

pub(super) fn run() -> Result<()> {
    let mut open = None;
    for line in std::io::stdin().lines() {
        let line = line.context("cannot read the request")?;
        let task = serde_json::from_str(&line)
            .context("the request is not one that fewbit sends to itself")?;
        let answer = match done(task, &mut open) {
            Ok(value) => Answer::Done(value),
            Err(error) => Answer::Failed(error.to_string()),
        };
        let mut answer = serde_json::to_string(&answer)?;
        answer.push('\n');
        crate::streams::print(&answer)?;
    }
    Ok(())
}

fn done(task: Task, open: &mut Option<Box<dyn OpenModel>>) -> Result<Value> {
    let answer = match task {
        Task::Measure {
            request,
            embeddings,
        } => serde_json::to_value(measure(&request, &embeddings)?)?,
        Task::Speed(request) => serde_json::to_value(InProcess.speed(&request)?)?,
        Task::Startup {
            directory,
            weight_only,
            threads,
        } => serde_json::to_value(InProcess.startup(&directory, weight_only, threads)?)?,
        Task::Open {
            directory,
            weight_only,
        } => serde_json::to_value(
            open.insert(InProcess.open(&directory, weight_only)?)
                .facts()?,
        )?,
        Task::TimeShape(request) => serde_json::to_value(opened(open)?.time_shape(&request)?)?,
        Task::MultiplyAddsPerSecond => {
            serde_json::to_value(opened(open)?.multiply_adds_per_second()?)?
        }
        Task::Profile {
            shape,
            minimum_seconds,
        } => serde_json::to_value(opened(open)?.profile(shape, minimum_seconds)?)?,
        Task::TimeTexts(request) => serde_json::to_value(opened(open)?.time_texts(&request)?)?,
        Task::Memory => serde_json::to_value(opened(open)?.memory()?)?,
    };
    Ok(answer)
}

fn opened(open: &mut Option<Box<dyn OpenModel>>) -> Result<&mut Box<dyn OpenModel>> {
    open.as_mut()
        .ok_or_else(|| anyhow!("the request is about an open model, and none is open"))
}

fn measure(request: &MeasureRequest, file: &Path) -> Result<MeasureAnswer> {
    let MeasuredModel {
        name,
        measurement,
        embeddings,
    } = InProcess.measure(request)?;
    let bytes: Vec<u8> = embeddings
        .values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    std::fs::write(file, bytes)
        .map_err(|error| anyhow!("{}: cannot write: {error}", file.display()))?;
    Ok(MeasureAnswer {
        name,
        measurement,
        rows: embeddings.rows,
        columns: embeddings.columns,
        truncated: embeddings.truncated,
        tokens: embeddings.tokens,
    })
}
