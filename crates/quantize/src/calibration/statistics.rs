//! What calibration keeps.

use std::collections::BTreeMap;
use std::path::Path;

use fewbit_numerics::affine::CodeRange;
use fewbit_numerics::small_floats::fp8_scale;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::CalibrationSite;
use super::json_file;
use super::quantization_noise::QuantizationNoise;
use super::sensitivity::SiteSensitivity;
use crate::observers::{QuantizedDType, Statistics, ValueRange};
use crate::{
    IntegerRecipe, ObserverSettings, QuantizeError, Recipe, StaticInput, StaticInputs, WeightScales,
};

/// Version of the file that [`CalibrationStatistics::write`] writes.
pub const STATISTICS_VERSION: u32 = 1;

/// The statistics of every site of one model: saved as JSON, merged, and made into a [`Recipe`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationStatistics {
    #[serde(deserialize_with = "this_version")]
    version: u32,
    /// SHA-256 of the weights of the linear layers.
    model: String,
    /// Texts observed.
    samples: u64,
    /// Tokens observed, special tokens included.
    tokens: u64,
    settings: ObserverSettings,
    /// In execution order.
    sites: Vec<SiteStatistics>,
}

/// What one site has shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteStatistics {
    site: String,
    modules: Vec<String>,
    statistics: Statistics,
    /// What quantizing costs.
    noise: QuantizationNoise,
}

fn this_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        STATISTICS_VERSION => Ok(STATISTICS_VERSION),
        other => Err(D::Error::custom(format!(
            "version {other}, of another fewbit, where {STATISTICS_VERSION} is read"
        ))),
    }
}

impl CalibrationStatistics {
    pub(super) fn new(
        model: String,
        settings: ObserverSettings,
        sites: Vec<CalibrationSite>,
    ) -> Result<Self, QuantizeError> {
        let sites = sites
            .into_iter()
            .map(|site| {
                let statistics = settings.statistics(0)?;
                Ok(SiteStatistics {
                    site: site.name,
                    modules: site.modules,
                    noise: QuantizationNoise::beside(&statistics),
                    statistics,
                })
            })
            .collect::<Result<_, QuantizeError>>()?;
        Ok(Self {
            version: STATISTICS_VERSION,
            model,
            samples: 0,
            tokens: 0,
            settings,
            sites,
        })
    }

    /// Statistics of a model that another engine runs, and shows to [`observe`](Self::observe): sites are known by the names of layers, and
    /// come as they are seen.
    pub fn of_another_engine(settings: ObserverSettings) -> Self {
        Self {
            version: STATISTICS_VERSION,
            model: String::new(),
            samples: 0,
            tokens: 0,
            settings,
            sites: Vec::new(),
        }
    }

    /// Takes in rows of `columns` values, one a token, of the input of `layer`.
    ///
    /// # Errors
    /// [`QuantizeError::Observer`] for a value that is not finite.
    pub fn observe(
        &mut self,
        layer: &str,
        columns: usize,
        values: &[f32],
    ) -> Result<(), QuantizeError> {
        if values.is_empty() {
            return Ok(());
        }
        if !self.has(layer) {
            let statistics = self.settings.statistics(0)?;
            self.sites.push(SiteStatistics {
                site: layer.to_owned(),
                modules: vec![layer.to_owned()],
                noise: QuantizationNoise::beside(&statistics),
                statistics,
            });
        }
        self.samples = self.samples.max(1);
        self.update(layer, columns, values)
    }

    /// Statistics of no text, of the same model and observer.
    pub(super) fn emptied(&self) -> Result<Self, QuantizeError> {
        let sites = self.sites.iter().map(|site| CalibrationSite {
            name: site.site.clone(),
            modules: site.modules.clone(),
        });
        Self::new(self.model.clone(), self.settings, sites.collect())
    }

    /// Texts observed.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Tokens observed, special tokens included.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The observer of every site and its rule.
    pub fn settings(&self) -> ObserverSettings {
        self.settings
    }

    /// The names of the sites.
    pub fn sites(&self) -> impl Iterator<Item = &str> {
        self.sites.iter().map(|site| site.site.as_str())
    }

    pub(super) fn has(&self, site: &str) -> bool {
        self.sites.iter().any(|known| known.site == site)
    }

