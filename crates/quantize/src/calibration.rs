//! What the activations of a float model look like, collected from texts: prepare, calibrate, convert.
//!
//! [`Calibrator::prepare`] loads a float model and gives every site an observer, [`Calibrator::observe`] runs texts through it, and
//! [`Calibrator::finish`] gives [`CalibrationStatistics`], of which a static [`Recipe`] is made. [`StaticCalibration`] makes it as a backend does;
//! [`StatisticsFile`] writes statistics to a file, saving them on the way.
//! Only statistics are kept, never activations, so that memory does not grow with the texts.
//!
//! ```no_run
//! use fewbit_quantize::calibration::Calibrator;
//! use fewbit_quantize::{Backend, quantize_model};
//!
//! let mut calibrator = Calibrator::prepare("models/minilm", Backend::Native.qconfig().activation())?;
//! calibrator.observe(&["A text like those that the model will see."])?;
//! let statistics = calibrator.finish()?;
//! let recipe = statistics.recipe()?;
//! quantize_model("models/minilm", &recipe, "models/minilm-static", false, &mut |_, _, _| {})?;
//! # Ok::<(), fewbit_quantize::QuantizeError>(())
//! ```

mod collector;
pub(crate) mod fingerprint;
pub mod input;
mod json_file;
mod output_effect;
mod partial;
mod quantization_noise;
mod reservoir;
mod sensitivity;
mod sites;
mod static_calibration;
mod statistics;
mod statistics_file;
pub mod texts;
pub mod tokens;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Encoder, EncoderSpec, RaggedBatch, open_checkpoint};

use crate::{
    IntegerInputs, IntegerRecipe, ObserverSettings, QuantizeError, Recipe, Selection, StaticInputs,
};
use collector::Collector;
pub use fingerprint::fingerprint as model_fingerprint;
pub use input::{CalibrationInput, CalibrationSamples};
pub use output_effect::OUTPUT_TEXTS;
pub(crate) use output_effect::embedding_loss;
pub use partial::{CalibrationRun, PartialCalibration};
pub use sensitivity::{LEAST_SQNR_DB, NoisyStaticSites, Sensitivity, SiteSensitivity};
pub use sites::{CalibrationSite, calibration_sites};
pub use static_calibration::StaticCalibration;
pub use statistics::{CalibrationStatistics, STATISTICS_VERSION};
pub use statistics_file::{CalibratedFile, StatisticsFile};

/// A float model whose layers' inputs are observed.
#[derive(Debug)]
pub struct Calibrator {
    /// The directory that was named: that of the model, its modules and all.
    source: PathBuf,
    encoder: Encoder,
    statistics: CalibrationStatistics,
}

impl Calibrator {
    /// Loads the float model in `source`, with an observer as `settings` say for the input of each linear layer.
    ///
    /// # Errors
    /// The source is no model that can be run on texts; it is quantized already.
    pub fn prepare(
        source: impl AsRef<Path>,
        settings: ObserverSettings,
    ) -> Result<Self, QuantizeError> {
        let source = source.as_ref().to_owned();
        let encoder = Encoder::open(&source)?;
        let checkpoint = open_checkpoint(encoder.checkpoint_directory())?;
        crate::plan::require_float_source(&checkpoint)?;
        let catalogue = encoder.network().spec().catalogue();
        let statistics = CalibrationStatistics::new(
            fingerprint::fingerprint(&checkpoint, catalogue.linear_modules())?,
            settings,
            calibration_sites(&catalogue),
        )?;
        Ok(Self {
            source,
            encoder,
            statistics,
        })
    }

    /// Takes in what an earlier calibration of the same model has seen, after what was collected so far.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] if the statistics are of another model or of another observer.
    pub fn merge(&mut self, statistics: &CalibrationStatistics) -> Result<(), QuantizeError> {
        self.statistics.merge(statistics)
    }

    /// Goes on from what an interrupted calibration of the same model had seen, in the place of what was collected so far: what follows gives
    /// the same bits as without the interruption.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] if the statistics are of another model or of another observer.
    pub fn resume(&mut self, statistics: CalibrationStatistics) -> Result<(), QuantizeError> {
        self.statistics.expect_like(&statistics)?;
        self.statistics = statistics;
        Ok(())
    }

