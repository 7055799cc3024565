//! How long encoding takes.

use std::time::Instant;

use fewbit_model::{Embeddings, EncodeOptions, Encoder};
use serde::{Deserialize, Serialize};

use crate::EvaluateError;

/// How long a call takes, of many that do the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The time that half of the calls stay within.
    pub median_milliseconds: f64,
    /// The time that a tenth of the calls stay within.
    pub p10_milliseconds: f64,
    /// The time that nine tenths of the calls stay within.
    pub p90_milliseconds: f64,
    /// The time that 99 of 100 calls stay within; of fewer calls, close to the slowest.
    pub p99_milliseconds: f64,
    /// Number of timed calls.
    pub calls: usize,
}

impl Latency {
    /// Percentiles of the given times; `None` if there are none.
    pub fn from_seconds(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_by(f64::total_cmp);
        Some(Self {
            median_milliseconds: 1e3 * percentile(&seconds, 0.5)?,
            p10_milliseconds: 1e3 * percentile(&seconds, 0.1)?,
            p90_milliseconds: 1e3 * percentile(&seconds, 0.9)?,
            p99_milliseconds: 1e3 * percentile(&seconds, 0.99)?,
            calls: seconds.len(),
        })
    }

    /// Encodes each of `texts` alone, in turn, `repetitions` times after one round that is not timed.
    ///
    /// # Errors
    /// No texts or no repetitions; errors of the model.
    pub fn measure(
        encoder: &Encoder,
        texts: &[&str],
        repetitions: usize,
        threads: usize,
    ) -> Result<Self, EvaluateError> {
        let options = EncodeOptions {
            threads,
            batch_size: 1,
        };
        let too_little = EvaluateError::TooLittleData {
            origin: "latency".to_owned(),
            expected: "one timed call",
            found: 0,
            hint: "give at least one text and one repetition",
        };
        if texts.is_empty() {
            return Err(too_little);
        }
        let mut seconds = Vec::new();
        for round in 0..=repetitions {
            for text in texts {
                let started = Instant::now();
                encoder.encode(&[text], &options)?;
                if round > 0 {
                    seconds.push(started.elapsed().as_secs_f64());
                }
            }
        }
        Self::from_seconds(seconds).ok_or(too_little)
    }
}

/// Speed of encoding many texts in batches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Texts a second: the number of texts over the median time of a run over all of them.
    pub texts_per_second: f64,
    /// Tokens a second, special tokens included.
    pub tokens_per_second: f64,
    /// Texts that run together.
    pub batch_size: usize,
    /// Number of timed runs over all texts.
    pub runs: usize,
}

impl Throughput {
    /// Encodes all `texts` in batches until at least `minimum_seconds` have passed, at least once, and
    /// returns the embeddings too. Call it after [`Latency::measure`], which warms everything up.
    ///
    /// # Errors
    /// No texts; errors of the model.
    pub fn measure(
        encoder: &Encoder,
        texts: &[&str],
        options: &EncodeOptions,
        minimum_seconds: f64,
    ) -> Result<(Self, Embeddings), EvaluateError> {
        if texts.is_empty() {
            return Err(EvaluateError::TooLittleData {
                origin: "throughput".to_owned(),
                expected: "one text",
                found: 0,
                hint: "give at least one text",
            });
        }
        let started = Instant::now();
        let mut seconds = Vec::new();
        loop {
            let run = Instant::now();
            let embeddings = encoder.encode(texts, options)?;
            seconds.push(run.elapsed().as_secs_f64());
            if started.elapsed().as_secs_f64() >= minimum_seconds {
                let runs = seconds.len();
                seconds.sort_by(f64::total_cmp);
                let median = percentile(&seconds, 0.5).unwrap_or(f64::NAN);
                let throughput = Self {
                    texts_per_second: texts.len() as f64 / median,
                    tokens_per_second: embeddings.tokens as f64 / median,
                    batch_size: options.batch_size,
                    runs,
                };
                return Ok((throughput, embeddings));
            }
        }
    }
}

/// The value below which the share `p` of `sorted` (ascending) lies, by linear interpolation between
/// the two nearest: with `h = p (n - 1)`, `x[floor h] + (h - floor h)(x[floor h + 1] - x[floor h])`.
/// `None` for an empty list.
pub fn percentile(sorted: &[f64], p: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = p.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    Some(sorted[below] + (position - below as f64) * (sorted[above] - sorted[below]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_hand() {
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[4.0], 0.9), Some(4.0));
        assert_eq!(percentile(&[1.0, 2.0], 0.5), Some(1.5));
        assert_eq!(percentile(&[1.0, 2.0, 4.0], 0.5), Some(2.0));
        assert_eq!(percentile(&[1.0, 2.0, 4.0], 0.75), Some(3.0));
        assert_eq!(percentile(&[1.0, 2.0, 4.0], 1.0), Some(4.0));
        assert_eq!(percentile(&[1.0, 2.0, 4.0], 0.0), Some(1.0));
    }

    #[test]
    fn latency_is_in_milliseconds_and_does_not_depend_on_order() {
        let seconds: Vec<f64> = [10, 0, 5, 2, 8, 4, 6, 1, 9, 3, 7].map(f64::from).to_vec();
        let latency = Latency::from_seconds(seconds).unwrap();
        assert_eq!(latency.p10_milliseconds, 1000.0);
        assert_eq!(latency.median_milliseconds, 5000.0);
        assert_eq!(latency.p90_milliseconds, 9000.0);
        assert_eq!(latency.p99_milliseconds, 9900.0);
        assert_eq!(latency.calls, 11);
        assert_eq!(Latency::from_seconds(Vec::new()), None);
    }
}
