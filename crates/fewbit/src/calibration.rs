//! Calibration as it is asked for from outside: which texts are observed and how, and what follows for the method `static` and for GPTQ.

use crate::Error;
use fewbit_data::TokenColumns;
use fewbit_data::tokens::INPUT_IDS;
use fewbit_model::{EncoderSpec, open_checkpoint};
use fewbit_quantize::calibration::texts::{
    CalibrationFile, DEFAULT_SEED, Drawn, SampleSize, draw_texts,
};
use fewbit_quantize::calibration::tokens::TokenizedFile;
use fewbit_quantize::calibration::{CalibrationInput, CalibrationSamples, StaticCalibration};
use fewbit_quantize::{
    Backend, CalibrationStatistics, Calibrator, ObserverKind, ObserverSettings, QuantizeError,
    Recipe,
};
use std::path::{Path, PathBuf};

/// Texts or rows that are drawn from a file unless another number is asked for.
pub const DEFAULT_SAMPLES: usize = 256;

/// Texts or rows that are drawn from a file to train on unless another number is asked for.
pub const MOST_TO_TRAIN_ON: usize = 100_000;

/// Texts that run through a model together while it is calibrated, unless another number is asked for.
pub const DEFAULT_BATCH: usize = 32;

/// Where calibration texts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalibrationTexts {
    /// Drawn from a file of texts, or of token ids.
    File(PathBuf),
    /// All of these, in this order.
    Given(Vec<String>),
}

/// What to calibrate with, and how.
#[derive(Debug, Clone)]
pub struct CalibrationOptions {
    /// Texts to observe.
    pub texts: Option<CalibrationTexts>,
    /// Files of statistics that are merged with what is observed.
    pub statistics: Vec<PathBuf>,
    /// Inputs whose signal to noise ratio with one range is lower become dynamic, in dB; by default as the backend has it.
    pub min_sqnr: Option<f64>,
    /// How many texts of a file are drawn.
    pub size: SampleSize,
    /// Texts run together; the ranges of some observers depend on it.
    pub batch_size: usize,
    /// Seed of the draw.
    pub seed: u64,
    /// Columns of a file that hold texts; by default `text`.
    pub fields: Vec<String>,
    /// Column of a file that holds token ids.
    pub input_ids_column: Option<String>,
    /// Column of a file with 1 for each token and 0 for padding.
    pub attention_mask_column: Option<String>,
    /// How ranges are chosen; by default as the backend has it.
    pub observer: Option<ObserverKind>,
    /// Whose defaults to start from; none: [`Backend::Native`], or what saved statistics were observed with.
    pub backend: Option<Backend>,
}

impl Default for CalibrationOptions {
    fn default() -> Self {
        Self {
            texts: None,
            statistics: Vec::new(),
            min_sqnr: None,
            size: SampleSize::UpTo(DEFAULT_SAMPLES),
            batch_size: DEFAULT_BATCH,
            seed: DEFAULT_SEED,
            fields: Vec::new(),
            input_ids_column: None,
            attention_mask_column: None,
            observer: None,
            backend: None,
        }
    }
}

