//! From the hidden states of a text to one vector, as sentence-transformers' Pooling module does it.

use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::sentence_modules::no_such_setting;
use serde_json::Value;

/// One way to pool hidden states h_0 … h_(n-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolingMode {
    /// h_0
    Cls,
    /// The largest value of each column.
    Max,
    /// sum(h_t) / n
    Mean,
    /// sum(h_t) / sqrt(n)
    MeanSqrtLength,
    /// sum((t + 1) h_t) / sum(t + 1)
    WeightedMean,
    /// h_(n-1)
    LastToken,
}

impl PoolingMode {
    /// All modes, in the order in which the older booleans of a configuration concatenate them.
    pub const ALL: [PoolingMode; 6] = [
        Self::Cls,
        Self::Max,
        Self::Mean,
        Self::MeanSqrtLength,
        Self::WeightedMean,
        Self::LastToken,
    ];

    /// Spelling of `pooling_mode`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::MeanSqrtLength => "mean_sqrt_len_tokens",
            Self::WeightedMean => "weightedmean",
            Self::LastToken => "lasttoken",
        }
    }

    /// The older boolean field.
    fn boolean(self) -> &'static str {
        match self {
            Self::Cls => "pooling_mode_cls_token",
            Self::Max => "pooling_mode_max_tokens",
            Self::Mean => "pooling_mode_mean_tokens",
            Self::MeanSqrtLength => "pooling_mode_mean_sqrt_len_tokens",
            Self::WeightedMean => "pooling_mode_weightedmean_tokens",
            Self::LastToken => "pooling_mode_lasttoken",
        }
    }
}

/// Names that the width of the hidden states has had.
const WIDTH_FIELDS: [&str; 2] = ["embedding_dimension", "word_embedding_dimension"];

/// One or several modes, whose vectors are concatenated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    modes: Vec<PoolingMode>,
}

impl Default for Pooling {
    /// Mean, the mode that sentence-transformers takes for a model without a pooling configuration.
    fn default() -> Self {
        Self {
            modes: vec![PoolingMode::Mean],
        }
    }
}

impl From<PoolingMode> for Pooling {
    fn from(mode: PoolingMode) -> Self {
        Self { modes: vec![mode] }
    }
}

impl Pooling {
    /// The modes, in the order of concatenation; at least one.
    pub fn modes(&self) -> &[PoolingMode] {
        &self.modes
    }

    /// Length of the pooled vector.
    pub fn columns(&self, hidden_size: usize) -> usize {
        self.modes.len() * hidden_size
    }

    /// Reads `pooling_mode` (a name or a list of names) or the older booleans; without any: mean. A field that is none of the
    /// module's is an error, as it is to sentence-transformers.
    pub(crate) fn from_config(fields: &ConfigFields<'_>) -> Result<Self, ModelError> {
        let known = |name: &str| {
            ["include_prompt", "pooling_mode"].contains(&name)
                || WIDTH_FIELDS.contains(&name)
                || PoolingMode::ALL.iter().any(|mode| mode.boolean() == name)
        };
        if let Some((name, found)) = fields.unknown(known) {
            return Err(no_such_setting(fields, name, found));
        }
        let modes = match fields.get("pooling_mode") {
            Some(Value::Array(names)) if !names.is_empty() => names
                .iter()
                .map(|name| parse(fields, name))
                .collect::<Result<_, _>>()?,
            Some(name) => vec![parse(fields, name)?],
            None => {
                let mut modes = Vec::new();
                for mode in PoolingMode::ALL {
                    if fields.flag(mode.boolean(), false)? {
                        modes.push(mode);
                    }
                }
                if modes.is_empty() {
                    Self::default().modes
                } else {
                    modes
                }
            }
        };
        Ok(Self { modes })
    }

