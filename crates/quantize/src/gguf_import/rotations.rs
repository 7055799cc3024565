//! Rotations of Llama 3.1 and later, of which a file has what frequencies are divided by, and not the numbers that this follows from.

use fewbit_checkpoint::gguf::{GgufFile, GgufPart, RowOrder};
use fewbit_checkpoint::{Checkpoint, CheckpointError};
use fewbit_model::spec::Llama3Rotation;
use serde_json::{Value, json};

use super::config::decimal;
use super::unsupported;
use crate::gguf_export::ROTATIONS;

/// `low_freq_factor` and `high_freq_factor` of every Llama that was released. A rotation stays what it is if these and the positions are multiplied by one number, so that
/// a file can say no more than two of the three.
const LOW: f32 = 1.0;
const HIGH: f32 = 4.0;
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
    let rule = Llama3Rotation {
        base,
        factor,
        low: LOW,
        high: HIGH,
        original: original as f32,
    };
    // Converters compute in f32: a frequency is off by 2^-20 at most, and between the ends the divisor changes by (factor - 1) * HIGH / (HIGH - LOW) times as much.
    let tolerance = f64::from((factor - 1.0) * HIGH / (HIGH - LOW)) / (1 << 20) as f64 + 1e-6;
    let expected = rule.divisors(divisors.len());
    for (feature, (found, expected)) in divisors.iter().zip(expected).enumerate() {
        let is_expected = (f64::from(*found) / expected - 1.0).abs() <= tolerance;
        if !is_expected {
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
