//! Rotations of Llama 3.1 and later, of which a file has what frequencies are divided by, and not the numbers that this follows from.

use std::f64::consts::TAU;

use fewbit_checkpoint::gguf::{GgufFile, GgufPart, RowOrder};
use fewbit_checkpoint::{Checkpoint, CheckpointError};
use serde_json::{Value, json};

use super::config::decimal;
use super::unsupported;
use crate::gguf_export::ROTATIONS;

/// `low_freq_factor` and `high_freq_factor` of every Llama that was released. A rotation stays what it is if these and the positions are multiplied by one number, so that
/// a file can say no more than two of the three.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
/// `original_max_position_embeddings` of these.
const ORIGINAL: u32 = 8192;

/// Adds the keys of `llama3`, whose divisors the file has, to the `rotation` with this base of heads of this size. The largest divisor is the factor; the others must follow from it.
pub(super) fn of_llama3(
    file: &GgufFile,
    head_size: u32,
    base: f32,
    original: Option<u32>,
    rotation: &mut Value,
) -> Result<(), CheckpointError> {
    let part = GgufPart {
        name: ROTATIONS.to_owned(),
        stored: ROTATIONS.to_owned(),
        rows: None,
        order: RowOrder::Same,
    };
    let checkpoint = Checkpoint::of_gguf(file, json!({}), &[part])?;
    let view = checkpoint.require(ROTATIONS)?;
    view.expect_shape(&[head_size as usize / 2])?;
    let mut divisors = vec![0.0; view.element_count()];
    view.read_finite_range(0, &mut divisors)?;
    let factor = divisors.iter().fold(1.0f32, |most, value| most.max(*value));
    if divisors.iter().all(|divisor| *divisor == 1.0) {
        return Ok(());
    }
    let original = original.unwrap_or(ORIGINAL);
    for (feature, found) in divisors.iter().enumerate() {
        let exponent = feature as f64 / divisors.len() as f64;
        let frequency = f64::from(base).powf(-exponent);
        let expected = divisor(frequency, factor.into(), original.into());
        // Converters compute in f32: a frequency is off by 2^-20 at most, and between the ends the divisor changes by (factor - 1) * HIGH / (HIGH - LOW) times as much.
        let tolerance = (f64::from(factor) - 1.0) * HIGH / (HIGH - LOW) / (1 << 20) as f64 + 1e-6;
        if (f64::from(*found) / expected - 1.0).abs() > tolerance {
            let message = format!(
                "divisor {feature}: expected {expected}, which a factor of {factor} and {original} positions give as in Llama 3.1, found {found}"
            );
            return Err(unsupported(file, message)
                .at_tensor(ROTATIONS)
                .hint("use the safetensors checkpoint that the file was made from"));
        }
    }
    rotation["rope_type"] = "llama3".into();
    rotation["factor"] = decimal(factor);
    rotation["low_freq_factor"] = LOW.into();
    rotation["high_freq_factor"] = HIGH.into();
    rotation["original_max_position_embeddings"] = original.into();
    Ok(())
}

/// What a plain frequency is divided by.
fn divisor(frequency: f64, factor: f64, original: f64) -> f64 {
    let turns = original * frequency / TAU;
    let share = ((turns - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
    1.0 / ((1.0 - share) / factor + share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_waves_are_stretched_whole_and_short_ones_not_at_all() {
        // Waves of 1,000 and 10,000 positions, of which 8192 are.
        assert_eq!(divisor(TAU / 1000.0, 8.0, 8192.0), 1.0);
        assert_eq!(divisor(TAU / 10_000.0, 8.0, 8192.0), 8.0);
        // Half of the way from 1 to 4 turns.
        let middle = divisor(TAU * 2.5 / 8192.0, 8.0, 8192.0);
        assert!((middle - 1.0 / (0.5 / 8.0 + 0.5)).abs() < 1e-12, "{middle}");
    }
}
