//! Models against their float reference, a row each.

use serde::{Deserialize, Serialize};

use crate::{EmbeddingAgreement, EvaluateError, MeasuredModel, SentenceSimilarity};

/// What a comparison needs to know beyond what was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReferenceFacts<'a> {
    /// Number of parameters of the model: elements of the float tensors of the reference checkpoint.
    pub parameters: u64,
    /// Human scores, if the texts are those of [`pair_texts`](crate::pair_texts).
    pub scores: Option<&'a [f64]>,
}

/// One model in a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComparisonRow {
    /// What the model is called.
    pub name: String,
    /// Bytes of the files of its weights.
    pub disk_bytes: u64,
    /// Bytes of parameters in memory.
    pub weight_memory_bytes: u64,
    /// Bytes of activation buffers.
    pub scratch_bytes: u64,
    /// [`compression_ratio`] on disk.
    pub compression_ratio: f64,
    /// [`bits_per_weight`] on disk, over all parameters of the model, embeddings included.
    pub bits_per_weight: f64,
    /// How close the embeddings are to those of the reference; `None` for the reference.
    pub agreement: Option<EmbeddingAgreement>,
    /// Correlation with human scores, if there are any.
    pub similarity: Option<SentenceSimilarity>,
    /// Median time to encode one text.
    pub median_milliseconds: f64,
    /// Texts encoded a second, in batches.
    pub texts_per_second: f64,
    /// Peak resident memory of the process that measured it.
    pub peak_resident_bytes: Option<u64>,
}

/// A reference and the models that are compared with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Number of parameters of the model.
    pub parameters: u64,
    /// Texts that were encoded.
    pub texts: usize,
    /// Worker threads.
    pub threads: usize,
    /// The reference, then the other models in the order given.
    pub rows: Vec<ComparisonRow>,
}

/// Compares `models` with `reference`, all measured on the same texts.
///
/// # Errors
/// Embeddings of different shapes, or a correlation that is not defined.
pub fn compare(
    reference: &MeasuredModel,
    models: &[MeasuredModel],
    facts: &ReferenceFacts<'_>,
) -> Result<Comparison, EvaluateError> {
    let mut rows = vec![row(reference, reference, None, facts)?];
    for model in models {
        let agreement =
            EmbeddingAgreement::between(&model.name, &reference.embeddings, &model.embeddings)?;
        rows.push(row(model, reference, Some(agreement), facts)?);
    }
    Ok(Comparison {
        parameters: facts.parameters,
        texts: reference.measurement.texts,
        threads: reference.measurement.threads,
        rows,
    })
}

fn row(
    model: &MeasuredModel,
    reference: &MeasuredModel,
    agreement: Option<EmbeddingAgreement>,
    facts: &ReferenceFacts<'_>,
) -> Result<ComparisonRow, EvaluateError> {
    let measurement = &model.measurement;
    let similarity = facts
        .scores
        .map(|scores| SentenceSimilarity::evaluate(&model.embeddings, scores))
        .transpose()?;
    Ok(ComparisonRow {
        name: model.name.clone(),
        disk_bytes: measurement.weight_bytes,
        weight_memory_bytes: measurement.weight_memory_bytes,
        scratch_bytes: measurement.scratch_bytes,
        compression_ratio: compression_ratio(
            reference.measurement.weight_bytes,
            measurement.weight_bytes,
        ),
        bits_per_weight: bits_per_weight(measurement.weight_bytes, facts.parameters),
        agreement,
        similarity,
        median_milliseconds: measurement.latency.median_milliseconds,
        texts_per_second: measurement.throughput.texts_per_second,
        peak_resident_bytes: measurement.peak_resident_bytes,
    })
}

/// `reference_bytes / bytes`: how many times smaller.
///
/// ```
/// assert_eq!(fewbit_evaluate::comparison::compression_ratio(91, 26), 3.5);
/// ```
pub fn compression_ratio(reference_bytes: u64, bytes: u64) -> f64 {
    reference_bytes as f64 / bytes as f64
}

