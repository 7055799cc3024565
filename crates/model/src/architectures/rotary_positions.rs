//! Rotary positions in config.json: `rope_parameters`, or the fields that older files have.
//!
//! Formulas of scaled rotations: transformers 5.23, `modeling_rope_utils.py`; `ntk`: vLLM, `NTKScalingRotaryEmbedding`.

use super::layer_types::{GLOBAL, LOCAL};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::spec::{Llama3Rotation, RotaryFrequencies, RotaryRule};
use serde_json::{Map, Value};
use std::f64::consts::PI;

/// Turns over the original positions from which on YaRN leaves features as they are, and up to which it stretches them whole.
const BETA_FAST: f32 = 32.0;
const BETA_SLOW: f32 = 1.0;

/// Where a family has the rotations of some layers.
pub(super) struct RotarySource {
    /// Its key in `rope_parameters`, where layers of different types have different rotations.
    pub(super) layer_type: Option<&'static str>,
    /// The field that older files have for the base.
    pub(super) base_field: &'static str,
    /// The base of files that do not say it.
    pub(super) default_base: f32,
    /// Whether `rope_scaling` of older files is about these layers.
    pub(super) scaled: bool,
    /// Columns of a head.
    pub(super) head_size: usize,
    /// `max_position_embeddings`.
    pub(super) positions: usize,
}

impl RotarySource {
    /// Of all layers, with `rope_theta` in older files.
    pub(super) fn of_all_layers(default_base: f32, head_size: usize, positions: usize) -> Self {
        Self {
            layer_type: None,
            base_field: "rope_theta",
            default_base,
            scaled: true,
            head_size,
            positions,
        }
    }

    /// Reads the rotations.
    ///
    /// # Errors
    /// A rotation of another kind, or that turns a part of the features only; an impossible number.
    pub(super) fn read(&self, fields: &ConfigFields<'_>) -> Result<RotaryFrequencies, ModelError> {
        let base = fields.positive(self.base_field, self.default_base)?;
        let old = fields.get("rope_scaling").filter(|value| {
            !value.is_null() && **value != Value::Object(Map::new()) && self.scaled
        });
        let all = fields.get("rope_parameters");
        let is_nested = |all: &&Value| [GLOBAL, LOCAL].iter().any(|key| all.get(key).is_some());
        let nested = all.filter(is_nested);
        let (field, parameters) = match (old, self.layer_type, nested, all) {
            (Some(old), ..) => ("rope_scaling".to_owned(), old),
            (None, Some(kind), Some(nested), _) => {
                (format!("rope_parameters.{kind}"), &nested[kind])
            }
            (None, None, _, Some(all)) => ("rope_parameters".to_owned(), all),
            _ => (String::new(), &Value::Null),
        };
        let parameters = Parameters {
            fields: ConfigFields::new(fields.file(), parameters),
            file_fields: *fields,
            field,
        };
        if !parameters.fields.object().is_null() && !parameters.fields.object().is_object() {
            let found = parameters.fields.object();
            return Err(fields.invalid(&parameters.field, "expected an object", found));
        }
        parameters.frequencies(base, self.head_size, self.positions)
    }
}

/// The parameters of one rotation.
struct Parameters<'a> {
    fields: ConfigFields<'a>,
    file_fields: ConfigFields<'a>,
    /// Where they stand in config.json.
    field: String,
}