    /// The width of the hidden states that the configuration says, which pooling does not depend on.
    pub(crate) fn width_of(fields: &ConfigFields<'_>) -> Result<Option<u64>, ModelError> {
        let given = WIDTH_FIELDS
            .iter()
            .find_map(|name| Some((name, fields.get(name)?)));
        let Some((name, value)) = given else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(width) => Ok(Some(width)),
            None => Err(fields.invalid(name, "expected a whole number", value)),
        }
    }

    /// Pools `states` (tokens, hidden_size), at least one token, into `out` (modes * hidden_size).
    ///
    /// # Panics
    /// If there is no token or a length is not a multiple of `hidden_size`.
    pub fn pool(&self, states: &[f32], hidden_size: usize, out: &mut [f32]) {
        self.pool_after(states, 0, hidden_size, out);
    }

    /// [`Pooling::pool`] of the tokens after the first `prompt` ones, whose weights in a weighted mean are those of their places in the
    /// whole text. Where no token is left, the first stands for the text in `cls`, the others are 0, and a maximum is minus infinity.
    ///
    /// # Panics
    /// As [`Pooling::pool`].
    pub fn pool_after(&self, states: &[f32], prompt: usize, hidden_size: usize, out: &mut [f32]) {
        assert!(
            !states.is_empty() && states.len().is_multiple_of(hidden_size),
            "states: {} values",
            states.len()
        );
        assert_eq!(out.len(), self.columns(hidden_size), "pooled vector");
        let first = prompt.min(states.len() / hidden_size);
        let kept = &states[first * hidden_size..];
        let tokens = kept.len() / hidden_size;
        for (mode, out) in self.modes.iter().zip(out.chunks_exact_mut(hidden_size)) {
            match mode {
                PoolingMode::Cls if tokens == 0 => out.copy_from_slice(&states[..hidden_size]),
                PoolingMode::Max if tokens == 0 => out.fill(f32::NEG_INFINITY),
                _ if tokens == 0 => out.fill(0.0),
                PoolingMode::Cls => out.copy_from_slice(&kept[..hidden_size]),
                PoolingMode::LastToken => {
                    out.copy_from_slice(&kept[(tokens - 1) * hidden_size..]);
                }
                PoolingMode::Max => {
                    out.copy_from_slice(&kept[..hidden_size]);
                    for row in kept.chunks_exact(hidden_size).skip(1) {
                        for (largest, &value) in out.iter_mut().zip(row) {
                            // `f32::max` would drop a NaN.
                            if value > *largest || value.is_nan() {
                                *largest = value;
                            }
                        }
                    }
                }
                PoolingMode::Mean => weighted_sum(kept, |_| 1.0, tokens as f64, out),
                PoolingMode::MeanSqrtLength => {
                    weighted_sum(kept, |_| 1.0, (tokens as f64).sqrt(), out);
                }
                PoolingMode::WeightedMean => {
                    let (tokens, first) = (tokens as f64, first as f64);
                    let total = tokens * (tokens + 1.0) / 2.0 + tokens * first;
                    weighted_sum(kept, |token| first + token as f64 + 1.0, total, out);
                }
            }
        }
    }
}

fn parse(fields: &ConfigFields<'_>, name: &Value) -> Result<PoolingMode, ModelError> {
    let found = PoolingMode::ALL
        .into_iter()
        .find(|mode| name == mode.name());
    found.ok_or_else(|| {
        let modes = PoolingMode::ALL.map(PoolingMode::name).join(", ");
        fields.unsupported(
            "pooling_mode",
            &format!("one of {modes}"),
            name,
            "another pooling would give other embeddings",
        )
    })
}