    /// Runs texts through the model and observes. How texts are cut into calls has an effect on moving averages only.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] for an empty text; those of [`Encoder::encode`]; after an error what was collected is of no use.
    pub fn observe<S: AsRef<str> + Sync>(&mut self, texts: &[S]) -> Result<(), QuantizeError> {
        if let Some(index) = texts
            .iter()
            .position(|text| text.as_ref().trim().is_empty())
        {
            return Err(QuantizeError::Calibration {
                place: format!("calibration text {index}"),
                expected: "a text".to_owned(),
                found: "an empty one".to_owned(),
                hint: "an empty text says nothing about a model's activations: leave it out"
                    .to_owned(),
            });
        }
        let batch = self.encoder.batch(texts)?;
        self.observe_batch(&batch)
    }

    /// Runs sequences of token ids through the model and observes.
    ///
    /// # Errors
    /// Those of [`Network::hidden_states`](fewbit_model::Network::hidden_states); after an error what was collected is of no use.
    pub fn observe_batch(&mut self, batch: &RaggedBatch) -> Result<(), QuantizeError> {
        let mut collector = Collector::new(&mut self.statistics);
        self.encoder
            .network()
            .hidden_states_tapped(batch, &mut collector)?;
        collector.finish()?;
        self.statistics.count(batch.sequences(), batch.tokens());
        Ok(())
    }

    /// Runs samples through the model, from the one with the number `first` on, in batches of `batch_size`, and observes.
    /// `after_batch(calibrator, samples)` is told after each batch how many of the samples have been seen.
    ///
    /// # Errors
    /// Those of [`observe_batch`](Self::observe_batch) and of `after_batch`.
    ///
    /// # Panics
    /// `batch_size` is 0.
    pub fn observe_samples(
        &mut self,
        samples: &CalibrationSamples,
        first: usize,
        batch_size: usize,
        mut after_batch: impl FnMut(&Self, usize) -> Result<(), QuantizeError>,
    ) -> Result<(), QuantizeError> {
        for range in samples.batches(first, batch_size) {
            let end = range.end;
            self.observe_batch(&samples.batch(&self.encoder, range)?)?;
            after_batch(self, end)?;
        }
        Ok(())
    }

    /// The float model.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// What has been collected so far.
    pub fn statistics(&self) -> &CalibrationStatistics {
        &self.statistics
    }

    /// What was collected; the model stays loaded and is observed anew.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] if no text was observed.
    pub fn restart(&mut self) -> Result<CalibrationStatistics, QuantizeError> {
        self.statistics.expect_samples()?;
        let nothing = self.statistics.emptied()?;
        Ok(std::mem::replace(&mut self.statistics, nothing))
    }

    /// What was collected.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] if no text was observed.
    pub fn finish(self) -> Result<CalibrationStatistics, QuantizeError> {
        self.statistics.expect_samples()?;
        Ok(self.statistics)
    }
}

/// `options`, whatever their inputs, as a recipe of the method `static`, with what calibration decided for those layers of `checkpoint` that it quantizes: scales and
/// codes of their inputs, and which elements of their weights share a scale.
///
/// # Errors
/// A glob of the recipe that matches nothing, and others of [`Selection::new`].
pub fn static_recipe(
    checkpoint: &Checkpoint,
    options: &IntegerRecipe,
    calibrated: &StaticInputs,
) -> Result<Recipe, QuantizeError> {
    let with = |inputs: StaticInputs| {
        Recipe::Integer(IntegerRecipe {
            inputs: IntegerInputs::Static(inputs),
            ..options.clone()
        })
    };
    let catalogue = EncoderSpec::from_checkpoint(checkpoint)?.catalogue();
    let selection = Selection::new(checkpoint, &catalogue, &with(StaticInputs::default()))?;
    let quantized: HashSet<&str> = selection
        .quantized
        .iter()
        .map(|selected| catalogue.without_prefix(&selected.module.name))
        .collect();
    let mut inputs = calibrated.clone();
    inputs
        .scales
        .retain(|module, _| quantized.contains(module.as_str()));
    Ok(with(inputs))
}
