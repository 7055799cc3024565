//! Quantization-aware training: what a conversion is asked for besides its recipe, and the training.

use crate::run::{Progress, run_beside};
use fewbit::calibration::CalibrationOptions;
use fewbit::quantize::OutputOptions;
use fewbit::train::{TrainingOptions, TrainingProgress, TrainingReport, train_model};
use fewbit::{Error, Recipe};
use serde::Deserialize;
use std::path::Path;

/// How a model is trained, under the names of the command line; none: the default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Training {
    steps: Option<usize>,
    learning_rate: Option<f64>,
    batch_size: Option<usize>,
    seed: Option<u64>,
    evaluation_interval: Option<usize>,
    patience: Option<usize>,
}

impl Training {
    fn options(&self, threads: usize) -> TrainingOptions {
        let defaults = TrainingOptions::default();
        TrainingOptions {
            steps: self.steps.unwrap_or(defaults.steps),
            batch_size: self.batch_size.unwrap_or(defaults.batch_size),
            learning_rate: self.learning_rate,
            seed: self.seed.unwrap_or(defaults.seed),
            evaluation_interval: self
                .evaluation_interval
                .unwrap_or(defaults.evaluation_interval),
            patience: self.patience.unwrap_or(defaults.patience),
            threads,
        }
    }

    /// Trains the model in `source` on the texts of `data`, and writes it to `out`.
    pub(crate) fn run(
        &self,
        source: &Path,
        recipe: &Recipe,
        data: CalibrationOptions,
        threads: usize,
        (out, output): (&Path, &OutputOptions),
        progress: &Progress,
    ) -> Result<TrainingReport, Error> {
        let samples = data.to_train_on().samples_for(source, &mut |_| {})?;
        let options = self.options(threads);
        let tell = |state: TrainingProgress| progress.tell(state.step, state.steps, &said(&state));
        run_beside(tell, |tell| {
            Ok(train_model(
                source, recipe, &samples, &options, out, output, tell,
            )?)
        })
    }
}

/// Loss, and what held-out texts are judged by.
fn said(state: &TrainingProgress) -> String {
    let words = state.in_words();
    words.unwrap_or_else(|| "the model to begin with".to_owned())
}
