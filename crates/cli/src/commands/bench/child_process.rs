//! Opens each model in a process of its own, which lives as long as the model is measured.

use crate::commands::measure::Task;
use crate::commands::measuring_process::MeasuringProcess;
use fewbit::Error;
use fewbit::bench::{BenchHost, Memory, OpenFacts, OpenModel, ShapeRequest, TextRequest};
use fewbit::evaluate::{BatchShape, StageProfile, Startup, TextPass};
use fewbit::model::WeightOnlyArithmetic;
use std::path::Path;

pub(super) struct ChildProcess;

impl BenchHost for ChildProcess {
    fn startup(
        &mut self,
        directory: &Path,
        weight_only: Option<WeightOnlyArithmetic>,
        threads: usize,
    ) -> Result<Startup, Error> {
        let startup: Startup = MeasuringProcess::start(directory)?.ask(&Task::Startup {
            directory: directory.to_owned(),
            weight_only,
            threads,
        })?;
        tracing::info!(
            directory = %directory.display(),
            first_embedding_seconds = startup.first_embedding_seconds,
            "started up"
        );
        Ok(startup)
    }

    fn open(
        &mut self,
        directory: &Path,
        weight_only: Option<WeightOnlyArithmetic>,
    ) -> Result<Box<dyn OpenModel>, Error> {
        let mut process = MeasuringProcess::start(directory)?;
        let facts = process.ask(&Task::Open {
            directory: directory.to_owned(),
            weight_only,
        })?;
        Ok(Box::new(OpenInProcess { process, facts }))
    }
}

/// A model that is open in a measuring process.
struct OpenInProcess {
    process: MeasuringProcess,
    facts: OpenFacts,
}

impl OpenModel for OpenInProcess {
    fn facts(&mut self) -> Result<OpenFacts, Error> {
        Ok(self.facts.clone())
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

    fn time_texts(&mut self, request: &TextRequest) -> Result<TextPass, Error> {
        self.process.ask(&Task::TimeTexts(request.clone()))
    }

    fn memory(&mut self) -> Result<Memory, Error> {
        self.process.ask(&Task::Memory)
    }
}
