//! The hidden command that measures one model in a process of its own.

use anyhow::{Context, Result};
use fewbit::Embeddings;
use fewbit::evaluate::{MeasuredModel, Measurement};
use fewbit::measure::{InProcess, Measure, MeasureRequest};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::PathBuf;

/// What `compare` asks of a measuring process, as JSON on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) request: MeasureRequest,
    pub(super) kind: TaskKind,
}

/// What to measure.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TaskKind {
    /// All texts in batches; the answer is a [`MeasureAnswer`], the embeddings go to this file as little-endian f32.
    Measure { embeddings: PathBuf },
    /// Texts alone and in batches; the answer is a [`fewbit::measure::Speed`].
    Speed,
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
    crate::interruption::end_with_parent();
    let mut task = String::new();
    std::io::stdin()
        .lock()
        .read_to_string(&mut task)
        .context("cannot read the request")?;
    let task: Task = serde_json::from_str(&task)
        .context("the request is not one that `fewbit compare` sends")?;
    let answer = match task.kind {
        TaskKind::Measure { embeddings: file } => {
            let MeasuredModel {
                name,
                measurement,
                embeddings,
            } = InProcess.measure(&task.request)?;
            let bytes: Vec<u8> = embeddings
                .values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            std::fs::write(&file, bytes)
                .with_context(|| format!("{}: cannot write", file.display()))?;
            serde_json::to_string(&MeasureAnswer {
                name,
                measurement,
                rows: embeddings.rows,
                columns: embeddings.columns,
                truncated: embeddings.truncated,
                tokens: embeddings.tokens,
            })?
        }
        TaskKind::Speed => serde_json::to_string(&InProcess.speed(&task.request)?)?,
    };
    crate::streams::print(&answer)
}