/// What happens while a model is calibrated.
#[derive(Debug)]
pub enum CalibrationStep<'a> {
    /// The file has no column of texts, but one of token ids: these are used.
    TokenIds(&'a Path),
    /// Samples were drawn from this file.
    Drawn(&'a Path, &'a Drawn<CalibrationSamples>),
    /// So many of the samples were observed.
    Observed(usize, &'a CalibrationSamples),
}

impl CalibrationOptions {
    /// The backend whose defaults hold where no statistics are merged.
    pub fn backend(&self) -> Backend {
        self.backend.unwrap_or(Backend::Native)
    }

    /// The observer of activations.
    ///
    /// # Errors
    /// The observer does not go with the backend's rule.
    pub fn observer_settings(&self) -> Result<ObserverSettings, QuantizeError> {
        let defaults = self.backend().qconfig().activation();
        match self.observer {
            None => Ok(defaults),
            Some(kind) => Ok(ObserverSettings::new(kind, defaults.rule())?),
        }
    }

    /// The signal to noise ratio below which an input becomes dynamic, in dB, where no statistics are merged.
    pub fn least_sqnr_db(&self) -> f64 {
        let of_backend = || self.backend().least_sqnr_db();
        self.min_sqnr.unwrap_or_else(of_backend)
    }

    /// The same options for drawing what a model is trained on: far more than what it is calibrated with.
    #[must_use]
    pub fn to_train_on(self) -> Self {
        let size = match self.size {
            SampleSize::UpTo(_) => SampleSize::UpTo(MOST_TO_TRAIN_ON),
            exactly @ SampleSize::Exactly(_) => exactly,
        };
        Self { size, ..self }
    }

    /// The same options for calibrating a model before it is trained: texts that are given are drawn as those of a file are.
    #[must_use]
    pub fn before_training(self) -> Self {
        let texts = match self.texts {
            Some(CalibrationTexts::Given(texts)) => {
                CalibrationTexts::Given(draw_texts(texts, self.size.most(), self.seed)).into()
            }
            texts => texts,
        };
        Self { texts, ..self }
    }

    /// A file to calibrate with, and which of its columns are read.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn input(
        &self,
        file: &Path,
        step: &mut dyn FnMut(CalibrationStep<'_>),
    ) -> Result<CalibrationInput, Error> {
        let (ids, mask) = (&self.input_ids_column, &self.attention_mask_column);
        if ids.is_some() || mask.is_some() {
            let columns = TokenColumns::new(ids.as_deref().unwrap_or(INPUT_IDS), mask.clone());
            let file = TokenizedFile::new(file, columns);
            return Ok(CalibrationInput::Tokens(file));
        }
        if !self.fields.is_empty() {
            let file = CalibrationFile::new(file, &self.fields);
            return Ok(CalibrationInput::Texts(file));
        }
        let input = CalibrationInput::detect(file)?;
        if matches!(input, CalibrationInput::Tokens(_)) {
            step(CalibrationStep::TokenIds(file));
        }
        Ok(input)
    }

    /// The samples that are drawn from `input` for a model of this shape.
    ///
    /// # Errors
    /// The file cannot be read, holds too few samples, or ids that the model does not know.
    pub fn draw(
        &self,
        input: &CalibrationInput,
        spec: &EncoderSpec,
        step: &mut dyn FnMut(CalibrationStep<'_>),
    ) -> Result<CalibrationSamples, Error> {
        let drawn = input.draw(self.size, self.seed, spec)?;
        step(CalibrationStep::Drawn(input.path(), &drawn));
        Ok(drawn.samples)
    }

    /// The samples for a model of this shape; none where there are only statistics.
    ///
    /// # Errors
    /// As [`CalibrationOptions::draw`].
    pub fn samples(
        &self,
        spec: &EncoderSpec,
        step: &mut dyn FnMut(CalibrationStep<'_>),
    ) -> Result<CalibrationSamples, Error> {
        match &self.texts {
            None => Ok(CalibrationSamples::Texts(Vec::new())),
            Some(CalibrationTexts::Given(texts)) => Ok(CalibrationSamples::Texts(texts.clone())),
            Some(CalibrationTexts::File(file)) => {
                let input = self.input(file, step)?;
                self.draw(&input, spec, step)
            }
        }
    }

    /// The samples for the model in `source`.
    ///
    /// # Errors
    /// As [`CalibrationOptions::draw`], or the model is not a readable checkpoint of an encoder.
    pub fn samples_for(
        &self,
        source: &Path,
        step: &mut dyn FnMut(CalibrationStep<'_>),
    ) -> Result<CalibrationSamples, Error> {
        let spec = EncoderSpec::from_checkpoint(&open_checkpoint(source)?)?;
        self.samples(&spec, step)
    }

    /// Calibrates the model in `source`.
    ///
    /// # Errors
    /// Statistics that do not go with the model or with each other, nothing to observe, or texts that the model cannot be run on.
    pub fn calibrate(
        &self,
        source: &Path,
        step: &mut dyn FnMut(CalibrationStep<'_>),
    ) -> Result<StaticCalibration, Error> {
        let saved = CalibrationStatistics::read_all(&self.statistics)?;
        // Saved statistics say themselves how they were observed.
        let settings = match saved.first() {
            Some(statistics) if self.observer.is_none() && self.backend.is_none() => {
                statistics.settings()
            }
            _ => self.observer_settings()?,
        };
        let mut calibrator = Calibrator::prepare(source, settings)?;
        for statistics in &saved {
            calibrator.merge(statistics)?;
        }
        let samples = self.samples(calibrator.encoder().network().spec(), step)?;
        if !samples.is_empty() {
            calibrator.observe_samples(&samples, 0, self.batch_size, |_, done| {
                step(CalibrationStep::Observed(done, &samples));
                Ok(())
            })?;
        }
        let calibration = StaticCalibration::new(calibrator, samples, self.backend, self.min_sqnr)?;
        Ok(calibration)
    }
}

/// What calibration made of recipes.
#[derive(Debug)]
pub struct CalibratedRecipes {
    /// Those that can be applied.
    pub ready: Vec<Recipe>,
    /// Those of `static` that no range was found for, and why.
    pub failed: Vec<(Recipe, QuantizeError)>,
}

impl CalibratedRecipes {
    /// `recipes` with what `calibration` chose for those of `static`.
    pub fn new(recipes: Vec<Recipe>, calibration: &StaticCalibration) -> Self {
        let (mut ready, mut failed) = (Vec::new(), Vec::new());
        for recipe in recipes {
            match recipe.integer() {
                Some(options) if recipe.method().needs_calibration() => {
                    match calibration.recipe(options) {
                        Ok(with_scales) => ready.push(with_scales),
                        Err(error) => failed.push((recipe, error)),
                    }
                }
                _ => ready.push(recipe),
            }
        }
        Self { ready, failed }
    }
}
