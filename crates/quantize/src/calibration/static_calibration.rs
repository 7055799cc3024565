//! What calibration decides for the method `static`.

use fewbit_model::open_checkpoint;

use super::{
    CalibrationSamples, NoisyStaticSites, OUTPUT_TEXTS, Sensitivity, SiteSensitivity, static_recipe,
};
use crate::{Backend, Calibrator, IntegerRecipe, QuantizeError, Recipe};

/// A model that was calibrated: the ranges of its inputs, what each of them costs, and which are static.
#[derive(Debug)]
pub struct StaticCalibration {
    calibrator: Calibrator,
    samples: CalibrationSamples,
    backend: Backend,
    least_sqnr_db: f64,
    sensitivity: Sensitivity,
}

impl StaticCalibration {
    /// What `calibrator` has seen, decided as `backend` does; with another `least_sqnr_db` than its own if one is given. No backend means
    /// [`Backend::Native`], or the one whose inputs have as many bits as those that were observed. `samples` are what was observed, as far as it
    /// is at hand: [`measure_output_effect`](Self::measure_output_effect) and GPTQ go on with them.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] if nothing was observed.
    pub fn new(
        calibrator: Calibrator,
        samples: CalibrationSamples,
        backend: Option<Backend>,
        least_sqnr_db: Option<f64>,
    ) -> Result<Self, QuantizeError> {
        let statistics = calibrator.statistics();
        let backend = backend.unwrap_or(match statistics.settings().rule().reduce_range() {
            // Of the backends with a reduced range, which are alike.
            true => Backend::X86,
            false => Backend::Native,
        });
        let least_sqnr_db = least_sqnr_db.unwrap_or_else(|| backend.least_sqnr_db());
        let sensitivity = Sensitivity::new(statistics)?;
        for site in sensitivity.sites() {
            let SiteSensitivity {
                site: name,
                static_sqnr_db,
                dynamic_sqnr_db,
                ..
            } = site;
            tracing::info!(site = name, static_sqnr_db, dynamic_sqnr_db, "sensitivity");
        }
        Ok(Self {
            backend,
            least_sqnr_db,
            sensitivity,
            samples,
            calibrator,
        })
    }

    /// `options` with the scales of the layers that they quantize: of every input that tolerates one, and beside FP8 weights of every input.
    ///
    /// # Errors
    /// Those of [`static_recipe`]; [`QuantizeError::Calibration`] if no input tolerates a static range.
    pub fn recipe(&self, options: &IntegerRecipe) -> Result<Recipe, QuantizeError> {
        let statistics = self.calibrator.statistics();
        let inputs = match options.weights.floats() {
            Some(_) => statistics.fp8_inputs()?,
            None => self
                .sensitivity
                .static_inputs(statistics, self.backend, self.least_sqnr_db)?,
        };
        let checkpoint = open_checkpoint(&self.calibrator.source)?;
        static_recipe(&checkpoint, options, &inputs)
    }

    /// The backend whose rules decided.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Inputs whose signal to noise ratio with one range is lower are dynamic, in dB.
    pub fn least_sqnr_db(&self) -> f64 {
        self.least_sqnr_db
    }

    /// What one range costs, input by input, in execution order.
    pub fn sites(&self) -> &[SiteSensitivity] {
        self.sensitivity.sites()
    }

    /// How many inputs are dynamic.
    pub fn dynamic_sites(&self) -> usize {
        let sites = self.sites().iter();
        sites
            .filter(|site| site.is_dynamic(self.least_sqnr_db))
            .count()
    }

    /// Inputs that are static although one range costs much there; none if there is none.
    pub fn noisy_sites(&self) -> Option<NoisyStaticSites> {
        NoisyStaticSites::among(self.sites(), self.least_sqnr_db)
    }

    /// Measures what each range does to the embeddings of the model that `options` make, on some of the texts that it was calibrated with.
    ///
    /// # Errors
    /// Those of [`Calibrator::measure_output_effect`]; [`QuantizeError::Calibration`] for rows of token ids, which cannot be embedded.
    pub fn measure_output_effect(
        &mut self,
        options: &IntegerRecipe,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), QuantizeError> {
        let CalibrationSamples::Texts(texts) = &self.samples else {
            return Err(QuantizeError::Calibration {
                place: "effect on the output".to_owned(),
                expected: "texts to embed".to_owned(),
                found: "rows of token ids".to_owned(),
                hint: "calibrate with a file of texts, or leave out `--sensitivity output`: which inputs are dynamic does not depend on it"
                    .to_owned(),
            });
        };
        let count = texts.len().min(OUTPUT_TEXTS);
        // Evenly spread: files are often sorted.
        let texts: Vec<&String> = (0..count)
            .map(|index| &texts[index * texts.len() / count])
            .collect();
        self.calibrator.measure_output_effect(
            self.sensitivity.sites_mut(),
            options,
            &texts,
            progress,
        )
    }

    /// What it was calibrated with.
    pub fn into_samples(self) -> CalibrationSamples {
        self.samples
    }
}