/// `8 * bytes / parameters`.
///
/// ```
/// // A thousand 4-bit codes and an f32 scale for each 64 of them (16 scales).
/// assert_eq!(fewbit_evaluate::comparison::bits_per_weight(500 + 4 * 16, 1000), 4.512);
/// ```
pub fn bits_per_weight(bytes: u64, parameters: u64) -> f64 {
    8.0 * bytes as f64 / parameters as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Latency, Measurement, Throughput};
    use fewbit_model::Embeddings;

    fn model(name: &str, weight_bytes: u64, values: &[f32]) -> MeasuredModel {
        MeasuredModel {
            name: name.to_owned(),
            measurement: Measurement {
                directory_bytes: weight_bytes + 7,
                weight_bytes,
                weight_memory_bytes: weight_bytes + 1,
                scratch_bytes: 64,
                load_seconds: 0.25,
                latency: Latency {
                    median_milliseconds: 2.0,
                    p10_milliseconds: 1.0,
                    p90_milliseconds: 3.0,
                    p99_milliseconds: 4.0,
                    calls: 5,
                },
                throughput: Throughput {
                    texts_per_second: 500.0,
                    tokens_per_second: 8000.0,
                    batch_size: 32,
                    runs: 1,
                },
                texts: values.len() / 2,
                truncated_texts: 0,
                threads: 1,
                peak_resident_bytes: Some(1 << 20),
            },
            embeddings: Embeddings {
                rows: values.len() / 2,
                columns: 2,
                values: values.to_vec(),
                truncated: Vec::new(),
                tokens: 16,
            },
        }
    }

    /// Two pairs, whose cosines are 1 and 0.
    const REFERENCE: [f32; 8] = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0];

    #[test]
    fn rows_by_hand() {
        let reference = model("f32", 4000, &REFERENCE);
        let mut values = REFERENCE;
        // The last text turns by the angle with cosine 0.8.
        values[6..].copy_from_slice(&[0.6, 0.8]);
        let facts = ReferenceFacts {
            parameters: 1000,
            scores: Some(&[5.0, 1.0]),
        };
        let comparison = compare(&reference, &[model("nf4", 800, &values)], &facts).unwrap();
        assert_eq!((comparison.texts, comparison.rows.len()), (4, 2));

        let first = &comparison.rows[0];
        assert_eq!(first.agreement, None);
        assert_eq!(
            (first.compression_ratio, first.bits_per_weight),
            (1.0, 32.0)
        );
        assert_eq!(first.similarity.unwrap().spearman, 1.0);

        let second = &comparison.rows[1];
        assert_eq!(
            (
                second.disk_bytes,
                second.weight_memory_bytes,
                second.scratch_bytes
            ),
            (800, 801, 64)
        );
        assert_eq!(
            (second.compression_ratio, second.bits_per_weight),
            (5.0, 6.4)
        );
        let agreement = second.agreement.unwrap();
        // 0.6 and 0.8 are rounded to f32.
        assert!((agreement.minimum_cosine - 0.8).abs() < 1e-7);
        assert!((agreement.mean_cosine - 0.95).abs() < 1e-7);
        assert_eq!(agreement.largest_absolute_difference, f64::from(0.6f32));
        assert_eq!(second.median_milliseconds, 2.0);
        assert_eq!(second.texts_per_second, 500.0);
    }

    #[test]
    fn a_comparison_survives_json() {
        let reference = model("f32", 4000, &REFERENCE);
        let facts = ReferenceFacts {
            parameters: 1000,
            scores: None,
        };
        let models = [model("int8", 1000, &REFERENCE)];
        let comparison = compare(&reference, &models, &facts).unwrap();
        let json = serde_json::to_string(&comparison).unwrap();
        assert_eq!(
            serde_json::from_str::<Comparison>(&json).unwrap(),
            comparison
        );
        let json = serde_json::to_string(&reference.measurement).unwrap();
        assert_eq!(
            serde_json::from_str::<Measurement>(&json).unwrap(),
            reference.measurement
        );
    }

    #[test]
    fn embeddings_of_another_width_are_refused() {
        let reference = model("f32", 4000, &REFERENCE);
        let other = model("other", 4000, &REFERENCE[..4]);
        let error = compare(&reference, &[other], &ReferenceFacts::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "embeddings of `other`: expected [4, 2] (texts, columns), found [2, 2]\n  hint: compare models of the same width on the same texts"
        );
    }
}