    /// Takes in rows of `columns` values, one a token.
    pub(super) fn update(
        &mut self,
        site: &str,
        columns: usize,
        values: &[f32],
    ) -> Result<(), QuantizeError> {
        if let Some(known) = self.sites.iter_mut().find(|known| known.site == site) {
            known.statistics.update(values)?;
            known.noise.update(columns, values)?;
        }
        Ok(())
    }

    pub(super) fn count(&mut self, samples: usize, tokens: usize) {
        self.samples = self.samples.saturating_add(samples as u64);
        self.tokens = self.tokens.saturating_add(tokens as u64);
    }

    pub(super) fn expect_samples(&self) -> Result<(), QuantizeError> {
        if self.samples > 0 {
            return Ok(());
        }
        Err(QuantizeError::Calibration {
            place: "calibration".to_owned(),
            expected: "at least one text".to_owned(),
            found: "none".to_owned(),
            hint: "calibrate() must run before convert()".to_owned(),
        })
    }

    /// Errors unless `other` is of the same model, observed in the same way.
    pub(super) fn expect_like(&self, other: &Self) -> Result<(), QuantizeError> {
        let differs = |field: &str, expected: String, found: String, hint: &str| {
            Err(QuantizeError::Calibration {
                place: format!("statistics: {field}"),
                expected,
                found,
                hint: hint.to_owned(),
            })
        };
        let names = |statistics: &Self| -> Vec<String> {
            statistics
                .sites
                .iter()
                .map(|site| site.site.clone())
                .collect()
        };
        if self.model != other.model || names(self) != names(other) {
            let hint = "statistics are those of one model's weights: calibrate this model";
            return differs("model", self.model.clone(), other.model.clone(), hint);
        }
        if self.settings != other.settings {
            let text = |settings: ObserverSettings| {
                serde_json::to_string(&settings).expect("names and numbers are valid JSON")
            };
            let hint = "statistics of different observers cannot be merged: collect them with the same --observer and --backend";
            return differs("settings", text(self.settings), text(other.settings), hint);
        }
        Ok(())
    }

    /// Takes in what another calibration of the same model has seen, after what this one has.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] if the other is of another model or of another observer; these statistics are then what they were.
    pub fn merge(&mut self, other: &Self) -> Result<(), QuantizeError> {
        self.expect_like(other)?;
        let mut merged = self.sites.clone();
        for (here, there) in merged.iter_mut().zip(&other.sites) {
            here.statistics.merge(&there.statistics)?;
            here.noise.merge(&there.noise);
        }
        self.sites = merged;
        self.samples = self.samples.saturating_add(other.samples);
        self.tokens = self.tokens.saturating_add(other.tokens);
        Ok(())
    }

    /// Scale and zero point (signed codes) of every site.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] before any text; [`QuantizeError::Observer`] for damaged statistics.
    pub(super) fn inputs(&self) -> Result<Vec<(CalibrationSite, StaticInput)>, QuantizeError> {
        self.expect_samples()?;
        let rule = self.settings.rule();
        // The signed codes of compressed-tensors are the unsigned ones less half of their number: 128, or 64 of a reduced range.
        let offset = match rule.dtype() {
            QuantizedDType::Quint8 => -self.signed_codes().min,
            QuantizedDType::Qint8 => 0,
        };
        self.sites
            .iter()
            .map(|site| {
                let parameters = site.statistics.parameters(rule)?;
                let [parameters] = parameters[..] else {
                    return Err(QuantizeError::Calibration {
                        place: site.site.clone(),
                        expected: "one range".to_owned(),
                        found: format!("{}", parameters.len()),
                        hint: "inputs have a scale for the whole tensor".to_owned(),
                    });
                };
                let input = StaticInput {
                    scale: parameters.scale,
                    zero_point: i8::try_from(parameters.zero_point - offset)
                        .expect("the zero point is one of 256 codes"),
                };
                let name = site.site.clone();
                let modules = site.modules.clone();
                Ok((CalibrationSite { name, modules }, input))
            })
            .collect()
    }

    /// The signed codes of an input.
    pub(super) fn signed_codes(&self) -> CodeRange {
        match self.settings.rule().reduce_range() {
            true => CodeRange::INT8.reduced(),
            false => CodeRange::INT8,
        }
    }

