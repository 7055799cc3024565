//! The result of a benchmark.

use crate::measure::Memory;
use fewbit_evaluate::{BatchShape, Latency, StageProfile, TextOrder};
use serde::Serialize;
use std::path::PathBuf;

/// The result of [`bench()`](super::bench()). Wherever there is a list of `models`, it is in the order of the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// Instruction set of the kernels.
    pub isa: &'static str,
    /// Seconds for which each model was timed at each shape.
    pub seconds: f64,
    /// Rounds over the models.
    pub rounds: usize,
    /// The models; ratios are to the first.
    pub models: Vec<BenchedModel>,
    /// A row for each shape and number of threads.
    pub shapes: Vec<ShapeRow>,
    /// The stages of each model at each shape, if they were asked for.
    pub profiles: Vec<ProfileResult>,
    /// Speed on texts, if there were any.
    pub texts: Option<TextsReport>,
}

/// A model of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchedModel {
    /// What it is called in the report.
    pub name: String,
    /// Model directory.
    pub directory: PathBuf,
    /// config.json `model_type`.
    pub model_type: String,
    /// The recipe that made it, where fewbit did: `dynamic`, `nf4 + double quantization` …
    pub method: Option<String>,
    /// How its weights are stored: the dtype of most bytes (`F32`), or the quantization that config.json names.
    pub stored_as: String,
    /// Arithmetic of most linear layers: `int8` or `f32`.
    pub arithmetic: String,
    /// Positions that the model has, which bound the tokens of a sequence.
    pub max_tokens: usize,
    /// The most that one thread reached in that arithmetic, from registers alone, in units of 10^9 multiply-adds a second.
    pub peak_gmacs_per_second: f64,
    /// The way to the first embedding.
    pub startup: StartupTime,
    /// After all shapes, in the process that ran this model.
    #[serde(flatten)]
    pub memory: Memory,
}

/// All models at one shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShapeRow {
    /// The batch.
    #[serde(flatten)]
    pub shape: BatchShape,
    /// Worker threads.
    pub threads: usize,
    /// The models.
    pub models: Vec<ShapeResult>,
}

/// One model at one shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShapeResult {
    /// The model.
    pub model: String,
    /// Time of a pass.
    #[serde(flatten)]
    pub latency: Latency,
    /// Sequences over the median time.
    pub texts_per_second: f64,
    /// Tokens over the median time.
    pub tokens_per_second: f64,
    /// `multiply_adds` over the median time, in units of 10^9 a second.
    pub gmacs_per_second: f64,
    /// That over `threads` times the peak of one core; 1 would be a pass that does nothing but multiply and add.
    pub share_of_peak: f64,
    /// [`BatchShape::multiply_adds`] of one pass.
    pub multiply_adds: u64,
    /// Median time of the first model over that of this one.
    pub times_faster: f64,
}

/// The stages of one model at one shape, on one thread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProfileResult {
    /// The batch.
    #[serde(flatten)]
    pub shape: BatchShape,
    /// The model.
    pub model: String,
    /// Its stages.
    #[serde(flatten)]
    pub profile: StageProfile,
}

/// The way to the first embedding, each time anew.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StartupTime {
    /// Median time of opening the directory.
    pub load_milliseconds: f64,
    /// Median time of opening the directory and embedding one short text.
    pub first_embedding_milliseconds: f64,
    /// The largest peak of a process that does this and nothing else.
    pub peak_resident_bytes: Option<u64>,
    /// How often it was measured.
    pub startups: usize,
    /// Worker threads.
    pub threads: usize,
}

/// Speed on texts, tokenization included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextsReport {
    /// How many texts there are.
    pub texts: usize,
    /// A row for each batch size, number of threads and order.
    pub rows: Vec<TextRow>,
}

/// All models on the texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextRow {
    /// Texts run together.
    pub batch_size: usize,
    /// Worker threads.
    pub threads: usize,
    /// Which texts make up a batch.
    pub order: TextOrder,
    /// The models.
    pub models: Vec<TextResult>,
}

/// One model on the texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextResult {
    /// The model.
    pub model: String,
    /// Median time of a pass over all texts.
    pub median_seconds: f64,
    /// Texts over the median time.
    pub texts_per_second: f64,
    /// Tokens over the median time, special tokens included.
    pub tokens_per_second: f64,
    /// Tokens of all texts.
    pub tokens: usize,
    /// Texts that were cut at the model's limit.
    pub truncated: usize,
    /// Timed passes.
    pub passes: usize,
    /// Median time of the first model over that of this one.
    pub times_faster: f64,
}
