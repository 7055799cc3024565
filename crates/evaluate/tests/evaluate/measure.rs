//! Measuring a whole model directory: a tiny BERT with a vocabulary of its own.

use std::fs;

use crate::tiny_model::tiny_model;
use fewbit_evaluate::{
    EvaluateError, Latency, MeasureOptions, ReferenceFacts, SentencePair, compare, measure,
    pair_texts,
};
use fewbit_model::{EncodeOptions, Encoder};

fn options() -> MeasureOptions {
    MeasureOptions {
        batch_size: 3,
        latency_texts: 2,
        latency_repetitions: 4,
        throughput_seconds: 0.0,
        ..MeasureOptions::default()
    }
}

#[test]
fn figures_and_embeddings_of_a_model() {
    let directory = tiny_model();
    let long = "word1 ".repeat(100);
    let texts = ["word1 word2", "", long.as_str(), "word3", "unknown"];
    let model = measure("tiny", directory.path(), &texts, &options()).unwrap();

    let encoder = Encoder::open(directory.path()).unwrap();
    let expected = encoder.encode(&texts, &EncodeOptions::default()).unwrap();
    assert_eq!(model.embeddings, expected);

    let measurement = model.measurement;
    let size = |name: &str| fs::metadata(directory.path().join(name)).unwrap().len();
    assert_eq!(measurement.weight_bytes, size("model.safetensors"));
    assert_eq!(
        measurement.directory_bytes,
        size("model.safetensors") + size("config.json") + size("vocab.txt")
    );
    assert_eq!(
        measurement.weight_memory_bytes,
        encoder.network().memory_bytes() as u64
    );
    assert!(measurement.scratch_bytes > 0);
    assert_eq!((measurement.texts, measurement.truncated_texts), (5, 1));
    // Two texts, four rounds; throughput runs once where no time is asked for.
    assert_eq!(
        (measurement.latency.calls, measurement.throughput.runs),
        (8, 1)
    );
    assert_eq!(measurement.throughput.batch_size, 3);
    let latency = measurement.latency;
    assert!(0.0 < latency.p10_milliseconds);
    assert!(latency.p10_milliseconds <= latency.median_milliseconds);
    assert!(latency.median_milliseconds <= latency.p90_milliseconds);
}

#[test]
fn a_model_agrees_with_itself() {
    let directory = tiny_model();
    let pair = |sentence1: &str, sentence2: &str, score| SentencePair {
        sentence1: sentence1.to_owned(),
        sentence2: sentence2.to_owned(),
        score,
    };
    let pairs = [
        pair("word1 word2", "word1 word2", 5.0),
        pair("word1 word2", "word1 word3", 3.0),
        pair("word1", "word9 word8 word7", 0.0),
    ];
    let scores: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
    let model = measure("tiny", directory.path(), &pair_texts(&pairs), &options()).unwrap();
    let facts = ReferenceFacts {
        parameters: 1000,
        scores: Some(&scores),
    };
    let comparison = compare(&model, std::slice::from_ref(&model), &facts).unwrap();
    let row = &comparison.rows[1];
    let agreement = row.agreement.unwrap();
    assert_eq!(agreement.largest_absolute_difference, 0.0);
    // A cosine of a vector with itself is rounded a few times in f64.
    assert!((agreement.minimum_cosine - 1.0).abs() < 1e-12);
    assert_eq!(row.similarity, comparison.rows[0].similarity);
    assert_eq!(row.similarity.unwrap().pairs, 3);
}

#[test]
fn nothing_to_measure_with_is_an_error() {
    let directory = tiny_model();
    let none: [&str; 0] = [];
    let error = measure("tiny", directory.path(), &none, &options()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "texts to measure with: expected at least one text, found 0\n  hint: give at least one text"
    );
}

#[test]
fn any_number_of_repetitions_can_be_asked_for() {
    let directory = tiny_model();
    let encoder = Encoder::open(directory.path()).unwrap();
    let text = |texts: &[&str], threads| {
        Latency::measure(&encoder, texts, usize::MAX, threads)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        text(&[], 1),
        "latency: expected at least one timed call, found 0\n  hint: give at least one text and one repetition"
    );
    // The first call fails, before any time is kept.
    let no_threads = text(&["word1"], 0);
    assert!(no_threads.contains("threads"), "{no_threads}");
}

#[test]
fn a_directory_that_is_no_model_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = measure("x", directory.path(), &["a"], &options()).unwrap_err();
    assert!(matches!(error, EvaluateError::Model(_)), "{error}");
    assert!(error.to_string().contains("config.json"), "{error}");
}
