//! How a converted model is written.

use std::fmt;
use std::str::FromStr;

use fewbit_checkpoint::{CheckpointError, CheckpointErrorKind};

/// How the output of a conversion is written; what is in it, the recipe says.
///
/// ```
/// use fewbit_quantize::OutputOptions;
///
/// let options = OutputOptions {
///     max_shard_size: "500MB".parse()?,
///     ..OutputOptions::default()
/// };
/// assert_eq!(options.max_shard_size.bytes(), 500_000_000);
/// # Ok::<(), fewbit_quantize::QuantizeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputOptions {
    /// Whether an existing output directory is replaced.
    pub force: bool,
    /// What a file of weights holds at most.
    pub max_shard_size: ShardSize,
    /// Whether to go on from what an interrupted run of the same source, recipe and size of shards has left beside the output directory.
    pub resume: bool,
}

impl OutputOptions {
    /// The default, and `force`.
    pub fn with_force(force: bool) -> Self {
        Self {
            force,
            ..Self::default()
        }
    }
}

/// Bytes of tensors in one file of weights, at most; a weight that has more with its scales lies in a file of its own. 5 GB unless said otherwise, as
/// transformers' `save_pretrained` has it.
///
/// It is read as `max_shard_size` of `save_pretrained` is: `5GB` and `500MB` are powers of 1000, `5GiB` of 1024, a number alone is one of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardSize(u64);

impl ShardSize {
    /// So many bytes, at least 1.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        (bytes > 0).then_some(Self(bytes))
    }

    /// Bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl Default for ShardSize {
    fn default() -> Self {
        Self(5_000_000_000)
    }
}

/// Units, and how many bytes they have; `B` is last, as all others end with it.
const UNITS: [(&str, u64); 9] = [
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl FromStr for ShardSize {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let upper = text.trim().to_ascii_uppercase();
        let with_unit = UNITS.iter().find_map(|&(unit, bytes)| {
            let number = upper.strip_suffix(unit)?;
            Some((number.trim_end(), bytes))
        });
        let (number, unit) = with_unit.unwrap_or((&upper, 1));
        let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let bytes = match number.split_once('.') {
            _ if number.is_empty() => None,
            None if is_plain(number) => {
                let number = number.parse::<u64>().ok();
                number.and_then(|number| number.checked_mul(unit))
            }
            Some((whole, part)) if is_plain(whole) && is_plain(part) && !part.is_empty() => {
                let bytes = number
                    .parse::<f64>()
                    .ok()
                    .map(|number| number * unit as f64);
                bytes
                    .filter(|&bytes| bytes < u64::MAX as f64)
                    .map(|bytes| bytes as u64)
            }
            _ => None,
        };
        bytes.and_then(Self::from_bytes).ok_or_else(|| {
            CheckpointError::new(
                CheckpointErrorKind::Malformed,
                format!("expected a size such as 5GB, 500MB or 2GiB, found `{text}`"),
            )
        })
    }
}

impl fmt::Display for ShardSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = |unit: &&(&str, u64)| unit.0.len() == 2 && self.0.is_multiple_of(unit.1);
        match UNITS.iter().rfind(unit) {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_transformers_does() {
        for (text, bytes) in [
            ("5GB", 5_000_000_000),
            ("500MB", 500_000_000),
            ("1.5kb", 1500),
            (" 2 GiB ", 2 << 30),
            ("1TB", 1_000_000_000_000),
            ("7b", 7),
            ("123", 123),
        ] {
            assert_eq!(text.parse::<ShardSize>().unwrap().bytes(), bytes, "{text}");
        }
        for text in [
            "",
            "GB",
            "0",
            "0MB",
            "-1GB",
            "5 apples",
            "1e3",
            "NaN",
            "1.",
            "99999999999TB",
            "0.1B",
        ] {
            let error = text.parse::<ShardSize>().unwrap_err().to_string();
            assert_eq!(
                error,
                format!("expected a size such as 5GB, 500MB or 2GiB, found `{text}`")
            );
        }
    }

    #[test]
    fn a_size_is_shown_as_it_is_read() {
        for (bytes, text) in [
            (5_000_000_000, "5GB"),
            (2_000_000_000_000, "2TB"),
            (1_500_000, "1500KB"),
            (1 << 20, "1048576"),
        ] {
            let size = ShardSize::from_bytes(bytes).unwrap();
            assert_eq!(size.to_string(), text);
            assert_eq!(text.parse::<ShardSize>().unwrap(), size);
        }
        assert_eq!(ShardSize::default().to_string(), "5GB");
        assert_eq!(ShardSize::from_bytes(0), None);
    }
}
