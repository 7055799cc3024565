//! Which sites tolerate a static range.
//!
//! # The measure
//!
//! Every site's rows x are quantized twice: to x' with the range that calibration chose, and to x'' with a range of their own, token by
//! token. Over all rows
//!
//! ```text
//! SQNR = 10 log10( sum x^2 / sum (x - x')^2 )   dB
//! ```
//!
//! The first says how much noise a static range puts into the layers that read the site, the second how much 8 bits cost at any rate. A site
//! whose static SQNR is below [`LEAST_SQNR_DB`] and that is better off token by token becomes dynamic.
//!
//! Both come from the statistics, which hold what is needed (the error with one range is the expected one of a histogram of the values):
//! statistics that were saved, or merged from several runs, decide like those of one run.

use serde::Serialize;

use super::CalibrationStatistics;
use crate::{Backend, QuantizeError, StaticInputs};

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
    /// What a static range adds to 1 - mean cosine of the embeddings to those of the float model, if that was measured:
    /// [`Calibrator::measure_output_effect`](super::Calibrator::measure_output_effect).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_effect: Option<f64>,
}

impl SiteSensitivity {
    /// Whether the site does without a static range, where static sites have a ratio of `least_sqnr_db` at least.
    pub fn is_dynamic(&self, least_sqnr_db: f64) -> bool {
        self.static_sqnr_db < least_sqnr_db && self.dynamic_sqnr_db > self.static_sqnr_db
    }
}

/// The static sites whose ratio of signal to noise is low: what a backend costs that makes every input static.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NoisyStaticSites {
    /// How many there are.
    pub count: usize,
    /// The one with the least ratio.
    pub worst: SiteSensitivity,
}

impl NoisyStaticSites {
    /// Those of `sites` that are static with `least_sqnr_db` although they would be dynamic with [`LEAST_SQNR_DB`]; none if there is none.
    pub fn among(sites: &[SiteSensitivity], least_sqnr_db: f64) -> Option<Self> {
        let noisy = || {
            sites
                .iter()
                .filter(|site| site.is_dynamic(LEAST_SQNR_DB) && !site.is_dynamic(least_sqnr_db))
        };
        let worst = noisy().min_by(|a, b| a.static_sqnr_db.total_cmp(&b.static_sqnr_db))?;
        Some(Self {
            count: noisy().count(),
            worst: worst.clone(),
        })
    }
}

/// What the calibrated ranges cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensitivity {
    sites: Vec<SiteSensitivity>,
}

impl Sensitivity {
    /// What the ranges cost that these statistics choose.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] for statistics of no text; [`QuantizeError::Observer`] for damaged ones.
    pub fn new(statistics: &CalibrationStatistics) -> Result<Self, QuantizeError> {
        let sites = statistics.site_sensitivities()?;
        Ok(Self { sites })
    }

    /// Each site in execution order.
    pub fn sites(&self) -> &[SiteSensitivity] {
        &self.sites
    }

    pub(super) fn sites_mut(&mut self) -> &mut [SiteSensitivity] {
        &mut self.sites
    }

    /// The scales of the sites that tolerate a static range; the others are dynamic. Weights have the scales of `backend`, whose
    /// [`least_sqnr_db`](Backend::least_sqnr_db) is what `least_sqnr_db` is by default.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] if that leaves no static site.
    pub fn static_inputs(
        &self,
        statistics: &CalibrationStatistics,
        backend: Backend,
        least_sqnr_db: f64,
    ) -> Result<StaticInputs, QuantizeError> {
        let dynamic: Vec<&str> = self
            .sites
            .iter()
            .filter(|site| site.is_dynamic(least_sqnr_db))
            .map(|site| site.site.as_str())
            .collect();
        if dynamic.len() == self.sites.len() {
            return Err(QuantizeError::Calibration {
                place: "sensitivity".to_owned(),
                expected: format!("a site with a static SQNR of at least {least_sqnr_db} dB"),
                found: self.worst_and_best(),
                hint: "use the method `dynamic`, which needs no ranges; a lower --min-sqnr keeps more inputs static, --min-sqnr=-inf all of them"
                    .to_owned(),
            });
        }
        let inputs = statistics.static_inputs_without(|site| dynamic.contains(&site))?;
        Ok(StaticInputs {
            weight_scales: backend.qconfig().weight_scales(),
            ..inputs
        })
    }

    fn worst_and_best(&self) -> String {
        let ratios = || self.sites.iter().map(|site| site.static_sqnr_db);
        let (least, greatest) = (
            ratios().fold(f64::INFINITY, f64::min),
            ratios().fold(f64::NEG_INFINITY, f64::max),
        );
        format!("none: they have {least:.1} to {greatest:.1} dB")
    }
}
