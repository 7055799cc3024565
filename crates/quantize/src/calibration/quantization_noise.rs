//! What 8 bits cost at a site, kept while texts are seen, so that it can be told afterwards of any range.
//!
//! The error of a range for each token is measured, as that range depends on nothing but the token. The error of one range for
//! all tokens is not yet known when the tokens are seen; it is the expected one, by the formula of
//! [`Mse`](crate::observers::mse), of a histogram of the values.

use fewbit_numerics::activation::{ActivationScheme, quantize_row};
use fewbit_numerics::error_statistics::sqnr_db;
use serde::{Deserialize, Serialize};

use crate::observers::{Mse, ObserverError, ParameterRule, Statistics, ValueRange};

/// Sums over all values of a site. Those of two streams add up, to the rounding of a sum of float64.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SavedNoise")]
pub(super) struct QuantizationNoise {
    values: u64,
    /// sum x^2
    signal: f64,
    /// sum (x - x')^2, x' being quantized with a range for each token
    per_token: f64,
    /// The values, unless the observer of the site itself keeps them in this form.
    #[serde(skip_serializing_if = "Option::is_none")]
    histogram: Option<Mse>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedNoise {
    values: u64,
    signal: f64,
    per_token: f64,
    #[serde(default)]
    histogram: Option<Mse>,
}

impl TryFrom<SavedNoise> for QuantizationNoise {
    type Error = ObserverError;

    fn try_from(saved: SavedNoise) -> Result<Self, ObserverError> {
        let SavedNoise {
            values,
            signal,
            per_token,
            histogram,
        } = saved;
        for (field, sum) in [("signal", signal), ("per_token", per_token)] {
            if !(sum >= 0.0 && sum.is_finite()) {
                return Err(ObserverError::Damaged {
                    field,
                    expected: "a finite sum of squares".to_owned(),
                    found: sum.to_string(),
                });
            }
        }
        Ok(Self {
            values,
            signal,
            per_token,
            histogram,
        })
    }
}

/// The sum of two sums of squares. Squares of 32-bit floats do not overflow it but in damaged files, and JSON has no infinity.
fn finite_sum(here: f64, more: f64) -> f64 {
    (here + more).min(f64::MAX)
}

impl QuantizationNoise {
    /// Before any value, beside this observer.
    pub(super) fn beside(observer: &Statistics) -> Self {
        Self {
            values: 0,
            signal: 0.0,
            per_token: 0.0,
            histogram: match observer {
                Statistics::Mse(_) => None,
                _ => Some(Mse::default()),
            },
        }
    }

    /// Takes in rows of `columns` finite values, one a token.
    pub(super) fn update(&mut self, columns: usize, values: &[f32]) -> Result<(), ObserverError> {
        if let Some(histogram) = &mut self.histogram {
            histogram.update(values)?;
        }
        self.values += values.len() as u64;
        let mut codes = vec![0; columns];
        for row in values.chunks_exact(columns) {
            let parameters = quantize_row(row, ActivationScheme::Affine, &mut codes);
            let (mut signal, mut noise) = (0.0, 0.0);
            for (&x, &code) in row.iter().zip(&codes) {
                let error = f64::from(x) - f64::from(parameters.dequantize(code.into()));
                signal += f64::from(x) * f64::from(x);
                noise += error * error;
            }
            self.signal += signal;
            self.per_token += noise;
        }
        Ok(())
    }

    /// Takes in what another has seen beside an observer of the same kind.
    pub(super) fn merge(&mut self, other: &Self) {
        self.values = self.values.saturating_add(other.values);
        self.signal = finite_sum(self.signal, other.signal);
        self.per_token = finite_sum(self.per_token, other.per_token);
        if let (Some(here), Some(more)) = (&mut self.histogram, &other.histogram) {
            here.merge(more);
        }
    }

    /// Signal to noise ratio with a range for each token, in dB.
    pub(super) fn per_token_sqnr_db(&self) -> f64 {
        sqnr_db(self.signal, self.per_token)
    }

    /// Signal to noise ratio with one range, in dB; `observer` is that of the site.
    ///
    /// # Errors
    /// [`ObserverError::Damaged`] if neither keeps the values, which a file may say.
    pub(super) fn static_sqnr_db(
        &self,
        range: ValueRange,
        rule: ParameterRule,
        observer: &Statistics,
    ) -> Result<f64, ObserverError> {
        let noise = self
            .histogram_beside(observer)?
            .mean_squared_error(range, rule);
        Ok(sqnr_db(self.signal, noise * self.values as f64))
    }

    /// The least and the greatest value of the site of `observer`; none before any.
    ///
    /// # Errors
    /// [`ObserverError::Damaged`] if neither keeps the values, which a file may say.
    pub(super) fn values_seen(
        &self,
        observer: &Statistics,
    ) -> Result<Option<ValueRange>, ObserverError> {
        Ok(self.histogram_beside(observer)?.values_seen())
    }

    fn histogram_beside<'a>(&'a self, observer: &'a Statistics) -> Result<&'a Mse, ObserverError> {
        match (observer, &self.histogram) {
            (Statistics::Mse(observer), _) => Ok(observer),
            (_, Some(histogram)) => Ok(histogram),
            (_, None) => Err(ObserverError::Damaged {
                field: "histogram",
                expected: format!("one beside the observer {}", observer.name()),
                found: "none".to_owned(),
            }),
        }
    }
}
