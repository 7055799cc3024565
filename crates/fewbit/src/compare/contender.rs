//! One model of a comparison on its way to a row.

use super::FailedMethod;
use super::kept_models::directory_name;
use crate::Error;
use crate::measure::Speed;
use fewbit_evaluate::MeasuredModel;
use fewbit_quantize::Recipe;
use std::path::{Path, PathBuf};

pub(super) struct Contender {
    pub(super) name: String,
    /// None for the original.
    pub(super) recipe: Option<Recipe>,
    pub(super) directory: PathBuf,
    pub(super) quantize_seconds: Option<f64>,
    pub(super) measured: Option<MeasuredModel>,
    /// One of each round.
    pub(super) speeds: Vec<Speed>,
    failure: Option<FailedMethod>,
}

impl Contender {
    pub(super) fn original(source: &Path) -> Self {
        Self::new("original".to_owned(), None, source.to_owned())
    }

    /// What `recipe` will make, in a directory below `root`.
    pub(super) fn of(recipe: &Recipe, root: &Path) -> Self {
        let name = recipe.label();
        let directory = root.join(directory_name(&name));
        Self::new(name, Some(recipe.clone()), directory)
    }

    fn new(name: String, recipe: Option<Recipe>, directory: PathBuf) -> Self {
        Contender {
            name,
            recipe,
            directory,
            quantize_seconds: None,
            measured: None,
            speeds: Vec::new(),
            failure: None,
        }
    }

    /// Does a piece of work that this model needs for its row. A method that fails at it is out of the race; without the original there
    /// is nothing to compare with.
    pub(super) fn attempt(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match work(self) {
            Err(error) if self.recipe.is_some() => {
                self.failure = Some(FailedMethod::new(self.name.clone(), &error));
                Ok(())
            }
            result => result,
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    pub(super) fn into_failure(self) -> Option<FailedMethod> {
        self.failure
    }

    /// What was measured, with the middle one of the speeds.
    pub(super) fn take_measured(&mut self) -> Result<MeasuredModel, Error> {
        let Some(mut model) = self.measured.take() else {
            return Err(Error::Measure(format!("{}: not measured", self.name)));
        };
        let middle = self.speeds.len() / 2;
        self.speeds.sort_by(|a, b| {
            a.latency
                .median_milliseconds
                .total_cmp(&b.latency.median_milliseconds)
        });
        model.measurement.latency = self.speeds[middle].latency;
        self.speeds.sort_by(|a, b| {
            a.throughput
                .texts_per_second
                .total_cmp(&b.throughput.texts_per_second)
        });
        model.measurement.throughput = self.speeds[middle].throughput;
        Ok(model)
    }
}
