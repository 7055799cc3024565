//! Measures each model in a process of its own.

use crate::commands::measure::{MeasureAnswer, Task};
use crate::commands::measuring_process::MeasuringProcess;
use fewbit::Error;
use fewbit::checkpoint::temporary_directory::{Purpose, TemporaryDirectory};
use fewbit::evaluate::MeasuredModel;
use fewbit::measure::{Measure, MeasureRequest, Speed};
use std::path::Path;

pub(super) struct ChildProcess {
    scratch: TemporaryDirectory,
}

impl ChildProcess {
    pub(super) fn new() -> Result<Self, Error> {
        let scratch = TemporaryDirectory::new(Purpose::Measure).map_err(|source| Error::Io {
            path: std::env::temp_dir(),
            source,
        })?;
        Ok(ChildProcess { scratch })
    }
}

impl Measure for ChildProcess {
    fn measure(&mut self, request: &MeasureRequest) -> Result<MeasuredModel, Error> {
        let embeddings = self.scratch.path().join("embeddings.f32");
        let task = Task::Measure {
            request: request.clone(),
            embeddings: embeddings.clone(),
        };
        let answer: MeasureAnswer = MeasuringProcess::start(&request.directory)?.ask(&task)?;
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
        let speed: Speed =
            MeasuringProcess::start(&request.directory)?.ask(&Task::Speed(request.clone()))?;
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
