//! How long calls take: percentiles of their times.

use serde::{Deserialize, Serialize};

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
}

/// The middle value, or the mean of the two middle ones; `None` if there are none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
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