    /// What one range costs at every site, in execution order.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] before any text; [`QuantizeError::Observer`] for damaged statistics.
    pub(super) fn site_sensitivities(&self) -> Result<Vec<SiteSensitivity>, QuantizeError> {
        self.expect_samples()?;
        let rule = self.settings.rule();
        self.sites
            .iter()
            .map(|site| {
                // An input has one range; `inputs` refuses what has another number.
                let range = site.statistics.ranges(rule)?[0];
                let noise = &site.noise;
                Ok(SiteSensitivity {
                    site: site.site.clone(),
                    modules: site.modules.clone(),
                    static_sqnr_db: noise.static_sqnr_db(range, rule, &site.statistics)?,
                    dynamic_sqnr_db: noise.per_token_sqnr_db(),
                    output_effect: None,
                })
            })
            .collect()
    }

    /// The recipe in which every site is static and weights have a scale for each channel.
    /// [`StaticCalibration`](super::StaticCalibration) decides with a backend's defaults.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] before any text.
    pub fn recipe(&self) -> Result<Recipe, QuantizeError> {
        let inputs = self.static_inputs_without(|_| false)?;
        Ok(IntegerRecipe::from(inputs).into())
    }

    /// The scales of every site but those that `is_dynamic` names.
    pub(super) fn static_inputs_without(
        &self,
        is_dynamic: impl Fn(&str) -> bool,
    ) -> Result<StaticInputs, QuantizeError> {
        let inputs = self.inputs()?;
        let scales: BTreeMap<String, StaticInput> = inputs
            .into_iter()
            .filter(|(site, _)| !is_dynamic(&site.name))
            .flat_map(|(site, input)| site.modules.into_iter().map(move |module| (module, input)))
            .collect();
        Ok(StaticInputs {
            scales,
            weight_scales: WeightScales::PerChannel,
            reduce_range: self.settings.rule().reduce_range(),
        })
    }

    /// FP8 scales of every site: its largest magnitude over 448, whatever observer there is. A step of FP8 is wide or narrow as its number is
    /// large or small, so that a range that clips nothing costs the small numbers nothing.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] before any text; [`QuantizeError::Observer`] for damaged statistics.
    pub(super) fn fp8_inputs(&self) -> Result<StaticInputs, QuantizeError> {
        self.expect_samples()?;
        let mut scales = BTreeMap::new();
        for site in &self.sites {
            let range = site.noise.values_seen(&site.statistics)?;
            let input = StaticInput {
                scale: fp8_scale(range.map_or(0.0, ValueRange::absmax)),
                zero_point: 0,
            };
            scales.extend(site.modules.iter().map(|module| (module.clone(), input)));
        }
        Ok(StaticInputs::new(scales))
    }

    /// Reads several files, each of other texts.
    ///
    /// # Errors
    /// Those of [`read`](Self::read); [`QuantizeError::Calibration`] if two of the files hold the same statistics: merged, their texts would count
    /// twice.
    pub fn read_all<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<Self>, QuantizeError> {
        let mut all: Vec<Self> = Vec::with_capacity(paths.len());
        for path in paths {
            let statistics = Self::read(path)?;
            if let Some(first) = all.iter().position(|known| *known == statistics) {
                return Err(QuantizeError::Calibration {
                    place: path.as_ref().display().to_string(),
                    expected: "statistics of other texts".to_owned(),
                    found: format!("those of {} again", paths[first].as_ref().display()),
                    hint: "merged, their texts would count twice: name each file once".to_owned(),
                });
            }
            all.push(statistics);
        }
        Ok(all)
    }

    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`QuantizeError::Io`], or [`QuantizeError::Calibration`] for what is no statistics of calibration.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, QuantizeError> {
        json_file::read(
            path.as_ref(),
            "statistics that `fewbit calibrate` wrote",
            "the file is damaged or was edited: collect the statistics again",
        )
    }

    /// Writes the statistics as JSON, to a file beside it first, so that an interruption leaves the old one.
    ///
    /// # Errors
    /// [`QuantizeError::Checkpoint`]
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), QuantizeError> {
        json_file::write(path.as_ref(), self, true, || ())
    }

    /// Writes the statistics of a finished calibration, where no file is yet, and removes the partial ones that it saved on the way.
    /// Whatever stops the program, there are the partial statistics or the whole ones.
    ///
    /// # Errors
    /// [`QuantizeError::Checkpoint`]; [`QuantizeError::Io`] if the partial statistics cannot be removed.
    pub fn write_in_place_of(
        &self,
        partial: &Path,
        path: impl AsRef<Path>,
    ) -> Result<(), QuantizeError> {
        let remove = || match std::fs::remove_file(partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        json_file::write(path.as_ref(), self, false, remove)?.map_err(|source| QuantizeError::Io {
            path: partial.to_owned(),
            source,
        })
    }
}