/// out = sum(weight(t) * h_t) / divisor, summed in f64 so that a long text keeps its digits.
fn weighted_sum(states: &[f32], weight: impl Fn(usize) -> f64, divisor: f64, out: &mut [f32]) {
    let mut sums = vec![0.0f64; out.len()];
    for (token, row) in states.chunks_exact(out.len()).enumerate() {
        let weight = weight(token);
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += weight * f64::from(value);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = (sum / divisor) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    fn read(config: &Value) -> Result<Pooling, ModelError> {
        Pooling::from_config(&ConfigFields::new(
            Path::new("1_Pooling/config.json"),
            config,
        ))
    }

    /// Three tokens (1, 8), (3, -2), (2, 0); each expected pair worked out by hand.
    #[test]
    fn modes_and_their_concatenation() {
        let states = [1.0, 8.0, 3.0, -2.0, 2.0, 0.0];
        let third = 3.0f64.sqrt();
        let expected = [
            (PoolingMode::Cls, [1.0, 8.0]),
            (PoolingMode::Max, [3.0, 8.0]),
            (PoolingMode::Mean, [2.0, 2.0]),
            (
                PoolingMode::MeanSqrtLength,
                [(6.0 / third) as f32, (6.0 / third) as f32],
            ),
            (PoolingMode::WeightedMean, [13.0 / 6.0, 4.0 / 6.0]),
            (PoolingMode::LastToken, [2.0, 0.0]),
        ];
        for (mode, expected) in expected {
            let mut out = [f32::NAN; 2];
            Pooling { modes: vec![mode] }.pool(&states, 2, &mut out);
            assert_eq!(out, expected, "{mode:?}");
        }
        let mut out = [0.0; 1];
        let max = Pooling {
            modes: vec![PoolingMode::Max],
        };
        for states in [[f32::NAN, 1.0, 2.0], [1.0, f32::NAN, 2.0]] {
            max.pool(&states, 1, &mut out);
            assert!(out[0].is_nan(), "{states:?}");
        }
        let both = Pooling {
            modes: vec![PoolingMode::Max, PoolingMode::Cls],
        };
        let mut out = [f32::NAN; 4];
        both.pool(&states, 2, &mut out);
        assert_eq!(out, [3.0, 8.0, 1.0, 8.0]);
    }

    /// Tokens (5, 5), (1, 8), (3, -2), (2, 0), of which the first is the prompt's; worked out by hand.
    #[test]
    fn tokens_of_a_prompt_are_left_out() {
        let states = [5.0, 5.0, 1.0, 8.0, 3.0, -2.0, 2.0, 0.0];
        let third = 3.0f64.sqrt();
        let expected = [
            (PoolingMode::Cls, [1.0, 8.0]),
            (PoolingMode::Max, [3.0, 8.0]),
            (PoolingMode::Mean, [2.0, 2.0]),
            (
                PoolingMode::MeanSqrtLength,
                [(6.0 / third) as f32, (6.0 / third) as f32],
            ),
            // Weights 2, 3 and 4.
            (PoolingMode::WeightedMean, [19.0 / 9.0, 10.0 / 9.0]),
            (PoolingMode::LastToken, [2.0, 0.0]),
        ];
        let none = [
            [5.0, 5.0],
            [f32::NEG_INFINITY; 2],
            [0.0; 2],
            [0.0; 2],
            [0.0; 2],
            [0.0; 2],
        ];
        for ((mode, expected), none) in expected.into_iter().zip(none) {
            let mut out = [f32::NAN; 2];
            Pooling::from(mode).pool_after(&states, 1, 2, &mut out);
            assert_eq!(out, expected, "{mode:?}");
            for prompt in [4, 5] {
                Pooling::from(mode).pool_after(&states, prompt, 2, &mut out);
                assert_eq!(out, none, "{mode:?}");
            }
        }
    }

    #[test]
    fn reads_old_and_new_configurations() {
        let modes = |config: Value| read(&config).expect("valid").modes;
        assert_eq!(modes(json!({})), [PoolingMode::Mean]);
        assert_eq!(
            modes(json!({"pooling_mode": "lasttoken"})),
            [PoolingMode::LastToken]
        );
        assert_eq!(
            modes(json!({"pooling_mode": ["max", "cls"]})),
            [PoolingMode::Max, PoolingMode::Cls]
        );
        let booleans = json!({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true, "pooling_mode_max_tokens": false});
        assert_eq!(modes(booleans), [PoolingMode::Cls, PoolingMode::Mean]);
        assert_eq!(
            modes(json!({"pooling_mode_mean_tokens": false})),
            [PoolingMode::Mean]
        );
    }

    #[test]
    fn refuses_a_field_that_it_does_not_know() {
        let error =
            read(&json!({"pooling_mode": "mean", "layers": [-1, -2]})).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "1_Pooling/config.json: `layers`: supported is no such field, found [-1,-2]\n  hint: sentence-transformers 6.2 has no such setting and does not load the file; if the field does nothing, take it out"
        );
    }

    #[test]
    fn refuses_an_unknown_mode() {
        let error = read(&json!({"pooling_mode": "attention"})).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "1_Pooling/config.json: `pooling_mode`: supported is one of cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken, found \"attention\"\n  hint: another pooling would give other embeddings"
        );
    }
}