impl Parameters<'_> {
    fn frequencies(
        &self,
        base: f32,
        head_size: usize,
        positions: usize,
    ) -> Result<RotaryFrequencies, ModelError> {
        let base = self.number("rope_theta", Some(base))?;
        let part = self.get("partial_rotary_factor");
        if let Some(part) = part.filter(|part| **part != 1.0) {
            let field = format!("{}.partial_rotary_factor", self.field);
            return Err(self.file_fields.unsupported(&field, "1", part, HINT));
        }
        let kind = self.get("rope_type").or_else(|| self.get("type"));
        let mut frequencies = plain(base, head_size);
        let mut factor = 1.0;
        let mut rule = RotaryRule::Plain { base, divisor: 1.0 };
        match kind.map_or(Some("default"), Value::as_str) {
            // Only beyond `max_position_embeddings`, where no text reaches, is a dynamic rotation another.
            Some("default" | "dynamic") => {}
            Some("linear") => {
                let divisor = self.number("factor", None)?;
                frequencies.iter_mut().for_each(|value| *value /= divisor);
                rule = RotaryRule::Plain { base, divisor };
            }
            Some("ntk") => {
                rule = RotaryRule::Scaled;
                let scale = self.number("factor", None)?;
                let divisor = f64::from(scale).powf(2.0 / head_size as f64) as f32;
                frequencies = plain(base * scale, head_size);
                frequencies.iter_mut().for_each(|value| *value /= divisor);
            }
            Some("llama3") => {
                rule = self.scale_like_llama3(&mut frequencies, base, positions)?;
            }
            Some("yarn") => {
                (factor, rule) = self.scale_like_yarn(&mut frequencies, base, positions)?;
            }
            _ => {
                let field = format!("{}.rope_type", self.field);
                let found = kind.unwrap_or(&Value::Null);
                let known = "one of \"default\", \"linear\", \"dynamic\", \"llama3\", \"yarn\"";
                return Err(self.file_fields.unsupported(&field, known, found, HINT));
            }
        }
        if !factor.is_finite() || frequencies.iter().any(|value| !value.is_finite()) {
            let message = "expected numbers that give finite rotations, found others";
            return Err(self.file_fields.error(&self.field, message, HINT));
        }
        Ok(RotaryFrequencies {
            frequencies,
            factor,
            rule,
        })
    }

    /// As [`Llama3Rotation`] says.
    fn scale_like_llama3(
        &self,
        frequencies: &mut [f32],
        base: f32,
        positions: usize,
    ) -> Result<RotaryRule, ModelError> {
        let rotation = Llama3Rotation {
            base,
            factor: self.number("factor", None)?,
            low: self.number("low_freq_factor", None)?,
            high: self.number("high_freq_factor", None)?,
            original: self.original_positions(positions)?,
        };
        for value in frequencies {
            let frequency = f64::from(*value);
            *value = (frequency / rotation.divisor(frequency)) as f32;
        }
        Ok(RotaryRule::Llama3(rotation))
    }

    /// YaRN (Peng et al. 2023): features that turn seldom are stretched, those that turn often are not, with a ramp between. Returns what cosines
    /// and sines are multiplied by, and the rule.
    fn scale_like_yarn(
        &self,
        frequencies: &mut [f32],
        base: f32,
        positions: usize,
    ) -> Result<(f32, RotaryRule), ModelError> {
        let original = f64::from(self.original_positions(positions)?);
        let factor = match self.get("factor") {
            Some(_) => f64::from(self.number("factor", None)?),
            None => positions as f64 / original,
        };
        let magnitude = |scale: f64, weight: f64| match scale > 1.0 {
            true => 0.1 * weight * scale.ln() + 1.0,
            false => 1.0,
        };
        let attention_factor = match (
            self.get("attention_factor"),
            self.get("mscale"),
            self.get("mscale_all_dim"),
        ) {
            (Some(_), ..) => f64::from(self.number("attention_factor", None)?),
            (None, Some(_), Some(_)) => {
                let [one, all] = ["mscale", "mscale_all_dim"].map(|field| self.number(field, None));
                magnitude(factor, one?.into()) / magnitude(factor, all?.into())
            }
            _ => magnitude(factor, 1.0),
        };
        let columns = 2 * frequencies.len();
        let feature_of = |turns: f64| {
            columns as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * f64::from(base).ln())
        };
        let beta_fast = self.number("beta_fast", Some(BETA_FAST))?;
        let beta_slow = self.number("beta_slow", Some(BETA_SLOW))?;
        let (mut low, mut high) = (feature_of(beta_fast.into()), feature_of(beta_slow.into()));
        let is_truncated = self.fields.flag("truncate", true)?;
        if is_truncated {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(columns as f64 - 1.0));
        if low == high {
            high += 0.001;
        }
        for (feature, value) in frequencies.iter_mut().enumerate() {
            let ramp = ((feature as f64 - low) / (high - low)).clamp(0.0, 1.0);
            let frequency = f64::from(*value);
            *value = (frequency / factor * ramp + frequency * (1.0 - ramp)) as f32;
        }
        let is_usual = is_truncated
            && [beta_fast, beta_slow] == [BETA_FAST, BETA_SLOW]
            && attention_factor == magnitude(factor, 1.0);
        let rule = match is_usual {
            true => RotaryRule::Yarn {
                base,
                factor: factor as f32,
                original: original as f32,
            },
            false => RotaryRule::Scaled,
        };
        Ok((attention_factor as f32, rule))
    }

    /// The positions that the model was trained for before it was stretched.
    fn original_positions(&self, positions: usize) -> Result<f32, ModelError> {
        const FIELD: &str = "original_max_position_embeddings";
        let outside = self.file_fields.get(FIELD).filter(|found| !found.is_null());
        match outside {
            Some(_) => self.file_fields.positive(FIELD, 0.0),
            None => self.number(FIELD, Some(positions as f32)),
        }
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// A number above 0.
    fn number(&self, field: &str, default: Option<f32>) -> Result<f32, ModelError> {
        match (self.get(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => {
                let field = format!("{}.{field}", self.field);
                let expected = "expected a number above 0";
                Err(self.file_fields.invalid(&field, expected, &Value::Null))
            }
            (Some(_), _) => self.fields.positive(field, 0.0),
        }
    }
}

/// `base^(-2 i / head_size)`, the exponent being rounded to f32 as in torch.
fn plain(base: f32, head_size: usize) -> Vec<f32> {
    let frequency = |feature: usize| {
        let exponent = (2 * feature) as f32 / head_size as f32;
        1.0 / libm::pow(f64::from(base), f64::from(exponent)) as f32
    };
    (0..head_size / 2).map(frequency).collect()
}

const HINT: &str = "other rotations give other hidden states, so there is no substitute";
