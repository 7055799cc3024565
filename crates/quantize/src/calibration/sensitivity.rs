//! Which sites tolerate a static range.
//!
//! # The measure
//!
//! The same texts go through the float model once more, and every site's rows x are quantized twice: to x' with the range that calibration chose, and to
//! x'' with a range of their own, token by token. Over all rows
//!
//! ```text
//! SQNR = 10 log10( sum x^2 / sum (x - x')^2 )   dB
//! ```
//!
//! The first says how much noise a static range puts into the layers that read the site, the second how much 8 bits cost at any rate. A site
//! whose static SQNR is below [`LEAST_SQNR_DB`] and that is better off token by token becomes dynamic.

use fewbit_model::{Encoder, Tap};
use fewbit_numerics::activation::{ActivationScheme, row_parameters};
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_numerics::error_statistics::ErrorSums;
use serde::Serialize;

use super::{CalibrationSite, CalibrationStatistics};
use crate::{QuantizeError, Recipe, StaticInput};

/// The least ratio of signal to noise, in dB, of a site that stays static: the noise then has at most 1/1000 of the signal's energy.
pub const LEAST_SQNR_DB: f64 = 30.0;

/// What a static range costs at one site.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteSensitivity {
    /// The site.
    pub site: String,
    /// The layers that read it.
    pub modules: Vec<String>,
    /// Signal to noise ratio with the calibrated range, in dB.
    pub static_sqnr_db: f64,
    /// Signal to noise ratio with a range for each token, in dB.
    pub dynamic_sqnr_db: f64,
}

impl SiteSensitivity {
    /// Whether the site does without a static range, where static sites have a ratio of `least_sqnr_db` at least.
    pub fn is_dynamic(&self, least_sqnr_db: f64) -> bool {
        self.static_sqnr_db < least_sqnr_db && self.dynamic_sqnr_db > self.static_sqnr_db
    }
}

/// Measures what the calibrated ranges cost.
#[derive(Debug)]
pub struct Sensitivity {
    sites: Vec<Measured>,
}

#[derive(Debug)]
struct Measured {
    site: CalibrationSite,
    input: StaticInput,
    codes: CodeRange,
    fixed: ErrorSums,
    dynamic: ErrorSums,
    approximation: Vec<f32>,
}

impl Sensitivity {
    /// Before any text.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] for statistics of no text.
    pub fn new(statistics: &CalibrationStatistics) -> Result<Self, QuantizeError> {
        let codes = statistics.signed_codes();
        let measured = |(site, input)| Measured {
            site,
            input,
            codes,
            fixed: ErrorSums::default(),
            dynamic: ErrorSums::default(),
            approximation: Vec::new(),
        };
        let sites = statistics.inputs()?.into_iter().map(measured).collect();
        Ok(Self { sites })
    }

    /// Runs texts through the float model that was calibrated.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`].
    pub fn observe<S: AsRef<str> + Sync>(
        &mut self,
        encoder: &Encoder,
        texts: &[S],
    ) -> Result<(), QuantizeError> {
        let batch = encoder.batch(texts)?;
        encoder.network().hidden_states_tapped(&batch, self)?;
        Ok(())
    }

    /// Each site in execution order.
    pub fn sites(&self) -> Vec<SiteSensitivity> {
        self.sites
            .iter()
            .map(|measured| SiteSensitivity {
                site: measured.site.name.clone(),
                modules: measured.site.modules.clone(),
                static_sqnr_db: measured.fixed.statistics().sqnr_db,
                dynamic_sqnr_db: measured.dynamic.statistics().sqnr_db,
            })
            .collect()
    }

    /// The recipe in which the sites that do not tolerate a static range are dynamic.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] if that leaves no static site.
    pub fn recipe(
        &self,
        statistics: &CalibrationStatistics,
        least_sqnr_db: f64,
    ) -> Result<Recipe, QuantizeError> {
        let sites = self.sites();
        let dynamic: Vec<&str> = sites
            .iter()
            .filter(|site| site.is_dynamic(least_sqnr_db))
            .map(|site| site.site.as_str())
            .collect();
        if dynamic.len() == sites.len() {
            return Err(QuantizeError::Calibration {
                place: "sensitivity".to_owned(),
                expected: format!("a site with a static SQNR of at least {least_sqnr_db} dB"),
                found: "none".to_owned(),
                hint:
                    "the model has no layer whose inputs one range fits: use the method `dynamic`"
                        .to_owned(),
            });
        }
        statistics.recipe_without(|site| dynamic.contains(&site))
    }
}

impl Measured {
    fn see(&mut self, columns: usize, values: &[f32]) {
        let parameters = AffineParameters {
            scale: self.input.scale,
            zero_point: i32::from(self.input.zero_point),
        };
        let rounded = |x: &f32, by: &AffineParameters, codes| by.dequantize(by.quantize(*x, codes));
        self.approximation.clear();
        let fixed = values.iter().map(|x| rounded(x, &parameters, self.codes));
        self.approximation.extend(fixed);
        self.fixed.add(values, &self.approximation);
        self.approximation.clear();
        for row in values.chunks_exact(columns) {
            let (min, max) = row
                .iter()
                .fold((0.0f32, 0.0f32), |(min, max), &x| (min.min(x), max.max(x)));
            let parameters = row_parameters(min, max, ActivationScheme::Affine);
            let dynamic = row
                .iter()
                .map(|x| rounded(x, &parameters, CodeRange::UINT8));
            self.approximation.extend(dynamic);
        }
        self.dynamic.add(values, &self.approximation);
    }
}

impl Tap for Sensitivity {
    fn wants(&self, site: &str) -> bool {
        self.sites.iter().any(|measured| measured.site.name == site)
    }

    fn see(&mut self, site: &str, _rows: usize, columns: usize, values: &[f32]) {
        let mut sites = self.sites.iter_mut();
        if let Some(measured) = sites.find(|measured| measured.site.name == site) {
            measured.see(columns, values);
        }
    }
}
