//! Who takes the measurements of a comparison.
//!
//! [`Measure`] is where [`compare`](crate::compare::compare) asks for them. [`InProcess`] measures in this process; a
//! program that wants each model's peak memory to be its own hands the [`MeasureRequest`] to a process of its own, which
//! gives it to [`InProcess`] and sends the answer back.

use crate::Error;
use fewbit_evaluate::{Latency, MeasureOptions, MeasuredModel, Throughput, measure};
use fewbit_model::{EncodeOptions, Encoder, EncoderSettings, WeightOnlyArithmetic};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A model directory, texts, and how to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureRequest {
    /// What the model is called.
    pub name: String,
    /// Model directory.
    pub directory: PathBuf,
    /// Texts to encode.
    pub texts: Vec<String>,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Texts run together where speed in batches is measured.
    pub batch_size: usize,
    /// What layers compute with whose weights alone are int8; none: what
    /// [`WeightOnlyArithmetic::from_environment`] says.
    pub weight_only: Option<WeightOnlyArithmetic>,
}

/// How fast a model is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Time to encode one text.
    pub latency: Latency,
    /// Speed in batches.
    pub throughput: Throughput,
}

/// Texts that latency is measured on, at most; spread evenly over those of the request.
pub const LATENCY_TEXTS: usize = 32;

/// Takes the measurements of a comparison.
pub trait Measure {
    /// Encodes all texts once: embeddings, bytes, memory. Its times are from that single run; [`Measure::speed`] is the
    /// better judge of them.
    ///
    /// # Errors
    /// The model cannot be opened or run, or the measuring process failed.
    fn measure(&mut self, request: &MeasureRequest) -> Result<MeasuredModel, Error>;

    /// Times a run: [`LATENCY_TEXTS`] of the texts each alone, then all of them in batches.
    ///
    /// # Errors
    /// As for [`Measure::measure`].
    fn speed(&mut self, request: &MeasureRequest) -> Result<Speed, Error>;
}

/// Measures in this process. The peak memory that it finds is that of everything the process has done so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcess;

impl Measure for InProcess {
    fn measure(&mut self, request: &MeasureRequest) -> Result<MeasuredModel, Error> {
        let options = MeasureOptions {
            threads: request.threads,
            batch_size: request.batch_size,
            latency_texts: 1,
            latency_repetitions: 1,
            throughput_seconds: 0.0,
            settings: EncoderSettings::with_weight_only(request.weight_only),
        };
        Ok(measure(
            &request.name,
            &request.directory,
            &request.texts,
            &options,
        )?)
    }

    fn speed(&mut self, request: &MeasureRequest) -> Result<Speed, Error> {
        let settings = EncoderSettings::with_weight_only(request.weight_only);
        let encoder = Encoder::open_with_settings(&request.directory, &settings)?;
        let texts: Vec<&str> = request.texts.iter().map(String::as_str).collect();
        let options = EncodeOptions {
            threads: request.threads,
            batch_size: request.batch_size,
        };
        let latency =
            Latency::measure(&encoder, &spread(&texts, LATENCY_TEXTS), 1, request.threads)?;
        let (throughput, _) = Throughput::measure(&encoder, &texts, &options, 0.0)?;
        Ok(Speed {
            latency,
            throughput,
        })
    }
}

/// At most `count` texts, evenly spread over all of them.
pub(crate) fn spread<T: Clone>(texts: &[T], count: usize) -> Vec<T> {
    let count = count.min(texts.len());
    (0..count)
        .map(|index| texts[index * texts.len() / count].clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn a_spread_keeps_order_and_takes_no_text_twice() {
        assert_eq!(spread(&[0, 1, 2, 3, 4, 5, 6], 3), [0, 2, 4]);
        assert_eq!(spread(&[0, 1], 3), [0, 1]);
        assert!(spread::<u8>(&[], 3).is_empty());
    }
}
